//! Asking rvsd, or a kernel that has ip_vs: the same messages to either.

mod batch;
mod conns;
mod dumps;
mod folder;
mod socket;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::attr::{Attrs, Writer};
use crate::ipvs::{FAMILY, cmd_attr};
use crate::message::{CTRL, DONE, ERROR, F_ACK, F_DUMP, F_REQUEST, Message, Messages, generic};

pub use batch::Batch;

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
    /// The kernel's connection table cannot be read.
    #[error("cannot read {path}: {reason}", path = crate::proc::CONNS)]
    Proc {
        /// What the kernel said.
        reason: io::Error,
    },
    /// The request was refused.
    #[error("{}", io::Error::from_raw_os_error(*.0))]
    Refused(i32),
    /// The request was refused, and the director says why.
    #[error("{why}")]
    Explained {
        /// What the kernel would answer.
        errno: i32,
        /// The director's words.
        why: String,
    },
    /// The answer makes no sense.
    #[error("the director's answer is not valid netlink")]
    Malformed,
}

impl ClientError {
    /// The errno of a refusal.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused(errno) | Self::Explained { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}

/// A connection to whoever holds the IPVS tables.
pub struct Client {
    socket: OwnedFd,
    family: u16,
    sequence: u32,
    buffer: Vec<u8>,
    /// Whether it is a kernel's ip_vs.
    pub is_kernel: bool,
}

impl Client {
    /// Connects to rvsd at `$RVS_SOCKET` or the default place, else to the kernel.
    pub fn connect() -> Result<Self, ClientError> {
        let path = std::env::var_os("RVS_SOCKET").unwrap_or_else(|| DEFAULT_SOCKET.into());
        let path = PathBuf::from(path);
        match socket::unix(&path) {
            Ok(socket) => Self::start(socket, false),
            Err(reason) => socket::netlink()
                .map_err(ClientError::from)
                .and_then(|socket| Self::start(socket, true))
                .map_err(|_| ClientError::Nobody { socket: path, reason }),
        }
    }

    /// Connects to the rvsd that listens at `path`.
    pub fn connect_to(path: &Path) -> Result<Self, ClientError> {
        Self::start(socket::unix(path)?, false)
    }

    fn start(socket: OwnedFd, is_kernel: bool) -> Result<Self, ClientError> {
        let buffer = vec![0; MAX_DATAGRAM];
        let mut client = Self { socket, family: CTRL, sequence: 0, buffer, is_kernel };
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
        mut answer: impl FnMut(u8, &Attrs<'_>),
    ) -> Result<(), ClientError> {
        self.exchange(command, F_ACK, attrs, &mut answer)
    }

    /// Asks for a dump; every entry goes to `answer`.
    pub fn dump(
        &mut self,
        command: u8,
        attrs: &Writer,
        mut answer: impl FnMut(u8, &Attrs<'_>),
    ) -> Result<(), ClientError> {
        self.exchange(command, F_DUMP, attrs, &mut answer)
    }

    fn exchange(
        &mut self,
        command: u8,
        flags: u16,
        attrs: &Writer,
        answer: &mut dyn FnMut(u8, &Attrs<'_>),
    ) -> Result<(), ClientError> {
        let request = self.request(command, flags, attrs);
        send(&self.socket, &request, SendFlags::NOSIGNAL).map_err(io::Error::from)?;
        loop {
            let len = self.receive()?;
            for message in Messages(self.buffer.get(..len).unwrap_or_default()) {
                if message.sequence != self.sequence {
                    continue;
                }
                match message.kind {
                    ERROR | DONE => return outcome(&message),
                    _ => {
                        let command = message.command().ok_or(ClientError::Malformed)?;
                        answer(command, &message.attrs());
                    }
                }
            }
        }
    }

    /// The next request as bytes.
    fn request(&mut self, command: u8, flags: u16, attrs: &Writer) -> Vec<u8> {
        self.sequence = self.sequence.wrapping_add(1);
        let explain;
        let attrs = if self.is_kernel {
            attrs
        } else {
            let mut more = attrs.clone();
            more.put(cmd_attr::EXT_ACK, &[]);
            explain = more;
            &explain
        };
        generic(self.family, F_REQUEST | flags, self.sequence, 0, command, attrs)
    }

    /// Receives a datagram into the buffer; its length.
    fn receive(&mut self) -> Result<usize, ClientError> {
        loop {
            let received = recv(&self.socket, self.buffer.as_mut_slice(), RecvFlags::TRUNC);
            match received {
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(io::Error::from(error).into()),
                Ok((_, 0)) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                Ok((_, len)) if len > MAX_DATAGRAM => return Err(ClientError::Malformed),
                Ok((len, _)) => return Ok(len),
            }
        }
    }
}

/// What an acknowledgement or the end of a dump says.
fn outcome(message: &Message<'_>) -> Result<(), ClientError> {
    match (message.errno(), message.explanation()) {
        (Some(0), _) => Ok(()),
        (Some(errno), Some(why)) => Err(ClientError::Explained { errno, why: why.to_owned() }),
        (Some(errno), None) => Err(ClientError::Refused(errno)),
        (None, _) => Err(ClientError::Malformed),
    }
}
