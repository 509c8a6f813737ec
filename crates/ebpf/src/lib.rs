//! The eBPF side of RVS. The programs are in `main.rs`, which only BPF targets build; natively
//! this crate is empty, so that the workspace builds as a whole.
#![cfg_attr(target_arch = "bpf", no_std)]
