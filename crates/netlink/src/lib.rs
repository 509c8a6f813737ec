//! IPVS's own control protocol: generic netlink, family "IPVS" version 1
//! (`include/uapi/linux/ip_vs.h`), over a Unix `SOCK_SEQPACKET` socket to rvsd or over
//! `AF_NETLINK` to a kernel that has ip_vs.
//!
//! The codec is our own: the netlink-packet crates model their messages from the asking side and
//! know no family "IPVS", and a server must answer what the kernel answers, errno by errno.
#![forbid(unsafe_code)]

pub mod attr;
pub mod client;
pub mod errno;
pub mod ipvs;
pub mod message;
mod proc;

pub use client::{Client, ClientError};
