//! The clock that jiffies are compared with.

use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_coarse_ns};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use rvs_core::env::Env as _;

use crate::env::Kernel;

/// Reads both. rvsd runs it as it starts, without a packet.
#[classifier]
pub fn rvs_clock(_: TcContext) -> i32 {
    let Some(config) = Kernel.config() else { return -1 };
    // SAFETY: helpers without arguments.
    let (jiffies, nanos) = unsafe { (bpf_jiffies64(), bpf_ktime_get_coarse_ns()) };
    config.clock.jiffies.set(jiffies);
    config.clock.nanos.set(nanos);
    0
}
