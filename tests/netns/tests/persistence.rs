//! Persistent clients with real sockets: each stays at its server over many connections, through
//! both hooks, and over the end of an rvsd.

use std::cell::RefCell;
use std::collections::HashSet;
use std::time::Duration;

use rvs_testkit::lab::{Director, LabError};
use rvs_testkit::need_lab;
use rvs_tests_netns::{DIRECTOR, SERVERS, at, lab, masquerade};

/// Connections of each client at a time.
const CONNECTIONS: usize = 20;

/// The clients' addresses: last numbers, on the client's one interface.
const CLIENTS: [u8; 4] = [71, 72, 73, 74];

fn address(family: usize, client: u8) -> String {
    let prefix = ["192.168.122.", "fd22::"][family];
    format!("{prefix}{client}")
}

fn clients_stick(mode: &str) -> Result<(), LabError> {
    let lab = lab()?;
    let host = lab.host("client");
    for (family, length) in ["/24", "/64 nodad"].into_iter().enumerate() {
        for client in CLIENTS {
            let addr = address(family, client);
            host.ip(&format!("addr add {addr}{length} dev eth0"))?;
            for (server, _) in SERVERS {
                lab.host(server).ip(&format!("route add {addr} via {}", DIRECTOR[family]))?;
            }
        }
    }
    for (server, _) in SERVERS {
        lab.host(server).serve_http(80)?;
    }
    if mode == "xdp" {
        lab.prepare_for_xdp()?;
    }
    let director = Director::start(&lab.host("director"), &["--mode", mode])?;
    masquerade(&director, "-t", 80, "-p 300")?;
    for (family, vip) in DIRECTOR.into_iter().enumerate() {
        let vip = at(vip, 80);
        // Clients and ports: a port that is taken again while its connection is known goes on with
        // it, because a persistent one is not reopened (`tests/oracle/recorded/reuse.jsonl`).
        let connections = RefCell::new(HashSet::new());
        // The server of so many connections of one client; there is one.
        let server = |client: u8| {
            let from = address(family, client);
            let answers = host.run(&format!(
                "curl -sS --max-time 30 -H Connection:close --interface {from} \
                 -w %{{local_port}}\\n http://{vip}/?[1-{CONNECTIONS}]"
            ))?;
            let names: Vec<&str> = answers.lines().step_by(2).collect();
            let ports = answers.lines().skip(1).step_by(2).map(|port| (client, port.to_owned()));
            connections.borrow_mut().extend(ports);
            assert_eq!(names.len(), CONNECTIONS, "{mode} {from}: {answers}");
            let distinct: HashSet<&str> = names.iter().copied().collect();
            assert_eq!(distinct.len(), 1, "{mode} {from}: {answers}");
            Ok::<String, LabError>(names[0].to_owned())
        };
        let first: Vec<String> = CLIENTS.into_iter().map(server).collect::<Result<_, _>>()?;
        // Round robin goes on from client to client, not from connection to connection.
        assert_eq!((&first[0], &first[1]), (&first[2], &first[3]), "{mode} {vip}");
        assert_ne!(first[0], first[1], "{mode} {vip}");

        // The server of client 0 takes no new clients, but keeps those that it has.
        let kept = SERVERS.iter().find(|(name, _)| *name == first[0]).expect("one of them");
        let kept = at(kept.1[family], 80);
        director.ipvsadm(&format!("-e -t {vip} -r {kept} -m -w 0"))?;
        director.process().kill();
        director.restart()?;
        let again: Vec<String> = CLIENTS.into_iter().map(server).collect::<Result<_, _>>()?;
        assert_eq!(first, again, "{mode} {vip}: quiesced, with a new rvsd");

        let listing = director.ipvsadm("-Lnc")?;
        for client in CLIENTS {
            let from = at(&address(family, client), 0);
            let rows: Vec<&str> = listing.lines().filter(|row| row.contains(&from)).collect();
            assert_eq!(rows.len(), 1, "{mode} {from}: {listing}");
            let words: Vec<&str> = rows[0].split_whitespace().collect();
            let ["TCP", left, "ASSURED", _, to, _] = words[..] else { panic!("{}", rows[0]) };
            assert!(left.starts_with("04:5") || left == "05:00", "{}", rows[0]);
            assert_eq!(to, vip);
        }
        let stats = director.ipvsadm(&format!("-Ln --stats -t {vip}"))?;
        let total = stats.lines().find(|line| line.starts_with("TCP")).unwrap_or_default();
        let conns = total.split_whitespace().nth(2);
        assert_eq!(conns, Some(connections.borrow().len().to_string().as_str()), "{stats}");
    }
    director.process().terminate(Duration::from_secs(10))?;
    Ok(())
}

#[test]
fn clients_stick_to_their_servers_through_tc() -> Result<(), LabError> {
    need_lab!();
    clients_stick("tc")
}

#[test]
fn clients_stick_to_their_servers_through_xdp() -> Result<(), LabError> {
    need_lab!();
    clients_stick("xdp")
}
