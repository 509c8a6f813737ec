//! The next definitions of the functions that this library takes the place of: libc's, or those of
//! another preloaded library.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

use libc::{DIR, FILE, mmsghdr, mode_t, msghdr, size_t, sockaddr, socklen_t, ssize_t, timespec};

/// Finds a function. Ends the process if there is none: then no program can have called it.
fn resolve(place: &AtomicPtr<c_void>, name: &CStr) -> *mut c_void {
    let known = place.load(Ordering::Relaxed);
    let found = if known.is_null() { look_up(place, name) } else { known };
    if found.is_null() {
        std::process::abort();
    }
    found
}

fn look_up(place: &AtomicPtr<c_void>, name: &CStr) -> *mut c_void {
    // SAFETY: the name ends with a NUL, and `RTLD_NEXT` is meant to be used from a shared library.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    place.store(found, Ordering::Relaxed);
    found
}

/// Finds all functions, as far as they are there. To be called as the library is loaded: the dynamic
/// linker's lock must not be waited for in a signal handler, nor after a fork while another thread had
/// it. What other libraries call before that is found when it is called.
pub fn find_all() {
    for (place, name) in ALL {
        look_up(place, name);
    }
}

macro_rules! next {
    ($(fn $name:ident($($arg:ident: $kind:ty),*) -> $out:ty;)*) => {
        mod place {
            use super::{AtomicPtr, c_void, null_mut};
            $(
                #[allow(non_upper_case_globals)]
                pub static $name: AtomicPtr<c_void> = AtomicPtr::new(null_mut());
            )*
        }

        const ALL: &[(&AtomicPtr<c_void>, &CStr)] =
            &[$((&place::$name, name(concat!(stringify!($name), "\0")))),*];

        $(
        /// The next definition of the function of this name.
        ///
        /// # Safety
        /// What the function's manual page demands.
        pub unsafe fn $name($($arg: $kind),*) -> $out {
            let function = resolve(&place::$name, name(concat!(stringify!($name), "\0")));
            // SAFETY: a definition under libc's name has libc's type. Functions that take their last
            // argument by `...` read it from the register in which it is passed here (the psABIs of
            // x86-64 and AArch64 on Linux).
            let function = unsafe {
                std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($kind),*) -> $out>(function)
            };
            // SAFETY: the caller's arguments, on the same terms.
            unsafe { function($($arg),*) }
        }
        )*
    };
}

const fn name(text: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(text.as_bytes()) {
        Ok(name) => name,
        Err(_) => panic!("a name with one NUL, at its end"),
    }
}

next! {
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn connect(fd: c_int, addr: *const sockaddr, length: socklen_t) -> c_int;
    fn send(fd: c_int, data: *const c_void, length: size_t, flags: c_int) -> ssize_t;
    fn sendto(fd: c_int, data: *const c_void, length: size_t, flags: c_int,
              addr: *const sockaddr, addr_length: socklen_t) -> ssize_t;
    fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t;
    fn sendmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int) -> c_int;
    fn write(fd: c_int, data: *const c_void, length: size_t) -> ssize_t;
    fn writev(fd: c_int, parts: *const libc::iovec, count: c_int) -> ssize_t;
    fn recvfrom(fd: c_int, data: *mut c_void, length: size_t, flags: c_int,
                addr: *mut sockaddr, addr_length: *mut socklen_t) -> ssize_t;
    fn __recvfrom_chk(fd: c_int, data: *mut c_void, length: size_t, room: size_t, flags: c_int,
                      addr: *mut sockaddr, addr_length: *mut socklen_t) -> ssize_t;
    fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t;
    fn recvmmsg(fd: c_int, messages: *mut mmsghdr, count: c_uint, flags: c_int,
                timeout: *mut timespec) -> c_int;
    fn getsockopt(fd: c_int, level: c_int, option: c_int, value: *mut c_void,
                  length: *mut socklen_t) -> c_int;
    fn setsockopt(fd: c_int, level: c_int, option: c_int, value: *const c_void,
                  length: socklen_t) -> c_int;
    fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int;
    fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int;
    fn __open_2(path: *const c_char, flags: c_int) -> c_int;
    fn __open64_2(path: *const c_char, flags: c_int) -> c_int;
    fn openat(folder: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int;
    fn openat64(folder: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int;
    fn __openat_2(folder: c_int, path: *const c_char, flags: c_int) -> c_int;
    fn __openat64_2(folder: c_int, path: *const c_char, flags: c_int) -> c_int;
    fn fopen(path: *const c_char, mode: *const c_char) -> *mut FILE;
    fn fopen64(path: *const c_char, mode: *const c_char) -> *mut FILE;
    fn access(path: *const c_char, mode: c_int) -> c_int;
    fn eaccess(path: *const c_char, mode: c_int) -> c_int;
    fn euidaccess(path: *const c_char, mode: c_int) -> c_int;
    fn opendir(path: *const c_char) -> *mut DIR;
    fn realpath(path: *const c_char, into: *mut c_char) -> *mut c_char;
    fn __realpath_chk(path: *const c_char, into: *mut c_char, room: size_t) -> *mut c_char;
    fn readlink(path: *const c_char, into: *mut c_char, room: size_t) -> ssize_t;
    fn readlinkat(folder: c_int, path: *const c_char, into: *mut c_char, room: size_t) -> ssize_t;
    fn getxattr(path: *const c_char, name: *const c_char, value: *mut c_void,
                room: size_t) -> ssize_t;
    fn lgetxattr(path: *const c_char, name: *const c_char, value: *mut c_void,
                 room: size_t) -> ssize_t;
    fn faccessat(folder: c_int, path: *const c_char, mode: c_int, flags: c_int) -> c_int;
    fn stat(path: *const c_char, into: *mut c_void) -> c_int;
    fn stat64(path: *const c_char, into: *mut c_void) -> c_int;
    fn lstat(path: *const c_char, into: *mut c_void) -> c_int;
    fn lstat64(path: *const c_char, into: *mut c_void) -> c_int;
    fn fstatat(folder: c_int, path: *const c_char, into: *mut c_void, flags: c_int) -> c_int;
    fn fstatat64(folder: c_int, path: *const c_char, into: *mut c_void, flags: c_int) -> c_int;
    fn statx(folder: c_int, path: *const c_char, flags: c_int, mask: c_uint,
             into: *mut c_void) -> c_int;
    fn __xstat(version: c_int, path: *const c_char, into: *mut c_void) -> c_int;
    fn __xstat64(version: c_int, path: *const c_char, into: *mut c_void) -> c_int;
}
