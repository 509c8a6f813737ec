//! Every load-balancing decision of RVS, made once: the same code runs natively, in tests and,
//! compiled for `bpfel-unknown-none`, in the kernel. No `unsafe`, no allocation, no clock.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod addr;
pub mod answer;
pub mod app;
pub mod bypass;
pub mod conn;
pub mod control;
pub mod defence;
pub mod dest;
pub mod env;
pub mod flow;
pub mod fragment;
pub mod headers;
pub mod layout;
pub mod limit;
pub mod local;
pub mod mark;
pub mod nat;
pub mod ours;
pub mod packet;
pub mod pe;
pub mod pe_sip;
pub mod pipeline;
pub mod proto;
pub mod reason;
pub mod related;
pub mod room;
pub mod sched;
pub mod schedule;
pub mod sweep;
pub mod sync;
pub mod sysctl;
pub mod table;
pub mod time;
pub mod timeout;
pub mod tracked;
pub mod tunnel;
pub mod types;
