//! Read-modify-write on map memory. `core::sync::atomic` has none on BPF targets and LLVM 22
//! miscompiles the relaxed intrinsic, so these are the kernel's own instructions.

use core::arch::asm;

/// Stores `new` if `*p` is `old`; what it was. Fully ordered.
///
/// # Safety
/// `p` points to a live, aligned word of a map value.
#[inline(always)]
pub unsafe fn compare_exchange(p: *mut u32, old: u32, new: u32) -> u32 {
    let mut previous = old;
    // SAFETY: one atomic instruction on memory that the caller vouches for.
    unsafe {
        asm!("w0 = cmpxchg32_32({p} + 0, w0, {n})", p = in(reg) p, n = in(wreg) new, inout("r0") previous);
    }
    previous
}

/// The same for 64 bits.
///
/// # Safety
/// As [`compare_exchange`].
#[inline(always)]
pub unsafe fn compare_exchange64(p: *mut u64, old: u64, new: u64) -> u64 {
    let mut previous = old;
    // SAFETY: one atomic instruction on memory that the caller vouches for.
    unsafe {
        asm!("r0 = cmpxchg_64({p} + 0, r0, {n})", p = in(reg) p, n = in(reg) new, inout("r0") previous);
    }
    previous
}

/// Sets bits of a word.
///
/// # Safety
/// As [`compare_exchange`].
#[inline(always)]
pub unsafe fn or64(p: *mut u64, bits: u64) {
    // SAFETY: one atomic instruction on memory that the caller vouches for.
    unsafe { asm!("lock *(u64 *)({p} + 0) |= {v}", p = in(reg) p, v = in(reg) bits) }
}

/// Adds to a word, wrapping.
///
/// # Safety
/// As [`compare_exchange`].
#[inline(always)]
pub unsafe fn add(p: *mut u32, delta: u32) {
    // SAFETY: one atomic instruction on memory that the caller vouches for.
    unsafe { asm!("lock *(u32 *)({p} + 0) += {v}", p = in(reg) p, v = in(wreg) delta) }
}

/// The same for 64 bits.
///
/// # Safety
/// As [`compare_exchange`].
#[inline(always)]
pub unsafe fn add64(p: *mut u64, delta: u64) {
    // SAFETY: one atomic instruction on memory that the caller vouches for.
    unsafe { asm!("lock *(u64 *)({p} + 0) += {v}", p = in(reg) p, v = in(reg) delta) }
}
