//! Commands carried out: the request, the answer, and what an errno means to the user.

use std::io::Write;

use rvs_core::types::{DestConfig, DestKey, ServiceKey};
use rvs_netlink::attr::Writer;
use rvs_netlink::errno::{
    EAFNOSUPPORT, EEXIST, EINVAL, ENOENT, ENOMEM, EOPNOTSUPP, EPERM, ERANGE, ESRCH,
};
use rvs_netlink::ipvs::{self, cmd_attr, command};
use rvs_netlink::{Client, ClientError};

use crate::command::Command;
use crate::{Failure, conns, help, listing, restore, save};

/// Carries a command out. `client` is connected when first needed and can be used again.
pub fn execute(
    command: &Command,
    out: &mut dyn Write,
    client: &mut Option<Client>,
) -> Result<(), Failure> {
    match command {
        Command::Help => return written(help::help(out)),
        Command::Version => return written(writeln!(out, "{}", help::VERSION)),
        Command::Restore => return restore::restore(out, client),
        _ => {}
    }
    let client = match client {
        Some(client) => client,
        None => client.insert(Client::connect().map_err(|e| Failure::new(255, e.to_string()))?),
    };
    match command {
        Command::AddService(service) => {
            change(client, command::NEW_SERVICE, full_service(service), Subject::AddService)
        }
        Command::EditService(service) => {
            change(client, command::SET_SERVICE, full_service(service), Subject::Service)
        }
        Command::DelService(key) => {
            change(client, command::DEL_SERVICE, service_key(key), Subject::Service)
        }
        Command::Flush => change(client, command::FLUSH, Writer::new(), Subject::Other),
        Command::AddDest(key, dest) => {
            change(client, command::NEW_DEST, full_dest(key, dest), Subject::AddDest)
        }
        Command::EditDest(key, dest) => {
            change(client, command::SET_DEST, full_dest(key, dest), Subject::Dest)
        }
        Command::DelDest(key, dest) => {
            change(client, command::DEL_DEST, dest_key(key, dest), Subject::Dest)
        }
        Command::Zero(key) => {
            let attrs = key.as_ref().map(service_key).unwrap_or_default();
            change(client, command::ZERO, attrs, Subject::Service)
        }
        Command::SetTimeouts([tcp, fin, udp]) => {
            let mut attrs = Writer::new();
            attrs
                .u32(cmd_attr::TIMEOUT_TCP, *tcp)
                .u32(cmd_attr::TIMEOUT_TCP_FIN, *fin)
                .u32(cmd_attr::TIMEOUT_UDP, *udp);
            change(client, command::SET_CONFIG, attrs, Subject::Other)
        }
        Command::Daemon(number, role) => {
            let mut daemon = Writer::new();
            // IPVS_DAEMON_ATTR_STATE
            daemon.u32(1, *role);
            let mut attrs = Writer::new();
            attrs.nest(cmd_attr::DAEMON, &daemon);
            change(client, *number, attrs, Subject::Daemon)
        }
        Command::List(key, format) => listing::list(client, out, key.as_ref(), *format),
        Command::ListConns(format) => conns::list(client, out, *format),
        Command::ListTimeouts => listing::timeouts(client, out),
        // There are none: RVS has no sync daemon yet.
        Command::ListDaemons => Ok(()),
        Command::Save(format) => save::save(client, out, *format),
        Command::Help | Command::Version | Command::Restore => Ok(()),
    }
}

/// A failure to write the output.
pub fn written(result: std::io::Result<()>) -> Result<(), Failure> {
    result.map_err(|e| Failure::new(1, format!("cannot write: {e}")))
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

fn change(client: &mut Client, number: u8, attrs: Writer, subject: Subject) -> Result<(), Failure> {
    client.call(number, &attrs, |_, _| {}).map_err(|e| Failure::new(255, explain(&e, subject)))
}

/// What went wrong, in the words of ipvsadm.
pub fn explain(error: &ClientError, subject: Subject) -> String {
    let ClientError::Refused(errno) = error else { return error.to_string() };
    let text = match (subject, *errno) {
        (Subject::AddService, EEXIST) => "Service already exists",
        (Subject::AddService | Subject::Service, ENOENT) => {
            "Scheduler or persistence engine not found"
        }
        (Subject::Service, ESRCH) => "No such service",
        (Subject::AddDest | Subject::Dest, ESRCH) => "Service not defined",
        (Subject::AddDest, EEXIST) => "Destination already exists",
        (Subject::Dest, ENOENT) => "No such destination",
        (Subject::Daemon, EEXIST) => "Daemon has already run",
        (Subject::Daemon, ESRCH) => "No daemon is running",
        (_, EPERM) => "Permission denied (you must be root)",
        (_, EINVAL) => {
            "Invalid operation.  Possibly wrong module version, address not unicast, ..."
        }
        (_, ENOMEM) => "Memory allocation problem, or a table of the director is full",
        (_, ERANGE) => "Numerical result out of range",
        (_, EOPNOTSUPP) => "Operation not supported by this director yet",
        (_, EAFNOSUPPORT) => "Operation not supported with specified address family",
        _ => return error.to_string(),
    };
    text.to_owned()
}

/// Attributes that name a service.
pub fn service_key(key: &ServiceKey) -> Writer {
    let mut inner = Writer::new();
    ipvs::put_service_key(&mut inner, key);
    let mut attrs = Writer::new();
    attrs.nest(cmd_attr::SERVICE, &inner);
    attrs
}

fn full_service(service: &ipvs::Service) -> Writer {
    let mut inner = Writer::new();
    ipvs::put_service(&mut inner, service);
    let mut attrs = Writer::new();
    attrs.nest(cmd_attr::SERVICE, &inner);
    attrs
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
