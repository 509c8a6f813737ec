//! A client of ip_vs, to be linked statically: it uses all three ways to the kernel's ip_vs from two
//! threads, and prints what it learns. It has nothing but the standard library.

use std::ffi::{c_int, c_void};

unsafe extern "C" {
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn sendto(
        fd: c_int,
        data: *const c_void,
        length: usize,
        flags: c_int,
        addr: *const c_void,
        addr_length: u32,
    ) -> isize;
    fn recvfrom(
        fd: c_int,
        data: *mut c_void,
        length: usize,
        flags: c_int,
        addr: *mut c_void,
        addr_length: *mut u32,
    ) -> isize;
    fn setsockopt(
        fd: c_int,
        level: c_int,
        option: c_int,
        value: *const c_void,
        length: u32,
    ) -> c_int;
    fn getsockopt(
        fd: c_int,
        level: c_int,
        option: c_int,
        value: *mut c_void,
        length: *mut u32,
    ) -> c_int;
}

const KERNEL: [u8; 12] = [16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn attr(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = (value.len() as u16 + 4).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Asks the kernel; the first datagram of the answer.
fn ask(fd: c_int, kind: u16, flags: u16, command: u8, attrs: &[u8]) -> Vec<u8> {
    let mut request = (20 + attrs.len() as u32).to_ne_bytes().to_vec();
    request.extend(kind.to_ne_bytes());
    request.extend(flags.to_ne_bytes());
    request.extend([7, 0, 0, 0, 0, 0, 0, 0, command, 1, 0, 0]);
    request.extend(attrs);
    let (data, to) = (request.as_ptr().cast(), KERNEL.as_ptr().cast());
    // SAFETY: both pointers are valid for reads of their lengths.
    let sent = unsafe { sendto(fd, data, request.len(), 0, to, 12) };
    assert_eq!(sent, request.len() as isize, "{}", std::io::Error::last_os_error());
    let (mut answer, mut from, mut length) = (vec![0u8; 8192], [0xffu8; 12], 12u32);
    let (data, addr) = (answer.as_mut_ptr().cast(), from.as_mut_ptr().cast());
    // SAFETY: all pointers are valid for writes of their lengths.
    let received = unsafe { recvfrom(fd, data, 8192, 0, addr, &mut length) };
    assert!(received > 0, "{}", std::io::Error::last_os_error());
    assert_eq!((from, length), (KERNEL, 12), "not from the kernel");
    answer.truncate(received as usize);
    answer
}

fn open_netlink() -> (c_int, u16) {
    // SAFETY: plain numbers.
    let fd = unsafe { socket(16, 3 | 0o2000000, 16) };
    assert!(fd >= 0);
    let family = ask(fd, 16, 1, 3, &attr(2, b"IPVS\0"));
    let kind = u16::from_ne_bytes([family[4], family[5]]);
    assert_eq!(kind, 16, "no family IPVS");
    let mut rest = &family[20..];
    while rest.len() >= 4 {
        let length = usize::from(u16::from_ne_bytes([rest[0], rest[1]]));
        if u16::from_ne_bytes([rest[2], rest[3]]) == 1 {
            return (fd, u16::from_ne_bytes([rest[4], rest[5]]));
        }
        rest = &rest[length.next_multiple_of(4)..];
    }
    panic!("a family without a number");
}

fn errno(answer: &[u8]) -> i32 {
    assert_eq!(answer[4..6], [2, 0], "not an acknowledgement");
    -i32::from_ne_bytes(answer[16..20].try_into().unwrap())
}

fn add_service(port: u16) -> i32 {
    let (fd, family) = open_netlink();
    let mut addr = [0; 16];
    addr[..4].copy_from_slice(&[10, 9, 9, 1]);
    let service = [
        attr(1, &2u16.to_ne_bytes()),
        attr(2, &6u16.to_ne_bytes()),
        attr(3, &addr),
        attr(4, &port.to_be_bytes()),
        attr(6, b"rr\0"),
        attr(7, &[0, 0, 0, 0, 255, 255, 255, 255]),
        attr(8, &[0; 4]),
        attr(9, &[255; 4]),
    ]
    .concat();
    errno(&ask(fd, family, 5, 1, &attr(1, &service)))
}

fn main() {
    println!("add: {}", add_service(80));
    println!("again: {}", add_service(80));
    // Of two threads, each with a socket of its own.
    let threads: Vec<_> =
        (81..83).map(|port| std::thread::spawn(move || add_service(port))).collect();
    let results: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    println!("threads: {results:?}");

    // SAFETY: plain numbers.
    let raw = unsafe { socket(2, 3, 255) };
    let (mut info, mut length) = ([0u32; 3], 12u32);
    // SAFETY: both pointers are valid for writes of their lengths.
    let got = unsafe { getsockopt(raw, 0, 1153, info.as_mut_ptr().cast(), &mut length) };
    println!("info: {got} {:#x} {}", info[0], info[2]);

    let table = std::fs::read_to_string("/proc/net/ip_vs").unwrap();
    print!("{}", table.split_once('\n').unwrap().1);
    println!("conntrack: {:?}", std::fs::read_to_string("/proc/sys/net/ipv4/vs/conntrack"));
    let written = std::fs::write("/proc/sys/net/ipv4/vs/conntrack", "1\n");
    println!("written: {:?}", written.unwrap_err().kind());
    println!("other files: {}", std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").is_ok());

    // SAFETY: an empty value.
    let flushed = unsafe { setsockopt(raw, 0, 1157, std::ptr::null(), 0) };
    println!("flush: {flushed}");
    println!("services: {}", std::fs::read_to_string("/proc/net/ip_vs").unwrap().lines().count() - 3);
}
