//! The two programs, one behaviour: XDP for devices that do it natively, TC for all others and
//! for what XDP hands on. Every decision is `rvs-core`'s; here are the maps, the clock, the
//! kernel's routing and the packet's memory.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod atomic;
mod bare;
mod bypass;
mod clock;
mod cover;
mod engine;
mod env;
mod extended;
mod fragment;
mod icmp;
mod local;
mod maps;
mod marked;
mod related;
mod rewrite;
mod route;
mod slow;
mod tc;
mod tracked;
mod xdp;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// `bpf_fib_lookup` and others are for GPL-compatible programs only.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
