//! `/proc/net/ip_vs_conn` and `ip_vs_conn_sync`: `ip_vs_conn_seq_show` of `ip_vs_conn.c`.

use rvs_netlink::ipvs::Conn;
use rvs_netlink::{Client, ClientError};

use super::{hex, protocol};

/// Which of the two files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `ip_vs_conn`
    Plain,
    /// `ip_vs_conn_sync`
    Sync,
}

/// Calls `piece` for each line, until it returns false.
pub(super) fn pieces(
    client: &mut Client,
    form: Form,
    piece: &mut dyn FnMut(&[u8]) -> bool,
) -> Result<(), ClientError> {
    let last = match form {
        Form::Plain => "Expires PEName PEData",
        Form::Sync => "Origin Expires",
    };
    let title = format!("Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       {last}\n");
    if !piece(title.as_bytes()) {
        return Ok(());
    }
    client.conns(|conn| piece(&row(&conn, form)))
}

fn row(conn: &Conn, form: Form) -> Vec<u8> {
    let [client, service, dest] = [conn.client, conn.service, conn.dest]
        .map(|(addr, port)| format!("{} {port:04X}", hex(addr)));
    let (protocol, state, expires) = (protocol(conn.protocol), &conn.state, conn.expires);
    let origin = match (form, conn.synced) {
        (Form::Plain, _) => "",
        (Form::Sync, Some(true)) => " SYNC  ",
        (Form::Sync, _) => " LOCAL ",
    };
    let row = format!("{protocol:<3} {client} {service} {dest} {state:<11}{origin} {expires:>7}");
    let mut row = row.into_bytes();
    if let Some((engine, data)) = conn.pe.as_ref().filter(|_| form == Form::Plain) {
        row.extend([b" ", engine.as_bytes(), b" ", data].concat());
    }
    row.push(b'\n');
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(conn: &Conn, form: Form) -> String {
        String::from_utf8(row(conn, form)).unwrap()
    }

    /// Rows of `tests/oracle/recorded/proc.jsonl`.
    #[test]
    fn rows_are_the_kernel_s() {
        let conn = Conn {
            protocol: 6,
            client: ("10.0.0.2".parse().unwrap(), 40010),
            service: ("10.9.1.1".parse().unwrap(), 81),
            dest: ("10.1.0.11".parse().unwrap(), 81),
            state: "ESTABLISHED".into(),
            expires: 899,
            forward: None,
            template: None,
            pe: None,
            synced: None,
        };
        assert_eq!(
            show(&conn, Form::Plain),
            "TCP 0A000002 9C4A 0A090101 0051 0A01000B 0051 ESTABLISHED     899\n"
        );
        assert_eq!(
            show(&conn, Form::Sync),
            "TCP 0A000002 9C4A 0A090101 0051 0A01000B 0051 ESTABLISHED LOCAL      899\n"
        );
        let template = Conn {
            protocol: 0,
            client: ("10.0.0.2".parse().unwrap(), 0),
            service: ("0.0.0.7".parse().unwrap(), 0),
            dest: ("10.1.0.17".parse().unwrap(), 0),
            state: "NONE".into(),
            expires: 49,
            forward: None,
            template: None,
            pe: None,
            synced: None,
        };
        assert_eq!(
            show(&template, Form::Sync),
            "IP  0A000002 0000 00000007 0000 0A010011 0000 NONE        LOCAL       49\n"
        );
        let tunnel = Conn {
            protocol: 6,
            client: ("fd00::2".parse().unwrap(), 40000),
            service: ("fd09::1".parse().unwrap(), 80),
            dest: ("10.1.0.18".parse().unwrap(), 80),
            state: "SYN_RECV".into(),
            expires: 59,
            forward: None,
            template: None,
            pe: None,
            synced: None,
        };
        assert_eq!(
            show(&tunnel, Form::Plain),
            "TCP fd00:0000:0000:0000:0000:0000:0000:0002 9C40 \
             fd09:0000:0000:0000:0000:0000:0000:0001 0050 0A010012 0050 SYN_RECV         59\n"
        );
        let call = Conn {
            protocol: 17,
            client: ("10.2.0.49".parse().unwrap(), 0),
            service: ("10.9.1.1".parse().unwrap(), 5133),
            dest: ("10.1.0.11".parse().unwrap(), 5133),
            state: "NONE".into(),
            expires: 599,
            forward: None,
            template: None,
            pe: Some(("sip".into(), b"caf\xe9".to_vec())),
            synced: None,
        };
        // `tests/oracle/recorded/pe_sip.jsonl`
        assert_eq!(
            row(&call, Form::Plain),
            b"UDP 0A020031 0000 0A090101 140D 0A01000B 140D NONE            599 sip caf\xe9\n"
        );
    }
}
