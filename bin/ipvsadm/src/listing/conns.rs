//! `ipvsadm -L -c`: the connection table, row by row as it comes.

use std::io::{self, Write};

use rvs_core::types::Protocol;
use rvs_netlink::Client;
use rvs_netlink::ipvs::Conn;

use super::{json, refused};
use crate::Failure;
use crate::address::Names;
use crate::command::Format;
use crate::execute::written;

/// Lists every connection.
pub fn conns(client: &mut Client, out: &mut dyn Write, format: Format) -> Result<(), Failure> {
    let mut json = json::Conns::default();
    if format.json {
        written(json.begin(out))?;
    } else {
        written(title(out, format))?;
    }
    let mut result = Ok(());
    let row = |conn: Conn| {
        result = if format.json { json.row(out, &conn) } else { row(out, &conn, format) };
        result.is_ok()
    };
    client.conns(row).map_err(refused(255))?;
    written(result)?;
    if format.json { written(json::end(out)) } else { Ok(()) }
}

fn title(out: &mut dyn Write, format: Format) -> io::Result<()> {
    let pe = if format.persistent { "        pe name          pe_data" } else { "" };
    writeln!(
        out,
        "IPVS connection entries\n\
         pro expire state       source             virtual            destination{pe}"
    )
}

/// The name of a connection's protocol, and what its ports are looked up by.
pub(super) fn protocol(number: u8) -> (&'static str, Protocol) {
    match number {
        6 => ("TCP", Protocol::Tcp),
        17 => ("UDP", Protocol::Udp),
        132 => ("SCTP", Protocol::Sctp),
        _ => ("IP", Protocol::Tcp),
    }
}

fn row(out: &mut dyn Write, conn: &Conn, format: Format) -> io::Result<()> {
    let names = Names { numeric: format.numeric };
    let (name, protocol) = protocol(conn.protocol);
    let show = |(addr, port)| names.show(addr, port, protocol);
    write!(
        out,
        "{name:<3} {:02}:{:02}  {:<11} {:<18} {:<18} ",
        conn.expires / 60,
        conn.expires % 60,
        conn.state,
        show(conn.client),
        show(conn.service),
    )?;
    match &conn.pe {
        Some((engine, data)) if format.persistent => {
            write!(out, "{:<16} {engine:<18} ", show(conn.dest))?;
            out.write_all(data)?;
            writeln!(out)
        }
        _ => writeln!(out, "{}", show(conn.dest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(conn: &Conn, format: Format) -> String {
        let mut out = Vec::new();
        row(&mut out, conn, format).expect("memory takes everything");
        String::from_utf8(out).expect("text")
    }

    /// `tests/oracle/recorded/persist.jsonl`: a template and a connection.
    #[test]
    fn rows_look_as_ipvsadm_shows_them() {
        let dest = ([10, 1, 0, 13].into(), 1006);
        let mut conn = Conn {
            protocol: 6,
            client: ([10, 0, 0, 2].into(), 0),
            service: ([10, 9, 1, 1].into(), 1006),
            dest,
            state: "NONE".into(),
            expires: 59,
            forward: None,
            template: None,
            pe: None,
            synced: None,
        };
        let numeric = Format { numeric: true, ..Format::default() };
        assert_eq!(
            shown(&conn, numeric),
            "TCP 00:59  NONE        10.0.0.2:0         10.9.1.1:1006      10.1.0.13:1006\n"
        );
        (conn.client.1, conn.state, conn.expires) = (40_000, "SYN_RECV".into(), 3_661);
        assert_eq!(
            shown(&conn, numeric),
            "TCP 61:01  SYN_RECV    10.0.0.2:40000     10.9.1.1:1006      10.1.0.13:1006\n"
        );
        // `tests/oracle/recorded/pe_sip.jsonl`
        (conn.client.1, conn.state, conn.expires) = (0, "NONE".into(), 59);
        conn.pe = Some(("sip".into(), b"one@x".to_vec()));
        assert_eq!(
            shown(&conn, Format { persistent: true, ..numeric }),
            "TCP 00:59  NONE        10.0.0.2:0         10.9.1.1:1006      10.1.0.13:1006   \
             sip                one@x\n"
        );
    }
}
