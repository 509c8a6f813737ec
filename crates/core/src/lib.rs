//! Every load-balancing decision of RVS, made once: the same code runs natively, in tests and,
//! compiled for `bpfel-unknown-none`, in the kernel. No `unsafe`, no allocation, no clock.
#![no_std]
#![forbid(unsafe_code)]

pub mod control;
pub mod types;
