//! `ipvsadm -L -c`: the connection table.

use std::io::Write;

use rvs_core::types::Protocol;
use rvs_netlink::Client;
use rvs_netlink::attr::Writer;
use rvs_netlink::ipvs::{self, cmd_attr, command};

use crate::Failure;
use crate::address::Names;
use crate::command::Format;
use crate::execute::{Subject, explain, written};

/// Lists every connection.
pub fn list(client: &mut Client, out: &mut dyn Write, format: Format) -> Result<(), Failure> {
    let header = "IPVS connection entries\npro expire state       source             virtual            destination";
    let pe = if format.persistent { "        pe name          pe_data" } else { "" };
    written(writeln!(out, "{header}{pe}"))?;
    let names = Names { numeric: format.numeric };
    let mut result = Ok(());
    let take = |_: u8, attrs: &rvs_netlink::attr::Attrs<'_>| {
        if let Some(conn) = attrs.nested(cmd_attr::CONN).as_ref().and_then(ipvs::conn)
            && result.is_ok()
        {
            result = row(out, &conn, names);
        }
    };
    client
        .dump(command::GET_CONNS, &Writer::new(), take)
        .map_err(|e| Failure::new(255, explain(&e, Subject::Other)))?;
    written(result)
}

fn row(out: &mut dyn Write, conn: &ipvs::Conn, names: Names) -> std::io::Result<()> {
    let (name, protocol) = match conn.protocol {
        6 => ("TCP", Protocol::Tcp),
        17 => ("UDP", Protocol::Udp),
        132 => ("SCTP", Protocol::Sctp),
        _ => ("IP", Protocol::Tcp),
    };
    let show = |(addr, port)| names.show(addr, port, protocol);
    writeln!(
        out,
        "{name:<3} {:02}:{:02}  {:<11} {:<18} {:<18} {}",
        conn.expires / 60,
        conn.expires % 60,
        conn.state,
        show(conn.client),
        show(conn.service),
        show(conn.dest),
    )
}
