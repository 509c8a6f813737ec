//! `librvs_ipvs.so`: preloaded into a program (`rvs run`), it takes the place of a few functions of
//! libc, so that the program finds rvsd where it looks for the kernel's ip_vs: behind generic netlink
//! sockets, behind the older socket options, and in `/proc`. Everything else goes to the kernel
//! untouched.
//!
//! Since a netlink socket of the program stays the kernel's, with answers of rvsd in its own receive
//! queue ([`rvs_compat::socket`]), blocking, `poll`, `MSG_PEEK`, `MSG_TRUNC`, duplicated and inherited
//! descriptors need no care. Nothing is kept between calls.
//!
//! `unsafe` is confined to what the interface of libc demands: pointers of the caller that are read
//! and written on the terms of the function's manual page, and the call of the next definition.

mod netlink;
mod next;
mod proc;
mod sockopt;

use std::ffi::c_int;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The control socket, as the environment names it when the library is loaded: some programs clear
/// their environment.
fn rvsd() -> &'static Path {
    static RVSD: OnceLock<PathBuf> = OnceLock::new();
    RVSD.get_or_init(rvs_compat::rvsd)
}

/// Runs as the library is loaded.
extern "C" fn prepare() {
    next::find_all();
    rvsd();
}

#[used]
#[unsafe(link_section = ".init_array")]
static PREPARE: extern "C" fn() = prepare;

/// Sets `errno` and returns the -1 that goes with it.
fn fail(errno: c_int) -> isize {
    // SAFETY: libc's function returns the address of the calling thread's `errno`.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: that address is valid and the thread's own for as long as it runs.
    unsafe { *place = errno };
    -1
}

/// The bytes at `start`; none for a null pointer.
///
/// # Safety
/// Unless it is null, `start` is valid for reads of `length` bytes while the slice is used.
unsafe fn bytes<'a>(start: *const libc::c_void, length: usize) -> &'a [u8] {
    if start.is_null() || length > isize::MAX as usize {
        return &[];
    }
    // SAFETY: not null, and valid by this function's contract; bytes have no alignment.
    unsafe { std::slice::from_raw_parts(start.cast(), length) }
}
