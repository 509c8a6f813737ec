//! Asking rvsd, or a kernel that has ip_vs: one request at a time, the same messages to either.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv,
    send, socket_with,
};

use crate::attr::Writer;
use crate::ipvs::FAMILY;
use crate::message::{CTRL, DONE, ERROR, F_ACK, F_DUMP, F_REQUEST, Messages, generic};

/// Where rvsd listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/rvs/control.sock";

/// `CTRL_CMD_GETFAMILY`
pub const CTRL_GETFAMILY: u8 = 3;
/// `CTRL_CMD_NEWFAMILY`
pub const CTRL_NEWFAMILY: u8 = 1;
/// `CTRL_ATTR_FAMILY_ID`
pub const CTRL_FAMILY_ID: u16 = 1;
/// `CTRL_ATTR_FAMILY_NAME`
pub const CTRL_FAMILY_NAME: u16 = 2;

/// The largest datagram that either side sends.
pub const MAX_DATAGRAM: usize = 65_536;

/// Why a request was not answered as hoped.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody to ask.
    #[error(
        "no rvsd at {socket} ({reason}), and this kernel has no ip_vs; start rvsd or set RVS_SOCKET"
    )]
    Nobody {
        /// The socket that was tried.
        socket: PathBuf,
        /// What the kernel said.
        reason: io::Error,
    },
    /// The connection broke.
    #[error("lost the connection to the director: {0}")]
    Io(#[from] io::Error),
    /// The request was refused.
    #[error("{}", io::Error::from_raw_os_error(*.0))]
    Refused(i32),
    /// The answer makes no sense.
    #[error("the director's answer is not valid netlink")]
    Malformed,
}

/// A connection to whoever holds the IPVS tables.
pub struct Client {
    socket: OwnedFd,
    family: u16,
    sequence: u32,
    /// Whether it is a kernel's ip_vs.
    pub is_kernel: bool,
}

impl Client {
    /// Connects to rvsd at `$RVS_SOCKET` or the default place, else to the kernel.
    pub fn connect() -> Result<Self, ClientError> {
        let path = std::env::var_os("RVS_SOCKET").unwrap_or_else(|| DEFAULT_SOCKET.into());
        let path = PathBuf::from(path);
        match unix(&path) {
            Ok(socket) => Self::start(socket, false),
            Err(reason) => netlink()
                .map_err(ClientError::from)
                .and_then(|socket| Self::start(socket, true))
                .map_err(|_| ClientError::Nobody { socket: path, reason }),
        }
    }

    /// Connects to the rvsd that listens at `path`.
    pub fn connect_to(path: &Path) -> Result<Self, ClientError> {
        Self::start(unix(path)?, false)
    }

    fn start(socket: OwnedFd, is_kernel: bool) -> Result<Self, ClientError> {
        let mut client = Self { socket, family: CTRL, sequence: 0, is_kernel };
        let mut attrs = Writer::new();
        attrs.text(CTRL_FAMILY_NAME, FAMILY);
        let mut id = None;
        client.exchange(CTRL_GETFAMILY, F_ACK, &attrs, &mut |_, attrs| {
            id = attrs.u16(CTRL_FAMILY_ID).or(id);
        })?;
        client.family = id.ok_or(ClientError::Malformed)?;
        Ok(client)
    }

    /// Sends a command; its answers, if any, go to `answer` with their command.
    pub fn call(
        &mut self,
        command: u8,
        attrs: &Writer,
        mut answer: impl FnMut(u8, &crate::attr::Attrs<'_>),
    ) -> Result<(), ClientError> {
        self.exchange(command, F_ACK, attrs, &mut answer)
    }

    /// Asks for a dump; every entry goes to `answer`.
    pub fn dump(
        &mut self,
        command: u8,
        attrs: &Writer,
        mut answer: impl FnMut(u8, &crate::attr::Attrs<'_>),
    ) -> Result<(), ClientError> {
        self.exchange(command, F_DUMP, attrs, &mut answer)
    }

    fn exchange(
        &mut self,
        command: u8,
        flags: u16,
        attrs: &Writer,
        answer: &mut dyn FnMut(u8, &crate::attr::Attrs<'_>),
    ) -> Result<(), ClientError> {
        self.sequence += 1;
        let request = generic(self.family, F_REQUEST | flags, self.sequence, 0, command, attrs);
        send(&self.socket, &request, SendFlags::NOSIGNAL).map_err(io::Error::from)?;
        let mut buffer = vec![0; MAX_DATAGRAM];
        loop {
            let (len, _) =
                recv(&self.socket, &mut *buffer, RecvFlags::empty()).map_err(io::Error::from)?;
            if len == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            for message in Messages(buffer.get(..len).unwrap_or_default()) {
                if message.sequence != self.sequence {
                    continue;
                }
                match message.kind {
                    ERROR | DONE => {
                        return match message.errno() {
                            Some(0) => Ok(()),
                            Some(errno) => Err(ClientError::Refused(errno)),
                            None => Err(ClientError::Malformed),
                        };
                    }
                    _ => {
                        let command = message.command().ok_or(ClientError::Malformed)?;
                        answer(command, &message.attrs());
                    }
                }
            }
        }
    }
}

fn unix(path: &Path) -> io::Result<OwnedFd> {
    let socket =
        socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

fn netlink() -> io::Result<OwnedFd> {
    let protocol = rustix::net::netlink::GENERIC;
    let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, Some(protocol))?;
    connect(&socket, &SocketAddrNetlink::new(0, 0))?;
    Ok(socket)
}
