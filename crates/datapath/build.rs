//! Builds the eBPF programs of the data path into `OUT_DIR/rvs.bpf.o`.

fn main() {
    rvs_bpf_build::build("rvs-ebpf", "rvs", &["crates/ebpf", "crates/core", "crates/wire"]);
}
