//! `/proc/net/ip_vs*` and `/proc/sys/net/ipv4/vs`: opened for reading they are files in memory with
//! the text of the moment; no setting can be written. Without an rvsd they are not there.

use std::ffi::{CStr, OsStr, c_char, c_int, c_uint, c_void};
use std::os::fd::IntoRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::null_mut;

use libc::{FILE, mode_t};
use rustix::fs::OFlags;
use rvs_compat::file::open_node;
use rvs_compat::path::Node;
use rvs_netlink::Client;

use crate::{fail, next};

/// What a path of the caller names, if it is ours and rvsd serves.
///
/// # Safety
/// `path` is null or a string that ends with a NUL.
unsafe fn node(path: *const c_char) -> Option<(Node, Client)> {
    if path.is_null() {
        return None;
    }
    // SAFETY: not null, and ended by a NUL.
    let path = unsafe { CStr::from_ptr(path) };
    let node = Node::at(Path::new(OsStr::from_bytes(path.to_bytes())))?;
    Some((node, Client::connect_to(crate::rvsd()).ok()?))
}

/// What `open` does with a path of ours.
///
/// # Safety
/// `path` is null or a string that ends with a NUL.
unsafe fn opened(path: *const c_char, flags: c_int) -> Option<c_int> {
    // SAFETY: this function's contract.
    let (node, mut client) = unsafe { node(path) }?;
    Some(match open_node(node, &mut client, OFlags::from_bits_retain(flags.cast_unsigned())) {
        Ok(fd) => fd.into_raw_fd(),
        Err(errno) => fail(errno) as c_int,
    })
}

/// What `fopen` does with a path of ours.
///
/// # Safety
/// Both are null or strings that end with a NUL.
unsafe fn fopened(path: *const c_char, mode: *const c_char) -> Option<*mut FILE> {
    // SAFETY: this function's contract.
    let (node, mut client) = unsafe { node(path) }?;
    if mode.is_null() {
        return None;
    }
    // SAFETY: not null, and ended by a NUL.
    let letters = unsafe { CStr::from_ptr(mode) }.to_bytes();
    let writes = !letters.starts_with(b"r") || letters.contains(&b'+');
    let flags = if writes { OFlags::RDWR } else { OFlags::RDONLY };
    let close = if letters.contains(&b'e') { OFlags::CLOEXEC } else { OFlags::empty() };
    Some(match open_node(node, &mut client, flags | close) {
        // SAFETY: an open descriptor, which the stream takes over, and the caller's mode.
        Ok(fd) => unsafe { libc::fdopen(fd.into_raw_fd(), mode) },
        Err(errno) => {
            fail(errno);
            null_mut()
        }
    })
}

/// The path to ask about in place of one of ours.
///
/// # Safety
/// `path` is null or a string that ends with a NUL.
unsafe fn stand_in(path: *const c_char) -> *const c_char {
    // SAFETY: this function's contract.
    unsafe { node(path) }.map_or(path, |(node, _)| node.stand_in().as_ptr())
}

macro_rules! opening {
    ($(fn $name:ident($($folder:ident)?; $($mode:ident)?);)*) => { $(
        /// The function of this name in place of libc's.
        ///
        /// # Safety
        /// As in its manual page.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(
            $($folder: c_int,)? path: *const c_char, flags: c_int $(, $mode: mode_t)?
        ) -> c_int {
            // SAFETY: the caller's path.
            let opened = unsafe { opened(path, flags) };
            // SAFETY: the caller's arguments.
            opened.unwrap_or_else(|| unsafe { next::$name($($folder,)? path, flags $(, $mode)?) })
        }
    )* };
}

opening! {
    fn open(; mode);
    fn open64(; mode);
    fn __open_2(;);
    fn __open64_2(;);
    fn openat(folder; mode);
    fn openat64(folder; mode);
    fn __openat_2(folder;);
    fn __openat64_2(folder;);
}

macro_rules! fopening {
    ($($name:ident),*) => { $(
        /// The function of this name in place of libc's.
        ///
        /// # Safety
        /// As in its manual page.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(path: *const c_char, mode: *const c_char) -> *mut FILE {
            // SAFETY: the caller's arguments.
            let opened = unsafe { fopened(path, mode) };
            // SAFETY: the caller's arguments.
            opened.unwrap_or_else(|| unsafe { next::$name(path, mode) })
        }
    )* };
}

fopening!(fopen, fopen64);

macro_rules! asking {
    ($(fn $name:ident($($before:ident: $kind:ty),*; $($after:ident: $last:ty),*);)*) => { $(
        /// The function of this name in place of libc's.
        ///
        /// # Safety
        /// As in its manual page.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(
            $($before: $kind,)* path: *const c_char $(, $after: $last)*
        ) -> c_int {
            // SAFETY: the caller's path.
            let path = unsafe { stand_in(path) };
            // SAFETY: the caller's arguments, or a path of ours that is as valid.
            unsafe { next::$name($($before,)* path $(, $after)*) }
        }
    )* };
}

asking! {
    fn access(; mode: c_int);
    fn faccessat(folder: c_int; mode: c_int, flags: c_int);
    fn stat(; into: *mut c_void);
    fn stat64(; into: *mut c_void);
    fn lstat(; into: *mut c_void);
    fn lstat64(; into: *mut c_void);
    fn fstatat(folder: c_int; into: *mut c_void, flags: c_int);
    fn fstatat64(folder: c_int; into: *mut c_void, flags: c_int);
    fn statx(folder: c_int; flags: c_int, mask: c_uint, into: *mut c_void);
    fn __xstat(version: c_int; into: *mut c_void);
    fn __xstat64(version: c_int; into: *mut c_void);
}
