//! The kernel's files below `/proc`, as rvsd shows them.

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, recvmsg, send};

use super::{Client, ClientError, outcome};
use crate::attr::Writer;
use crate::ipvs::command;
use crate::message::{F_ACK, Messages};

impl Client {
    /// The root of a file system with `net/ip_vs*` and `sys/net/ipv4/vs/*`, to be opened from there;
    /// none if rvsd could not make it.
    pub fn proc_folder(&mut self) -> Result<Option<OwnedFd>, ClientError> {
        let request = self.request(command::GET_PROC, F_ACK, &Writer::new());
        send(&self.socket, &request, SendFlags::NOSIGNAL).map_err(io::Error::from)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut data = [IoSliceMut::new(&mut self.buffer)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = recvmsg(&self.socket, &mut data, &mut control, flags);
        let len = received.map_err(io::Error::from)?.bytes;
        let fds = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        });
        let folder = fds.flatten().last();
        let answer = Messages(self.buffer.get(..len).unwrap_or_default()).next();
        outcome(&answer.ok_or(ClientError::Malformed)?)?;
        Ok(folder)
    }
}
