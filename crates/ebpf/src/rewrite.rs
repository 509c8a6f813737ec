//! Rewriting an skb's headers, in global functions: the verifier proves each once and by itself, not
//! again for every way that leads to it, which made half of what the TC programs cost to load.

use aya_ebpf::bindings::__sk_buff;
use rvs_core::addr::{V4, V6};
use rvs_core::flow::{Flow, Ip};
use rvs_core::layout::Conn;
use rvs_core::nat::{self, Change};
use rvs_core::pipeline::Forward;

use crate::tc::Frame;

/// An address family's global function.
pub trait Rewrite: Ip {
    /// [`nat::apply`] with the number of a [`Change`]; 1 if a header was out of reach.
    fn rewrite_skb(skb: *mut __sk_buff, flow: &Flow<Self>, entry: &Conn<Self>, change: u32) -> u32;
}

/// See [`Forward::rewrite`].
#[inline(always)]
pub fn rewrite<A: Rewrite>(
    frame: &mut Frame,
    flow: &Flow<A>,
    forward: &Forward<'_, A>,
) -> Option<()> {
    match A::rewrite_skb(frame.0, flow, forward.entry, forward.change() as u32) {
        0 => Some(()),
        _ => None,
    }
}

macro_rules! global {
    ($addr:ty: $rewrite:ident) => {
        /// See [`Rewrite::rewrite_skb`].
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $rewrite(
            skb: *mut __sk_buff,
            flow: *const Flow<$addr>,
            entry: *const Conn<$addr>,
            change: u32,
        ) -> u32 {
            // SAFETY: the verifier proves that a pointer to a struct, if it is not null, spans it.
            let (Some(flow), Some(entry)) = (unsafe { flow.as_ref() }, unsafe { entry.as_ref() })
            else {
                return 1;
            };
            let change = if change == Change::Hop as u32 {
                Change::Hop
            } else if change == Change::Source as u32 {
                Change::Source
            } else {
                Change::Destination
            };
            nat::apply(&mut Frame(skb), flow, entry, change).is_none() as u32
        }

        impl Rewrite for $addr {
            #[inline(always)]
            fn rewrite_skb(
                skb: *mut __sk_buff,
                flow: &Flow<Self>,
                entry: &Conn<Self>,
                change: u32,
            ) -> u32 {
                $rewrite(skb, flow, entry, change)
            }
        }
    };
}
global!(V4: rvs_rewrite4);
global!(V6: rvs_rewrite6);
