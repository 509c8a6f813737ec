//! `IP_VS_SO_SET_*` and `IP_VS_SO_GET_*`: taken by their numbers, which are ip_vs's alone. Without
//! an rvsd the kernel answers, as one that has no ip_vs.

use std::ffi::{c_int, c_void};

use libc::socklen_t;
use rvs_compat::sockopt;
use rvs_netlink::Client;

use crate::{bytes, fail, next};

/// A connection to rvsd; `Err(Some(errno))` if it is there but not for us.
fn client() -> Result<Client, Option<i32>> {
    Client::connect_to(crate::rvsd()).map_err(|error| {
        let errno = rvs_compat::errno(&error, sockopt::ENOPROTOOPT);
        (errno != sockopt::ENOPROTOOPT).then_some(errno)
    })
}

/// `setsockopt(2)`
///
/// # Safety
/// As in its manual page.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn setsockopt(
    fd: c_int,
    level: c_int,
    option: c_int,
    value: *const c_void,
    length: socklen_t,
) -> c_int {
    if level == libc::IPPROTO_IP && sockopt::is_set(option) && is_ipv4(fd) {
        // SAFETY: `value` is valid for `length` bytes by the manual page.
        let value = unsafe { bytes(value, length as usize) };
        let result = match client() {
            Ok(mut client) => Some(sockopt::set(&mut client, option, value)),
            Err(errno) => errno.map(Err),
        };
        match result {
            Some(Ok(())) => return 0,
            Some(Err(errno)) => return fail(errno) as c_int,
            None => {}
        }
    }
    // SAFETY: the caller's arguments.
    unsafe { next::setsockopt(fd, level, option, value, length) }
}

/// `getsockopt(2)`
///
/// # Safety
/// As in its manual page.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getsockopt(
    fd: c_int,
    level: c_int,
    option: c_int,
    value: *mut c_void,
    length: *mut socklen_t,
) -> c_int {
    if level == libc::IPPROTO_IP && sockopt::is_get(option) && !length.is_null() && is_ipv4(fd) {
        // SAFETY: not null, and valid by the manual page.
        let room = unsafe { *length } as usize;
        // SAFETY: `value` is valid for that many bytes by the manual page.
        let request = unsafe { bytes(value, room) };
        let result = match client() {
            Ok(mut client) => Some(sockopt::get(&mut client, option, request)),
            Err(errno) => errno.map(Err),
        };
        match result {
            Some(Ok(got)) => {
                let count = got.bytes.len().min(room);
                // SAFETY: `value` is valid for `room` bytes, which `count` does not exceed, and was
                // made by the caller, not by us, so that nothing overlaps.
                unsafe { std::ptr::copy_nonoverlapping(got.bytes.as_ptr(), value.cast(), count) };
                if let Some(new) = got.length {
                    // SAFETY: not null, and valid by the manual page.
                    unsafe { *length = new as socklen_t };
                }
                return 0;
            }
            Some(Err(errno)) => return fail(errno) as c_int,
            None => {}
        }
    }
    // SAFETY: the caller's arguments.
    unsafe { next::getsockopt(fd, level, option, value, length) }
}

fn is_ipv4(fd: c_int) -> bool {
    if fd < 0 {
        return false;
    }
    // SAFETY: not -1; if it is not open the system call fails.
    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    rustix::net::sockopt::socket_domain(fd) == Ok(rustix::net::AddressFamily::INET)
}
