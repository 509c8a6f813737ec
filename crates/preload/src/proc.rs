//! `/proc/net/ip_vs*` and `/proc/sys/net/ipv4/vs`: the former are opened as files in memory with the
//! text of the moment; a path to the latter becomes one into rvsd's file system ([`rvs_compat::file`]).
//! Without an rvsd they are not there.

use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_uint, c_void};
use std::os::fd::IntoRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::null_mut;

use libc::{AT_FDCWD, DIR, FILE, mode_t, size_t, ssize_t};
use rustix::fs::OFlags;
use rvs_compat::file::{Place, open_node};
use rvs_compat::path::Node;
use rvs_netlink::Client;

use crate::{fail, next};

/// What a path of the caller names.
enum Found {
    /// Nothing of ours, or there is no rvsd.
    Theirs,
    /// What is at another path.
    Placed(Place),
    /// What a file in memory is made of.
    Text(Node, Client),
}

/// What a path names that is relative to an open folder.
fn named(folder: c_int, path: &Path) -> Option<Node> {
    if folder == AT_FDCWD {
        return Node::below(Path::new("/proc/self/cwd"), path);
    }
    Node::below(Path::new(&format!("/proc/self/fd/{folder}")), path)
}

/// Looks at a path of the caller, relative to `folder`.
///
/// # Safety
/// `path` is null or a string that ends with a NUL.
unsafe fn find(folder: c_int, path: *const c_char) -> Found {
    if path.is_null() {
        return Found::Theirs;
    }
    // SAFETY: not null, and ended by a NUL.
    let path = unsafe { CStr::from_ptr(path) };
    let Some(node) = named(folder, Path::new(OsStr::from_bytes(path.to_bytes()))) else {
        return Found::Theirs;
    };
    let Ok(mut client) = Client::connect_to(crate::rvsd()) else { return Found::Theirs };
    match Place::of(node, &mut client) {
        Some(place) => Found::Placed(place),
        None => Found::Text(node, client),
    }
}

/// What `open` does with a file in memory.
fn opened(node: Node, client: &mut Client, flags: c_int) -> c_int {
    match open_node(node, client, OFlags::from_bits_retain(flags.cast_unsigned())) {
        Ok(fd) => fd.into_raw_fd(),
        Err(errno) => fail(errno) as c_int,
    }
}

/// What `fopen` does with a file in memory.
///
/// # Safety
/// `mode` is a string that ends with a NUL.
unsafe fn fopened(node: Node, client: &mut Client, mode: *const c_char) -> *mut FILE {
    // SAFETY: this function's contract.
    let letters = unsafe { CStr::from_ptr(mode) }.to_bytes();
    let writes = !letters.starts_with(b"r") || letters.contains(&b'+');
    let flags = if writes { OFlags::RDWR } else { OFlags::RDONLY };
    let close = if letters.contains(&b'e') { OFlags::CLOEXEC } else { OFlags::empty() };
    match open_node(node, client, flags | close) {
        // SAFETY: an open descriptor, which the stream takes over, and the caller's mode.
        Ok(fd) => unsafe { libc::fdopen(fd.into_raw_fd(), mode) },
        Err(errno) => {
            fail(errno);
            null_mut()
        }
    }
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
            let place = match unsafe { find([$($folder,)? AT_FDCWD][0], path) } {
                Found::Theirs => None,
                Found::Placed(place) => Some(place),
                Found::Text(node, mut client) => return opened(node, &mut client, flags),
            };
            let path = place.as_ref().map_or(path, |place| place.path().as_ptr());
            // SAFETY: the caller's arguments, or a path of ours, which lives until `place` is dropped.
            unsafe { next::$name($($folder,)? path, flags $(, $mode)?) }
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
            // SAFETY: the caller's path.
            let place = match unsafe { find(AT_FDCWD, path) } {
                Found::Placed(place) => Some(place),
                Found::Text(node, mut client) if !mode.is_null() => {
                    // SAFETY: the caller's mode, which is not null.
                    return unsafe { fopened(node, &mut client, mode) };
                }
                _ => None,
            };
            let path = place.as_ref().map_or(path, |place| place.path().as_ptr());
            // SAFETY: the caller's arguments, or a path of ours, which lives until `place` is dropped.
            unsafe { next::$name(path, mode) }
        }
    )* };
}

fopening!(fopen, fopen64);

macro_rules! asking {
    ($(fn $name:ident($($folder:ident)?; $($before:ident: $kind:ty)?; $($after:ident: $last:ty),*) -> $out:ty;)*) => { $(
        /// The function of this name in place of libc's.
        ///
        /// # Safety
        /// As in its manual page.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(
            $($folder: c_int,)? $($before: $kind,)? path: *const c_char $(, $after: $last)*
        ) -> $out {
            // SAFETY: the caller's path.
            let found = unsafe { find([$($folder,)? AT_FDCWD][0], path) };
            let path = match &found {
                Found::Theirs => path,
                Found::Placed(place) => place.path().as_ptr(),
                Found::Text(node, _) => node.stand_in().as_ptr(),
            };
            // SAFETY: the caller's arguments, or a path of ours, which lives until `found` is dropped.
            unsafe { next::$name($($folder,)? $($before,)? path $(, $after)*) }
        }
    )* };
}

asking! {
    fn access(;; mode: c_int) -> c_int;
    fn eaccess(;; mode: c_int) -> c_int;
    fn euidaccess(;; mode: c_int) -> c_int;
    fn faccessat(folder;; mode: c_int, flags: c_int) -> c_int;
    fn stat(;; into: *mut c_void) -> c_int;
    fn stat64(;; into: *mut c_void) -> c_int;
    fn lstat(;; into: *mut c_void) -> c_int;
    fn lstat64(;; into: *mut c_void) -> c_int;
    fn fstatat(folder;; into: *mut c_void, flags: c_int) -> c_int;
    fn fstatat64(folder;; into: *mut c_void, flags: c_int) -> c_int;
    fn statx(folder;; flags: c_int, mask: c_uint, into: *mut c_void) -> c_int;
    fn __xstat(; version: c_int; into: *mut c_void) -> c_int;
    fn __xstat64(; version: c_int; into: *mut c_void) -> c_int;
    fn readlink(;; into: *mut c_char, room: size_t) -> ssize_t;
    fn readlinkat(folder;; into: *mut c_char, room: size_t) -> ssize_t;
    fn getxattr(;; name: *const c_char, value: *mut c_void, room: size_t) -> ssize_t;
    fn lgetxattr(;; name: *const c_char, value: *mut c_void, room: size_t) -> ssize_t;
}

/// `opendir(3)`
///
/// # Safety
/// As in its manual page.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn opendir(path: *const c_char) -> *mut DIR {
    // SAFETY: the caller's path.
    let place = match unsafe { find(AT_FDCWD, path) } {
        Found::Placed(place) => Some(place),
        _ => None,
    };
    let path = place.as_ref().map_or(path, |place| place.path().as_ptr());
    // SAFETY: the caller's path, or one of ours, which lives until `place` is dropped.
    unsafe { next::opendir(path) }
}

macro_rules! resolving {
    ($(fn $name:ident($($room:ident)?);)*) => { $(
        /// The function of this name in place of libc's: its own path is what is returned for one of
        /// ours.
        ///
        /// # Safety
        /// As in its manual page.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(
            path: *const c_char, into: *mut c_char $(, $room: size_t)?
        ) -> *mut c_char {
            // SAFETY: the caller's path.
            match unsafe { find(AT_FDCWD, path) } {
                Found::Theirs => {
                    // SAFETY: the caller's arguments.
                    unsafe { next::$name(path, into $(, $room)?) }
                }
                Found::Placed(place) => {
                    // SAFETY: the caller's place for a path.
                    unsafe { resolved(place.node(), into) }
                }
                Found::Text(node, _) => {
                    // SAFETY: the caller's place for a path.
                    unsafe { resolved(node, into) }
                }
            }
        }
    )* };
}

resolving! {
    fn realpath();
    fn __realpath_chk(room);
}

/// What `realpath` returns.
///
/// # Safety
/// `into` is null or valid for writes of PATH_MAX bytes.
unsafe fn resolved(node: Node, into: *mut c_char) -> *mut c_char {
    let Ok(path) = CString::new(node.path()) else { return null_mut() };
    if into.is_null() {
        // SAFETY: a string that ends with a NUL.
        return unsafe { libc::strdup(path.as_ptr()) };
    }
    // SAFETY: `into` has room for PATH_MAX bytes, and no path of ours is as long.
    unsafe { libc::strcpy(into, path.as_ptr()) }
}
