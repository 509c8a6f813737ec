//! `-L --timeout`, `-L --daemon`.

use std::io::Write;

use rvs_netlink::Client;
use rvs_netlink::attr::{Attrs, Writer};
use rvs_netlink::ipvs::{self, Daemon, cmd_attr, command};

use super::{json, refused};
use crate::Failure;
use crate::command::Format;
use crate::execute::written;

/// `-L --timeout`
pub fn timeouts(client: &mut Client, out: &mut dyn Write, format: Format) -> Result<(), Failure> {
    let mut values = [0; 3];
    let take = |_: u8, attrs: &Attrs<'_>| {
        let kinds = [cmd_attr::TIMEOUT_TCP, cmd_attr::TIMEOUT_TCP_FIN, cmd_attr::TIMEOUT_UDP];
        values = kinds.map(|kind| attrs.u32(kind).unwrap_or_default());
    };
    client.call(command::GET_CONFIG, &Writer::new(), take).map_err(refused(255))?;
    if format.json {
        return written(json::timeouts(out, values));
    }
    let [tcp, fin, udp] = values;
    written(writeln!(out, "Timeout (tcp tcpfin udp): {tcp} {fin} {udp}"))
}

/// `-L --daemon`
pub fn daemons(client: &mut Client, out: &mut dyn Write, format: Format) -> Result<(), Failure> {
    let mut daemons = Vec::new();
    let take = |_: u8, attrs: &Attrs<'_>| {
        let daemon = attrs.nested(cmd_attr::DAEMON).as_ref().map(ipvs::daemon);
        daemons.extend(daemon.and_then(Result::ok));
    };
    client.dump(command::GET_DAEMON, &Writer::new(), take).map_err(refused(255))?;
    if format.json {
        return written(json::daemons(out, &daemons));
    }
    for daemon in daemons {
        written(writeln!(out, "{}", line(&daemon)))?;
    }
    Ok(())
}

fn line(daemon: &Daemon) -> String {
    let group = daemon.group.map_or_else(|| "0.0.0.0".to_owned(), |group| group.to_string());
    format!(
        "{} sync daemon (mcast={}, syncid={}, maxlen={}, group={group}, port={}, ttl={})",
        daemon.role.name(),
        daemon.interface,
        daemon.sync_id,
        daemon.max_len.unwrap_or_default(),
        daemon.port.unwrap_or_default(),
        daemon.ttl.unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use rvs_netlink::ipvs::Role;

    #[test]
    fn a_daemon_is_shown_as_ipvsadm_shows_it() {
        let daemon = Daemon {
            role: Role::Backup,
            interface: "lo".into(),
            sync_id: 5,
            max_len: Some(65_507),
            group: Some([224, 0, 0, 81].into()),
            port: Some(8848),
            ttl: Some(1),
        };
        assert_eq!(
            line(&daemon),
            "backup sync daemon (mcast=lo, syncid=5, maxlen=65507, group=224.0.0.81, port=8848, \
             ttl=1)"
        );
    }
}
