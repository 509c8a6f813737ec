//! Builds the benchmark's own eBPF programs into `OUT_DIR/bench.bpf.o`.

fn main() {
    rvs_bpf_build::build("rvs-bench-ebpf", "bench", &["benches/datapath/ebpf"]);
}
