//! The checksum in the outer header of a tunneled packet; TC only. A program of its own, called by
//! tail call when everything else is done, for the stack's sake.

use aya_ebpf::helpers::generated::{bpf_csum_diff, bpf_skb_load_bytes};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use rvs_core::env::{Env, Visit};
use rvs_core::reason::Reason;
use rvs_core::tunnel::checksum;
use rvs_wire::checksum::fold;

use crate::env::Kernel;
use crate::maps::{self, COVER_PROGRAM};
use crate::tc::{Frame, drop};

/// `TC_ACT_REDIRECT`: what the helpers that send a packet return. Where to, the kernel knows
/// already, so that nothing has to be handed over.
pub const REDIRECT: i32 = 7;
/// What a program returns to itself: it is to call [`rvs_cover`].
pub const PENDING: i32 = 1 << 18;

/// Ethernet, the outer headers, IPv4 with all options, TCP.
const HEADERS: u32 = 14 + 40 + 12 + 60 + 20;
/// The most that `bpf_csum_diff` takes at once on older kernels.
const PIECE: u32 = 512;

/// Calls [`rvs_cover`], as the last thing that a program does.
#[inline(always)]
pub fn call(ctx: &TcContext) -> i32 {
    // SAFETY: the context is the program's own. It returns only if the call failed.
    unsafe { maps::PROGRAMS.tail_call(ctx, COVER_PROGRAM) };
    drop(Reason::RewriteFailed)
}

/// Computes the checksum and sends the packet.
#[classifier]
pub fn rvs_cover(ctx: TcContext) -> i32 {
    let mut frame = Frame(ctx.skb.skb);
    frame.pull(HEADERS);
    match cover(&mut frame) {
        Some(()) => REDIRECT,
        None => drop(Reason::RewriteFailed),
    }
}

#[inline(always)]
fn cover(frame: &mut Frame) -> Option<()> {
    let outer = checksum::outer(frame)?;
    if outer.write_promised(frame, frame.gso_size())? {
        return Some(());
    }
    let inner = sum(frame, outer.inner, outer.len)?;
    outer.write(frame, inner, outer.len)
}

/// Sum of `len` bytes from offset `at` on, folded. `None` if they are out of reach.
#[inline(always)]
pub fn sum(frame: &Frame, at: u32, len: u32) -> Option<u32> {
    let mut sum = Sum { frame: *frame, at, left: len, sum: 0, failed: 0 };
    Kernel.repeat(len.div_ceil(PIECE), &mut sum);
    if sum.failed != 0 { None } else { Some(fold(sum.sum) as u32) }
}

/// Adds up `left` bytes from offset `at` on, a piece at a time.
struct Sum {
    frame: Frame,
    at: u32,
    left: u32,
    sum: u32,
    failed: u32,
}

impl Visit for Sum {
    #[inline(always)]
    fn visit(&mut self, _: u32) -> bool {
        let sum = maps::SCRATCH
            .get_ptr_mut(0)
            .and_then(|scratch| piece(&self.frame, self.at, self.left, scratch.cast(), self.sum));
        let Some(sum) = sum else {
            self.failed = 1;
            return false;
        };
        self.sum = sum;
        self.at = self.at.wrapping_add(PIECE);
        self.left = self.left.saturating_sub(PIECE);
        self.left != 0
    }
}

/// `sum` and the first of `left` bytes from offset `at` on.
#[inline(always)]
fn piece(frame: &Frame, at: u32, left: u32, scratch: *mut u8, sum: u32) -> Option<u32> {
    // 1 to 512 in a form that LLVM does not rewrite into one that Linux 6.1 cannot follow.
    let len = (core::hint::black_box(left.min(PIECE).wrapping_sub(1)) & (PIECE - 1)) + 1;
    // The last word is padded with zeros.
    // SAFETY: 512 and a word more fit; this CPU's own element.
    unsafe { scratch.add((len & !3) as usize).cast::<u32>().write_volatile(0) };
    // SAFETY: `len` bytes fit.
    if unsafe { bpf_skb_load_bytes(frame.0.cast(), at, scratch.cast(), len) } != 0 {
        return None;
    }
    let size = core::hint::black_box((len + 3) & !3) & 0x3fc;
    // SAFETY: `size` bytes fit.
    Some(unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, scratch.cast(), size, sum) as u32 })
}
