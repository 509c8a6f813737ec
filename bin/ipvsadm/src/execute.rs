//! Commands carried out: the request, the answer, and what an errno means to the user.

use std::io::{self, Write};

use rvs_core::types::{DestConfig, DestKey, ServiceKey};
use rvs_netlink::attr::Writer;
use rvs_netlink::errno::{
    EAFNOSUPPORT, EEXIST, EINVAL, ENODEV, ENOENT, ENOMEM, EOPNOTSUPP, EPERM, ERANGE, ESRCH,
};
use rvs_netlink::ipvs::{self, cmd_attr, command, daemon_attr};
use rvs_netlink::{Client, ClientError};

use crate::command::Command;
use crate::{Failure, help, listing, restore, save};

/// Carries a command out. `client` is connected when first needed and can be used again.
pub fn execute(
    command: &Command,
    out: &mut dyn Write,
    client: &mut Option<Client>,
) -> Result<(), Failure> {
    match command {
        Command::Help => return written(help::help(out)),
        Command::Version => return written(writeln!(out, "{}", help::VERSION)),
        Command::Restore => return restore::restore(restore::stdin()?, out, client),
        _ => {}
    }
    let client = connect(client)?;
    if let Some(change) = change(command) {
        let result = client.call(change.number, &change.attrs, |_, _| {});
        return result.map_err(|e| Failure::new(255, explain(&e, change.subject)));
    }
    match command {
        Command::List(key, format) => listing::list(client, out, key.as_ref(), *format),
        Command::ListConns(format) => listing::conns(client, out, *format),
        Command::ListTimeouts(format) => listing::timeouts(client, out, *format),
        Command::ListDaemons(format) => listing::daemons(client, out, *format),
        Command::Save(format) => save::save(client, out, *format),
        _ => Ok(()),
    }
}

/// The connection, made if there is none yet.
pub fn connect(client: &mut Option<Client>) -> Result<&mut Client, Failure> {
    match client {
        Some(client) => Ok(client),
        None => Ok(client.insert(Client::connect().map_err(|e| Failure::new(255, e.to_string()))?)),
    }
}

/// A failure to write the output. A reader that has seen enough is none to talk of.
pub fn written(result: io::Result<()>) -> Result<(), Failure> {
    result.map_err(|error| match error.kind() {
        // What a shell tells of a program that SIGPIPE ended.
        io::ErrorKind::BrokenPipe => Failure::new(141, ""),
        _ => Failure::new(1, format!("cannot write: {error}")),
    })
}

/// What a request is about: the same errno means different things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A service that is to be new.
    AddService,
    /// A service that is to exist.
    Service,
    /// A destination that is to be new.
    AddDest,
    /// A destination that is to exist.
    Dest,
    /// A sync daemon.
    Daemon,
    /// Anything else.
    Other,
}

/// A request that changes something and is answered by an errno only.
pub struct Change {
    /// Number of the command.
    pub number: u8,
    /// What it says.
    pub attrs: Writer,
    /// What it is about.
    pub subject: Subject,
}

/// The request that a command makes, if it makes just one that changes something.
pub fn change(command: &Command) -> Option<Change> {
    let (number, attrs, subject) = match command {
        Command::AddService(service) => {
            (command::NEW_SERVICE, full_service(service), Subject::AddService)
        }
        Command::EditService(service) => {
            (command::SET_SERVICE, full_service(service), Subject::Service)
        }
        Command::DelService(key) => (command::DEL_SERVICE, service_key(key), Subject::Service),
        Command::Flush => (command::FLUSH, Writer::new(), Subject::Other),
        Command::AddDest(key, dest) => (command::NEW_DEST, full_dest(key, dest), Subject::AddDest),
        Command::EditDest(key, dest) => (command::SET_DEST, full_dest(key, dest), Subject::Dest),
        Command::DelDest(key, dest) => (command::DEL_DEST, dest_key(key, dest), Subject::Dest),
        Command::Zero(key) => {
            let attrs = key.as_ref().map(service_key).unwrap_or_default();
            (command::ZERO, attrs, Subject::Service)
        }
        Command::SetTimeouts([tcp, fin, udp]) => {
            let mut attrs = Writer::new();
            attrs
                .u32(cmd_attr::TIMEOUT_TCP, *tcp)
                .u32(cmd_attr::TIMEOUT_TCP_FIN, *fin)
                .u32(cmd_attr::TIMEOUT_UDP, *udp);
            (command::SET_CONFIG, attrs, Subject::Other)
        }
        Command::StartDaemon(daemon) => {
            let attrs = nested(cmd_attr::DAEMON, |inner| ipvs::put_daemon(inner, daemon));
            (command::NEW_DAEMON, attrs, Subject::Daemon)
        }
        Command::StopDaemon(role) => {
            let attrs = nested(cmd_attr::DAEMON, |inner| {
                inner.u32(daemon_attr::STATE, *role as u32);
            });
            (command::DEL_DAEMON, attrs, Subject::Daemon)
        }
        _ => return None,
    };
    Some(Change { number, attrs, subject })
}

/// What went wrong: in the words of ipvsadm, then in the director's if they say more.
pub fn explain(error: &ClientError, subject: Subject) -> String {
    let Some(errno) = error.errno() else { return error.to_string() };
    let whole = match (subject, errno) {
        (Subject::AddService, EEXIST) => "Service already exists",
        (Subject::Service, ESRCH) => "No such service",
        (Subject::AddDest | Subject::Dest, ESRCH) => "Service not defined",
        (Subject::AddDest, EEXIST) => "Destination already exists",
        (Subject::Dest, ENOENT) => "No such destination",
        (Subject::Daemon, EEXIST) => "Daemon has already run",
        (Subject::Daemon, ESRCH) => "No daemon is running",
        (Subject::Daemon, ENODEV) => "No such device",
        (_, EPERM) => "Permission denied (you must be root)",
        _ => "",
    };
    if !whole.is_empty() {
        return whole.to_owned();
    }
    let begin = match (subject, errno) {
        (Subject::AddService | Subject::Service, ENOENT) => {
            "Scheduler or persistence engine not found"
        }
        (_, EINVAL) => "Invalid operation",
        (_, ENOMEM) => "Memory allocation problem",
        (_, ERANGE) => "Numerical result out of range",
        (_, EOPNOTSUPP) => "Operation not supported",
        (_, EAFNOSUPPORT) => "Operation not supported with specified address family",
        _ => "",
    };
    match error {
        ClientError::Explained { why, .. } if begin.is_empty() => why.clone(),
        ClientError::Explained { why, .. } => format!("{begin}: {why}"),
        _ if errno == EINVAL => {
            format!("{begin}.  Possibly wrong module version, address not unicast, ...")
        }
        _ if begin.is_empty() => error.to_string(),
        _ => begin.to_owned(),
    }
}

fn nested(kind: u16, put: impl FnOnce(&mut Writer)) -> Writer {
    let mut inner = Writer::new();
    put(&mut inner);
    let mut attrs = Writer::new();
    attrs.nest(kind, &inner);
    attrs
}

/// Attributes that name a service.
pub fn service_key(key: &ServiceKey) -> Writer {
    nested(cmd_attr::SERVICE, |inner| ipvs::put_service_key(inner, key))
}

fn full_service(service: &ipvs::Service) -> Writer {
    nested(cmd_attr::SERVICE, |inner| ipvs::put_service(inner, service))
}

fn dest_key(key: &ServiceKey, dest: &DestKey) -> Writer {
    let mut inner = Writer::new();
    ipvs::put_dest_key(&mut inner, dest);
    let mut attrs = service_key(key);
    attrs.nest(cmd_attr::DEST, &inner);
    attrs
}

fn full_dest(key: &ServiceKey, dest: &DestConfig) -> Writer {
    let mut inner = Writer::new();
    ipvs::put_dest(&mut inner, dest);
    let mut attrs = service_key(key);
    attrs.nest(cmd_attr::DEST, &inner);
    attrs
}
