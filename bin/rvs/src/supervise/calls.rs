//! What each system call is answered with. A failure is the call's own; what is not for rvsd the
//! kernel does.

use std::ffi::OsStr;
use std::io::{self, IoSliceMut};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, fcntl_getfl, open};
use rustix::io::Errno;
use rustix::net::netlink::{GENERIC, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, socket_domain, socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, SendFlags, SocketFlags, SocketType, recvmsg,
    socket_with,
};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use rvs_compat::file::{Place, open_node};
use rvs_compat::path::Node;
use rvs_compat::{socket, sockopt};
use rvs_netlink::Client;
use rvs_seccomp::{Call, Listener, Reply};

use super::SLOTS;
use super::memory::{MOST, Memory, Parts};

/// Answers the calls of a program.
pub struct Supervisor {
    /// Where they come from.
    pub listener: Listener,
    /// Calls that wait for a datagram.
    pub waiting: Vec<Waiting>,
    rvsd: PathBuf,
}

/// A call that waits for a datagram.
pub struct Waiting {
    call: Call,
    wanted: Wanted,
    /// The program's socket.
    pub socket: OwnedFd,
    deadline: Option<Instant>,
}

/// Where a received datagram goes.
#[derive(Clone, Default)]
struct Wanted {
    parts: Parts,
    flags: u32,
    /// The sender's address: where, how much room there is, and where its length goes.
    sender: Option<(u64, u32, u64)>,
    /// A `struct msghdr`.
    header: Option<u64>,
}

/// Offsets in `struct msghdr` of 64-bit machines.
const NAMELEN: u64 = 8;
const CONTROLLEN: u64 = 40;
const FLAGS: u64 = 48;

/// What becomes of a call.
enum Outcome {
    Reply(Reply),
    /// It has its answer, or waits.
    Nothing,
}

impl From<Reply> for Outcome {
    fn from(reply: Reply) -> Self {
        Self::Reply(reply)
    }
}

const KERNEL: Outcome = Outcome::Reply(Reply::Continue);

impl Supervisor {
    /// Nothing waits yet.
    pub fn new(listener: Listener, rvsd: &Path) -> Self {
        Self { listener, waiting: Vec::new(), rvsd: rvsd.to_owned() }
    }

    /// When the first call that waits gives up.
    pub fn deadline(&self) -> Option<Instant> {
        self.waiting.iter().filter_map(|waiting| waiting.deadline).min()
    }

    /// Answers a call, now or later.
    pub fn answer(&mut self, call: Call) -> io::Result<()> {
        let reply = match self.outcome(&call) {
            Ok(Outcome::Reply(reply)) => reply,
            Ok(Outcome::Nothing) => return Ok(()),
            Err(errno) => Reply::Error(errno.raw_os_error()),
        };
        self.listener.reply(call.id, reply)
    }

    /// Looks after the calls that wait.
    pub fn resume(&mut self) {
        let listener = &self.listener;
        self.waiting.retain(|Waiting { call, wanted, socket, deadline }| {
            if !listener.is_waiting(call.id) {
                return false;
            }
            let result = Memory::of(call.thread).and_then(|m| receive(&m, wanted, socket));
            let reply = match result {
                Ok(length) => Reply::Value(length),
                Err(Errno::AGAIN) if deadline.is_none_or(|at| at > Instant::now()) => return true,
                Err(errno) => Reply::Error(errno.raw_os_error()),
            };
            // It fails only for a call that is not there any more.
            let _ = listener.reply(call.id, reply);
            false
        });
    }

    fn outcome(&mut self, call: &Call) -> Result<Outcome, Errno> {
        match call.number {
            libc::SYS_socket => self.socket(call),
            libc::SYS_connect => self.connect(call),
            libc::SYS_sendto | libc::SYS_sendmsg | libc::SYS_write => self.send(call),
            libc::SYS_recvfrom | libc::SYS_recvmsg | libc::SYS_read => self.recv(call),
            libc::SYS_setsockopt => self.setsockopt(call),
            libc::SYS_getsockopt => self.getsockopt(call),
            libc::SYS_openat => self.open(call, Some(call.args[0]), call.args[1], call.args[2]),
            // No file of ours has any, as none of the kernel's below /proc/sys.
            libc::SYS_getxattr | libc::SYS_lgetxattr => match self.node(call, None, call.args[0]) {
                Some(_) => Err(Errno::OPNOTSUPP),
                None => Ok(KERNEL),
            },
            _ if call.asks_about().is_some() => self.ask(call),
            _ => self.open(call, None, call.args[0], call.args[1]),
        }
    }

    /// The caller's memory. It is indeed the caller's if the call still waits.
    fn memory(&self, call: &Call) -> Result<Memory, Errno> {
        let memory = Memory::of(call.thread)?;
        if self.listener.is_waiting(call.id) { Ok(memory) } else { Err(Errno::INTR) }
    }

    /// A duplicate of the descriptor that is the call's first argument.
    fn descriptor(&self, call: &Call) -> Result<OwnedFd, Errno> {
        let pid = Pid::from_raw(process(call.thread)?.cast_signed()).ok_or(Errno::SRCH)?;
        let process = pidfd_open(pid, PidfdFlags::empty())?;
        pidfd_getfd(process, call.args[0] as i32, PidfdGetfdFlags::empty())
    }

    /// The caller's generic netlink socket, if that is what the first argument is.
    fn generic(&self, call: &Call) -> Result<Option<OwnedFd>, Errno> {
        let fd = self.descriptor(call)?;
        Ok(socket::is_generic(std::os::fd::AsFd::as_fd(&fd)).then_some(fd))
    }

    /// A generic netlink socket is made here and given to the program under one of the numbers that
    /// the filter looks at.
    fn socket(&self, call: &Call) -> Result<Outcome, Errno> {
        let process = process(call.thread)?;
        let is_free = |slot: &u32| !Path::new(&format!("/proc/{process}/fd/{slot}")).exists();
        let Some(slot) = SLOTS.rev().find(is_free) else { return Err(Errno::MFILE) };
        let kind = call.args[1] as u32;
        let flags = SocketFlags::from_bits_retain(kind & !0xf) | SocketFlags::CLOEXEC;
        let raw = SocketType::from_raw(kind & 0xf);
        let made = socket_with(AddressFamily::NETLINK, raw, flags, Some(GENERIC))?;
        let close_on_exec = kind & libc::SOCK_CLOEXEC as u32 != 0;
        let made = std::os::fd::AsFd::as_fd(&made);
        self.listener.give(call.id, made, Some(slot), close_on_exec).map_err(errno)?;
        Ok(Outcome::Nothing)
    }

    /// A netlink socket that is connected takes messages from its peer alone. One that is connected
    /// to the kernel, where it sends to anyway, is left unconnected.
    fn connect(&self, call: &Call) -> Result<Outcome, Errno> {
        let Some(fd) = self.generic(call)? else { return Ok(KERNEL) };
        let addr = self.memory(call)?.read(call.args[1], call.args[2] as usize)?;
        if addr.is_empty() || !socket::is_kernel(&addr) {
            return Ok(KERNEL);
        }
        socket::port(std::os::fd::AsFd::as_fd(&fd))?;
        Ok(Reply::Value(0).into())
    }

    fn send(&self, call: &Call) -> Result<Outcome, Errno> {
        let Some(fd) = self.generic(call)? else { return Ok(KERNEL) };
        let memory = self.memory(call)?;
        let [_, at, length, flags, addr, addr_length] = call.args;
        let (parts, flags, addr) = match call.number {
            libc::SYS_write => (vec![(at, length as usize)], 0, Vec::new()),
            libc::SYS_sendto if addr == 0 => (vec![(at, length as usize)], flags, Vec::new()),
            libc::SYS_sendto => {
                let addr = memory.read(addr, addr_length as usize)?;
                (vec![(at, length as usize)], flags, addr)
            }
            _ => {
                let header = Header::read(&memory, at)?;
                let addr = match header.name {
                    0 => Vec::new(),
                    name => memory.read(name, header.name_length as usize)?,
                };
                (header.parts, length, addr)
            }
        };
        let datagram = memory.gather(&parts)?;
        if !socket::is_kernel(&addr) || !socket::concerns(&datagram) {
            return Ok(KERNEL);
        }
        let (fd, flags) =
            (std::os::fd::AsFd::as_fd(&fd), SendFlags::from_bits_retain(flags as u32));
        socket::send(fd, &datagram, flags, rvs_seccomp::cap_ack(fd), &self.rvsd)?;
        Ok(Reply::Value(datagram.len() as i64).into())
    }

    fn recv(&mut self, call: &Call) -> Result<Outcome, Errno> {
        let Some(socket) = self.generic(call)? else { return Ok(KERNEL) };
        let memory = self.memory(call)?;
        let [_, at, length, flags, addr, addr_length] = call.args;
        let whole = vec![(at, length as usize)];
        let wanted = match call.number {
            libc::SYS_read => Wanted { parts: whole, ..Wanted::default() },
            libc::SYS_recvfrom => {
                let sender = match addr {
                    0 => None,
                    addr => Some((addr, memory.word(addr_length)?, addr_length)),
                };
                Wanted { parts: whole, flags: flags as u32, sender, header: None }
            }
            _ => {
                let Header { name, name_length, parts } = Header::read(&memory, at)?;
                let sender = (name != 0).then_some((name, name_length, at + NAMELEN));
                Wanted { parts, flags: length as u32, sender, header: Some(at) }
            }
        };
        match receive(&memory, &wanted, &socket) {
            Err(Errno::AGAIN) if blocks(&socket, wanted.flags)? => {
                let timeout = socket_timeout(&socket, Timeout::Recv)?;
                let deadline = timeout.map(|timeout: Duration| Instant::now() + timeout);
                self.waiting.push(Waiting { call: *call, wanted, socket, deadline });
                Ok(Outcome::Nothing)
            }
            result => Ok(Reply::Value(result?).into()),
        }
    }

    /// A connection to rvsd for a socket option of ip_vs, if the socket can have one.
    fn option_client(&self, call: &Call) -> Option<Client> {
        let fd = self.descriptor(call).ok()?;
        let is_ipv4 = socket_domain(&fd) == Ok(AddressFamily::INET);
        if is_ipv4 { Client::connect_to(&self.rvsd).ok() } else { None }
    }

    fn setsockopt(&self, call: &Call) -> Result<Outcome, Errno> {
        let [_, _, option, value, length, _] = call.args;
        let option = option as i32;
        let Some(mut client) = self.option_client(call).filter(|_| sockopt::is_set(option)) else {
            return Ok(KERNEL);
        };
        let value = self.memory(call)?.read(value, length as u32 as usize)?;
        sockopt::set(&mut client, option, &value).map_err(Errno::from_raw_os_error)?;
        Ok(Reply::Value(0).into())
    }

    fn getsockopt(&self, call: &Call) -> Result<Outcome, Errno> {
        let [_, _, option, value, length_at, _] = call.args;
        let option = option as i32;
        let Some(mut client) = self.option_client(call).filter(|_| sockopt::is_get(option)) else {
            return Ok(KERNEL);
        };
        let memory = self.memory(call)?;
        let request = memory.read(value, memory.word(length_at)? as usize)?;
        let got = sockopt::get(&mut client, option, &request).map_err(Errno::from_raw_os_error)?;
        memory.write(value, got.bytes.get(..request.len()).unwrap_or(&got.bytes))?;
        if let Some(length) = got.length {
            memory.write(length_at, &(length as u32).to_ne_bytes())?;
        }
        Ok(Reply::Value(0).into())
    }

    /// What a path of the caller names, if it is ours and rvsd serves.
    fn node(&self, call: &Call, folder: Option<u64>, path: u64) -> Option<(Node, Client)> {
        // What cannot be read here the kernel refuses.
        let path = self.memory(call).and_then(|memory| memory.string(path)).ok()?;
        let thread = call.thread;
        let link = match folder.map(|folder| folder as i32).filter(|fd| *fd != libc::AT_FDCWD) {
            Some(folder) => format!("/proc/{thread}/fd/{folder}"),
            None => format!("/proc/{thread}/cwd"),
        };
        let node = Node::below(Path::new(&link), Path::new(OsStr::from_bytes(&path)))?;
        Some((node, Client::connect_to(&self.rvsd).ok()?))
    }

    /// `stat` and its like, about the file in the place of ours.
    fn ask(&self, call: &Call) -> Result<Outcome, Errno> {
        let found = call.asks_about().and_then(|(folder, path)| self.node(call, folder, path));
        let Some((node, mut client)) = found else { return Ok(KERNEL) };
        let place = Place::of(node, &mut client);
        let path = place.as_ref().map_or(node.stand_in(), |place| place.path());
        if let Some((at, bytes)) = call.about(path).map_err(errno)? {
            self.memory(call)?.write(at, &bytes)?;
        }
        Ok(Reply::Value(0).into())
    }

    fn open(
        &self,
        call: &Call,
        folder: Option<u64>,
        path: u64,
        flags: u64,
    ) -> Result<Outcome, Errno> {
        let Some((node, mut client)) = self.node(call, folder, path) else { return Ok(KERNEL) };
        let flags = OFlags::from_bits_retain(flags as u32);
        let file = match Place::of(node, &mut client) {
            Some(place) => open(place.path(), flags | OFlags::CLOEXEC, Mode::empty())?,
            None => open_node(node, &mut client, flags).map_err(Errno::from_raw_os_error)?,
        };
        let close_on_exec = flags.contains(OFlags::CLOEXEC);
        let file = std::os::fd::AsFd::as_fd(&file);
        self.listener.give(call.id, file, None, close_on_exec).map_err(errno)?;
        Ok(Outcome::Nothing)
    }
}

fn errno(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

/// The process that has a thread.
fn process(thread: u32) -> Result<u32, Errno> {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status"));
    let status = status.map_err(|_| Errno::SRCH)?;
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    line.and_then(|number| number.trim().parse().ok()).ok_or(Errno::SRCH)
}

/// Whether a socket waits for datagrams.
fn blocks(socket: &OwnedFd, flags: u32) -> Result<bool, Errno> {
    let asked = RecvFlags::from_bits_retain(flags).contains(RecvFlags::DONTWAIT);
    Ok(!asked && !fcntl_getfl(socket)?.contains(OFlags::NONBLOCK))
}

/// A `struct msghdr`, as far as it is of use here.
struct Header {
    name: u64,
    name_length: u32,
    parts: Parts,
}

impl Header {
    fn read(memory: &Memory, at: u64) -> Result<Self, Errno> {
        let bytes = memory.read(at, 56)?;
        let long = |at: usize| {
            let bytes = bytes.get(at..).and_then(|rest| rest.first_chunk());
            bytes.map_or(0, |bytes| u64::from_ne_bytes(*bytes))
        };
        let count = usize::try_from(long(24)).ok().filter(|count| *count <= 1024);
        let array = memory.read(long(16), count.ok_or(Errno::MSGSIZE)? * 16)?;
        let part = |part: &[u8]| {
            let (at, length) = (part.first_chunk()?, part.last_chunk()?);
            Some((u64::from_ne_bytes(*at), u64::from_ne_bytes(*length) as usize))
        };
        let parts = array.chunks_exact(16).filter_map(part).collect();
        Ok(Self { name: long(0), name_length: long(8) as u32, parts })
    }
}

/// Receives a datagram, if there is one, into the program's memory; what the call returns. Control
/// data is not passed on.
fn receive(memory: &Memory, wanted: &Wanted, socket: &OwnedFd) -> Result<i64, Errno> {
    let room = wanted.parts.iter().fold(0usize, |sum, (_, length)| sum.saturating_add(*length));
    let mut buffer = vec![0; room.min(MOST)];
    let flags = RecvFlags::from_bits_retain(wanted.flags) | RecvFlags::DONTWAIT;
    let mut control = RecvAncillaryBuffer::default();
    let received = recvmsg(socket, &mut [IoSliceMut::new(&mut buffer)], &mut control, flags)?;
    let stored = buffer.get(..received.bytes).unwrap_or(&buffer);
    memory.scatter(&wanted.parts, stored)?;
    let sender = received.address.and_then(|addr| SocketAddrNetlink::try_from(addr).ok());
    if let (Some((at, room, length_at)), Some(sender)) = (wanted.sender, sender) {
        let own = socket::own_port(std::os::fd::AsFd::as_fd(socket))?;
        // What the socket sent to itself are answers of rvsd.
        let pid = if sender.pid() == own { 0 } else { sender.pid() };
        let mut addr = (libc::AF_NETLINK as u16).to_ne_bytes().to_vec();
        addr.extend_from_slice(&[0; 2]);
        addr.extend_from_slice(&pid.to_ne_bytes());
        addr.extend_from_slice(&sender.groups().to_ne_bytes());
        memory.write(length_at, &(addr.len() as u32).to_ne_bytes())?;
        memory.write(at, addr.get(..room as usize).unwrap_or(&addr))?;
    }
    if let Some(at) = wanted.header {
        memory.write(at + CONTROLLEN, &0u64.to_ne_bytes())?;
        memory.write(at + FLAGS, &received.flags.bits().to_ne_bytes())?;
    }
    Ok(received.bytes as i64)
}
