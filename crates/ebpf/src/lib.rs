//! The eBPF side of RVS; natively empty.
#![cfg_attr(target_arch = "bpf", no_std)]
