//! The control socket: Unix `SOCK_SEQPACKET`, mode 0600, one netlink datagram a packet.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::Mode;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, accept_with, bind, connect, listen, recv, send, sendmsg, socket_with,
};
use rvs_netlink::client::MAX_DATAGRAM;

/// The listening socket; its file goes with it.
pub struct Listener {
    /// The socket.
    pub socket: OwnedFd,
    path: PathBuf,
}

impl Listener {
    /// Listens at `path`. A socket file that nobody listens at any more is replaced.
    pub fn bind(path: &Path) -> Result<Self> {
        if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let addr = SocketAddrUnix::new(path)
            .with_context(|| format!("{} is no name for a socket", path.display()))?;
        let new = |flags| socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
        if connect(new(SocketFlags::CLOEXEC)?, &addr).is_ok() {
            bail!("another rvsd listens at {}", path.display());
        }
        match std::fs::symlink_metadata(path) {
            Ok(meta) if !std::os::unix::fs::FileTypeExt::is_socket(&meta.file_type()) => {
                bail!("{} is there and is not a socket", path.display());
            }
            Ok(_) => std::fs::remove_file(path)
                .with_context(|| format!("cannot replace {}", path.display()))?,
            Err(_) => {}
        }
        let socket = new(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        let mask = rustix::process::umask(Mode::from_raw_mode(0o177));
        let bound = bind(&socket, &addr);
        rustix::process::umask(mask);
        bound.with_context(|| format!("cannot listen at {}", path.display()))?;
        listen(&socket, 64)?;
        Ok(Self { socket, path: path.to_owned() })
    }

    /// The next client that waits, if any.
    pub fn accept(&self) -> Option<Connection> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = accept_with(&self.socket, flags).ok()?;
        Some(Connection { socket, outgoing: VecDeque::new() })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A client.
pub struct Connection {
    /// Its socket.
    pub socket: OwnedFd,
    outgoing: VecDeque<Vec<u8>>,
}

impl Connection {
    /// The next request; `Ok(None)` if there is none yet, an error once the client is gone.
    pub fn receive(&self, buffer: &mut Vec<u8>) -> io::Result<Option<usize>> {
        buffer.resize(MAX_DATAGRAM, 0);
        match recv(&self.socket, buffer.as_mut_slice(), RecvFlags::TRUNC) {
            Ok((_, 0)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((_, len)) if len > MAX_DATAGRAM => {
                Err(io::Error::other(format!("a request of {len} bytes is too long")))
            }
            Ok((len, _)) => Ok(Some(len)),
            Err(rustix::io::Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Queues answers and sends what the socket takes.
    pub fn answer(&mut self, datagrams: Vec<Vec<u8>>) -> io::Result<()> {
        self.outgoing.extend(datagrams);
        self.flush()
    }

    /// Sends answers, the first of them with a descriptor. Nothing waits if the socket takes nothing.
    pub fn answer_with(&mut self, datagrams: Vec<Vec<u8>>, fd: BorrowedFd<'_>) -> io::Result<()> {
        let mut datagrams = VecDeque::from(datagrams);
        if let Some(first) = datagrams.pop_front().filter(|_| !self.is_blocked()) {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let (mut control, fds) = (SendAncillaryBuffer::new(&mut space), [fd]);
            control.push(SendAncillaryMessage::ScmRights(&fds));
            let data = [IoSlice::new(&first)];
            sendmsg(&self.socket, &data, &mut control, SendFlags::NOSIGNAL)?;
        }
        self.answer(datagrams.into())
    }

    /// Sends what the socket takes now.
    pub fn flush(&mut self) -> io::Result<()> {
        while let Some(datagram) = self.outgoing.front() {
            match send(&self.socket, datagram, SendFlags::NOSIGNAL) {
                Ok(_) => drop(self.outgoing.pop_front()),
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Whether answers wait for the socket.
    pub fn is_blocked(&self) -> bool {
        !self.outgoing.is_empty()
    }
}
