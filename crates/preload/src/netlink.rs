//! Generic netlink sockets: what a program sends is looked at message by message
//! ([`rvs_compat::socket`]), and answers of rvsd, which the socket sent to itself, are shown to come
//! from port 0, the kernel, when they are received.

use std::ffi::{c_int, c_uint, c_void};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use libc::{iovec, mmsghdr, msghdr, size_t, sockaddr, sockaddr_nl, socklen_t, ssize_t, timespec};
use rustix::net::SendFlags;
use rvs_compat::socket;

use crate::{bytes, fail, next};

/// Whether this process, or one that it was forked from, opened a generic netlink socket with this
/// library in place. Until then nothing is looked at.
static IN_USE: AtomicBool = AtomicBool::new(false);

/// `NETLINK_CAP_ACK` of `SOL_NETLINK`.
const NETLINK_CAP_ACK: c_int = 10;

/// The descriptor, if it is a generic netlink socket.
fn generic<'fd>(fd: c_int) -> Option<BorrowedFd<'fd>> {
    if fd < 0 || !IN_USE.load(Ordering::Relaxed) {
        return None;
    }
    // SAFETY: not -1; if it is not open, or closed by another thread meanwhile, the system calls made
    // with it fail as they would for the caller.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    socket::is_generic(fd).then_some(fd)
}

/// Whether the program wants acknowledgements without the requests.
fn cap_ack(fd: c_int) -> bool {
    let (mut value, mut length): (c_int, socklen_t) = (0, size_of::<c_int>() as socklen_t);
    let into = (&raw mut value).cast();
    // SAFETY: `value` and `length` are valid for writes, and `length` is the size of `value`.
    let result =
        unsafe { next::getsockopt(fd, libc::SOL_NETLINK, NETLINK_CAP_ACK, into, &mut length) };
    result == 0 && value != 0
}

/// Sends a datagram that has something for ip_vs in it; `None` if it has not, so that the kernel may
/// have it as it is.
fn send_datagram(number: c_int, datagram: &[u8], flags: c_int) -> Option<ssize_t> {
    let fd = generic(number)?;
    if !socket::concerns(datagram) {
        return None;
    }
    let flags = SendFlags::from_bits_retain(flags.cast_unsigned());
    let sent = socket::send(fd, datagram, flags, cap_ack(number), crate::rvsd());
    Some(match sent {
        Ok(()) => datagram.len() as ssize_t,
        Err(errno) => fail(errno.raw_os_error()),
    })
}

/// Whether a message to this address goes to the kernel: without an address, netlink's default.
///
/// # Safety
/// `addr` is null or valid for reads of `length` bytes.
unsafe fn is_to_kernel(addr: *const sockaddr, length: socklen_t) -> bool {
    // SAFETY: this function's contract.
    socket::is_kernel(unsafe { bytes(addr.cast(), length as usize) })
}

/// The bytes of a gathered message.
///
/// # Safety
/// `parts` is valid for reads of `count` elements, each of which is valid for reads.
unsafe fn gather(parts: *const iovec, count: usize) -> Vec<u8> {
    let mut all = Vec::new();
    for index in 0..count {
        // SAFETY: below `count`, for which `parts` is valid.
        let part = unsafe { parts.add(index) };
        // SAFETY: an initialised element of the array.
        let part = unsafe { *part };
        // SAFETY: an element names memory that is valid for reads.
        all.extend_from_slice(unsafe { bytes(part.iov_base, part.iov_len) });
    }
    all
}

/// What `sendmsg` does with a message for ip_vs.
///
/// # Safety
/// `message` is a valid message header.
unsafe fn send_message(fd: c_int, message: *const msghdr, flags: c_int) -> Option<ssize_t> {
    generic(fd)?;
    // SAFETY: this function's contract.
    let header = unsafe { message.as_ref() }?;
    // SAFETY: a valid header's address is null or as long as it says.
    if !unsafe { is_to_kernel(header.msg_name.cast(), header.msg_namelen) } {
        return None;
    }
    // SAFETY: a valid header's parts are as many as it says, and valid.
    let datagram = unsafe { gather(header.msg_iov, header.msg_iovlen) };
    send_datagram(fd, &datagram, flags)
}

/// Makes an answer of rvsd look like one of the kernel: the sender's port, and its credentials.
///
/// # Safety
/// `addr` is null or valid for reads and writes of `length` bytes; `control`, if given, is a header
/// that `recvmsg` filled in.
unsafe fn put_sender_right(
    fd: c_int,
    addr: *mut c_void,
    length: socklen_t,
    control: Option<&msghdr>,
) {
    if addr.is_null() || (length as usize) < size_of::<sockaddr_nl>() {
        return;
    }
    let Some(fd) = generic(fd) else { return };
    let addr: *mut sockaddr_nl = addr.cast();
    // SAFETY: long enough, and filled in by the kernel; its alignment is unknown.
    let mut sender = unsafe { addr.read_unaligned() };
    if sender.nl_pid == 0 || socket::own_port(fd) != Ok(sender.nl_pid) {
        return;
    }
    sender.nl_pid = 0;
    // SAFETY: the same place.
    unsafe { addr.write_unaligned(sender) };
    let Some(header) = control else { return };
    // SAFETY: the kernel filled the header in.
    let mut item = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !item.is_null() {
        // SAFETY: not null, hence within the control buffer.
        let known = unsafe { *item };
        let (level, kind) = (known.cmsg_level, known.cmsg_type);
        if (level, kind) == (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) {
            // SAFETY: an item of this type has a `struct ucred` as its data.
            let data = unsafe { libc::CMSG_DATA(item) };
            let kernel = libc::ucred { pid: 0, uid: 0, gid: 0 };
            // SAFETY: the same; its alignment is unknown.
            unsafe { data.cast::<libc::ucred>().write_unaligned(kernel) };
        }
        // SAFETY: `item` is one of the header's.
        item = unsafe { libc::CMSG_NXTHDR(header, item) };
    }
}

/// `socket(2)`
///
/// # Safety
/// None beyond libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    if (domain, protocol) == (libc::AF_NETLINK, libc::NETLINK_GENERIC) {
        IN_USE.store(true, Ordering::Relaxed);
    }
    // SAFETY: the caller's arguments.
    unsafe { next::socket(domain, kind, protocol) }
}

/// `connect(2)`. A netlink socket that is connected takes messages from its peer alone, so that one
/// which is connected to the kernel, where it sends to anyway, is left unconnected.
///
/// # Safety
/// As in its manual page.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn connect(fd: c_int, addr: *const sockaddr, length: socklen_t) -> c_int {
    // SAFETY: the caller's arguments.
    let result = unsafe { next::connect(fd, addr, length) };
    // SAFETY: the caller's arguments.
    if result == 0 && unsafe { is_to_kernel(addr, length) } && generic(fd).is_some() {
        let nobody = sockaddr { sa_family: libc::AF_UNSPEC as _, sa_data: [0; 14] };
        // SAFETY: a whole address of that size.
        return unsafe { next::connect(fd, &nobody, size_of::<sockaddr>() as socklen_t) };
    }
    result
}

/// `send(2)`
///
/// # Safety
/// As in its manual page.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn send(
    fd: c_int,
    data: *const c_void,
    length: size_t,
    flags: c_int,
) -> ssize_t {
    // SAFETY: `data` is valid for `length` bytes by the manual page.
    let sent = generic(fd).and_then(|_| send_datagram(fd, unsafe { bytes(data, length) }, flags));
    // SAFETY: the caller's arguments.
    sent.unwrap_or_else(|| unsafe { next::send(fd, data, length, flags) })
}

/// `sendto(2)`
///
/// # Safety
/// As in its manual page.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendto(
    fd: c_int,
    data: *const c_void,
    length: size_t,
    flags: c_int,
    addr: *const sockaddr,
    addr_length: socklen_t,
) -> ssize_t {
    if generic(fd).is_some()
        // SAFETY: `addr` is valid for `addr_length` bytes by the manual page.
        && unsafe { is_to_kernel(addr, addr_length) }
        // SAFETY: `data` is valid for `length` bytes by the manual page.
        && let Some(sent) = send_datagram(fd, unsafe { bytes(data, length) }, flags)
    {
        return sent;
    }
    // SAFETY: the caller's arguments.
    unsafe { next::sendto(fd, data, length, flags, addr, addr_length) }
}

/// `sendmsg(2)`
///
/// # Safety
/// As in its manual page.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    // SAFETY: the caller's arguments.
    let sent = unsafe { send_message(fd, message, flags) };
    // SAFETY: the caller's arguments.
    sent.unwrap_or_else(|| unsafe { next::sendmsg(fd, message, flags) })
}

/// `sendmmsg(2)`
///
/// # Safety
/// As in its manual page.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sendmmsg(
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
) -> c_int {
    if generic(fd).is_none() {
        // SAFETY: the caller's arguments.
        return unsafe { next::sendmmsg(fd, messages, count, flags) };
    }
    for index in 0..count as usize {
        // SAFETY: below `count`, for which `messages` is valid.
        let message = unsafe { messages.add(index) };
        // SAFETY: a valid element of the array.
        let sent = unsafe { sendmsg(fd, &raw const (*message).msg_hdr, flags) };
        if sent < 0 {
            return if index == 0 { -1 } else { index as c_int };
        }
        // SAFETY: a valid element of the array.
        unsafe { (*message).msg_len = sent as c_uint };
    }
    count as c_int
}

/// `write(2)`
///
/// # Safety
/// As in its manual page.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn write(fd: c_int, data: *const c_void, length: size_t) -> ssize_t {
    // SAFETY: `data` is valid for `length` bytes by the manual page.
    let sent = generic(fd).and_then(|_| send_datagram(fd, unsafe { bytes(data, length) }, 0));
    // SAFETY: the caller's arguments.
    sent.unwrap_or_else(|| unsafe { next::write(fd, data, length) })
}

/// `writev(2)`
///
/// # Safety
/// As in its manual page.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn writev(fd: c_int, parts: *const iovec, count: c_int) -> ssize_t {
    if generic(fd).is_some() {
        // SAFETY: `parts` has `count` valid elements by the manual page.
        let datagram = unsafe { gather(parts, usize::try_from(count).unwrap_or_default()) };
        if let Some(sent) = send_datagram(fd, &datagram, 0) {
            return sent;
        }
    }
    // SAFETY: the caller's arguments.
    unsafe { next::writev(fd, parts, count) }
}

/// `recvfrom(2)`
///
/// # Safety
/// As in its manual page.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn recvfrom(
    fd: c_int,
    data: *mut c_void,
    length: size_t,
    flags: c_int,
    addr: *mut sockaddr,
    addr_length: *mut socklen_t,
) -> ssize_t {
    // SAFETY: the caller's arguments.
    let received = unsafe { next::recvfrom(fd, data, length, flags, addr, addr_length) };
    // SAFETY: the caller's arguments.
    unsafe { received_from(fd, received, addr, addr_length) }
}

/// `recvfrom(2)` as fortified programs call it.
///
/// # Safety
/// As in the manual page of `recvfrom`; `room` is the size of the buffer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __recvfrom_chk(
    fd: c_int,
    data: *mut c_void,
    length: size_t,
    room: size_t,
    flags: c_int,
    addr: *mut sockaddr,
    addr_length: *mut socklen_t,
) -> ssize_t {
    // SAFETY: the caller's arguments.
    let received =
        unsafe { next::__recvfrom_chk(fd, data, length, room, flags, addr, addr_length) };
    // SAFETY: the caller's arguments.
    unsafe { received_from(fd, received, addr, addr_length) }
}

/// # Safety
/// `addr` and `addr_length` as `recvfrom` left them.
unsafe fn received_from(
    fd: c_int,
    received: ssize_t,
    addr: *mut sockaddr,
    addr_length: *mut socklen_t,
) -> ssize_t {
    if received >= 0 && !addr.is_null() && !addr_length.is_null() {
        // SAFETY: not null, and written by the kernel.
        let length = unsafe { *addr_length };
        // SAFETY: an address of netlink always fits the length that it is reported with, or is cut
        // to a shorter one, which is left alone.
        unsafe { put_sender_right(fd, addr.cast(), length, None) };
    }
    received
}

/// `recvmsg(2)`
///
/// # Safety
/// As in its manual page.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    // SAFETY: the caller's arguments.
    let received = unsafe { next::recvmsg(fd, message, flags) };
    if received >= 0 {
        // SAFETY: the kernel accepted it, so it is a valid header.
        unsafe { received_message(fd, message) };
    }
    received
}

/// # Safety
/// `message` is a header that the kernel filled in.
unsafe fn received_message(fd: c_int, message: *const msghdr) {
    // SAFETY: this function's contract.
    let header = unsafe { &*message };
    // SAFETY: the same.
    unsafe { put_sender_right(fd, header.msg_name, header.msg_namelen, Some(header)) };
}

/// `recvmmsg(2)`
///
/// # Safety
/// As in its manual page.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn recvmmsg(
    fd: c_int,
    messages: *mut mmsghdr,
    count: c_uint,
    flags: c_int,
    timeout: *mut timespec,
) -> c_int {
    // SAFETY: the caller's arguments.
    let received = unsafe { next::recvmmsg(fd, messages, count, flags, timeout) };
    for index in 0..usize::try_from(received).unwrap_or_default() {
        // SAFETY: that many elements were filled in.
        let message = unsafe { messages.add(index) };
        // SAFETY: a valid element of the array.
        unsafe { received_message(fd, &raw const (*message).msg_hdr) };
    }
    received
}
