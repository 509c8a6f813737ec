//! Programs that people have: iperf3's streams and datagrams, a name server scheduled packet by
//! packet, tracepath.

use std::time::Duration;

use rvs_testkit::lab::{Director, Host, Lab, LabError, Process, find_program};
use rvs_testkit::{need_lab, skip};
use rvs_tests_netns::{CLIENT, DIRECTOR, QUIET, SERVERS, at, lab, masquerade};
use serde_json::Value;

/// Virtual addresses that the servers have as well, for direct routing.
const SHARED: [&str; 2] = ["192.168.122.31", "fd22::31"];

/// The lab with a director, by the hook of this name.
fn start(mode: &str) -> Result<(Lab, Director), LabError> {
    let lab = lab()?;
    if mode == "xdp" {
        lab.prepare_for_xdp()?;
    }
    let director = Director::start(&lab.host("director"), &["--mode", mode])?;
    Ok((lab, director))
}

/// The numbers of a service's line of `--stats --exact`: connections, packets in and out, bytes.
fn stats(director: &Director, service: &str) -> Result<Vec<u64>, LabError> {
    let listing = director.ipvsadm(&format!("-Ln --stats --exact {service}"))?;
    let row = listing.lines().find(|row| row.starts_with("TCP") || row.starts_with("UDP"));
    let numbers = row.unwrap_or_default().split_whitespace().skip(2);
    Ok(numbers.map(|number| number.parse().expect("a number")).collect())
}

/// What the client's iperf3 reports of a run through the virtual address.
fn iperf3(client: &Host, vip: &str, words: &str) -> Result<Value, LabError> {
    let text =
        client.run(&format!("iperf3 --client {vip} --json --connect-timeout 10000 {words}"))?;
    Ok(serde_json::from_str(&text).expect("iperf3 prints JSON"))
}

fn streams_and_datagrams(mode: &str) -> Result<(), LabError> {
    let (lab, director) = start(mode)?;
    let (client, (server, addrs)) = (lab.host("client"), SERVERS[0]);
    let mut command = lab.host(server).command("iperf3");
    command.args(["--server", "--port", "5201"]);
    let _server: Process = lab.host(server).spawn("iperf3", command)?;
    for (vip, addr) in DIRECTOR.into_iter().zip(addrs) {
        for protocol in ["-t", "-u"] {
            let service = format!("{protocol} {}", at(vip, 5201));
            director.ipvsadm(&format!("-A {service} -s wlc"))?;
            director.ipvsadm(&format!("-a {service} -r {} -m", at(addr, 5201)))?;
        }
        let (tcp, udp) = (format!("-t {}", at(vip, 5201)), format!("-u {}", at(vip, 5201)));
        for direction in ["", "--reverse"] {
            let report = iperf3(&client, vip, &format!("--bytes 100M --parallel 2 {direction}"))?;
            // The server stops counting when the client has sent all, not when all has come.
            let received = report["end"]["sum_received"]["bytes"].as_u64();
            assert!(received.is_some_and(|bytes| bytes >= 50_000_000), "{mode} {vip}: {report}");
        }
        // Each run has a connection for control, and two streams.
        let [conns, packets_in, packets_out, bytes_in, bytes_out] = stats(&director, &tcp)?[..]
        else {
            panic!("five numbers")
        };
        assert_eq!(conns, 6, "{mode} {vip}");
        assert!(packets_in > 0 && packets_out > 0, "{mode} {vip}");
        assert!(bytes_in > 50_000_000 && bytes_out > 50_000_000, "{mode} {vip}");

        let sent = iperf3(&client, vip, "--udp --bitrate 8M --length 1000 --time 2")?;
        let sum = &sent["end"]["sum"];
        let (packets, lost) = (sum["packets"].as_u64(), sum["lost_packets"].as_u64());
        let (packets, lost) = (packets.expect("a number"), lost.expect("a number"));
        assert!(packets >= 1000 && lost * 20 <= packets, "{mode} {vip}: {sum}");
        let [conns, packets_in, ..] = stats(&director, &udp)?[..] else { panic!("five numbers") };
        assert_eq!(conns, 1, "{mode} {vip}");
        // One datagram more begins a run, and its answer.
        assert!((packets - lost..=packets + 2).contains(&packets_in), "{packets_in} {sum}");
    }
    Ok(())
}

#[test]
fn iperf3_measures_streams_and_datagrams_through_tc() -> Result<(), LabError> {
    need_lab!();
    streams_and_datagrams("tc")
}

#[test]
fn iperf3_measures_streams_and_datagrams_through_xdp() -> Result<(), LabError> {
    need_lab!();
    streams_and_datagrams("xdp")
}

fn names(mode: &str) -> Result<(), LabError> {
    if find_program("dnsmasq").is_none() || find_program("dig").is_none() {
        skip!("no dnsmasq or dig on this machine; `cargo xtask setup` installs them");
    }
    let (lab, director) = start(mode)?;
    for (vip, length) in SHARED.into_iter().zip(["/32", "/128 nodad"]) {
        lab.host("director").ip(&format!("addr add {vip}{length} dev eth0"))?;
        director.ipvsadm(&format!("-A -u {} -s rr --ops", at(vip, 53)))?;
    }
    let mut servers = Vec::new();
    for (name, addrs) in SERVERS {
        let host = lab.host(name);
        host.sysctls(&QUIET)?;
        for ((vip, length), from) in SHARED.into_iter().zip(["/32", "/128 nodad"]).zip(CLIENT) {
            host.ip(&format!("addr add {vip}{length} dev lo"))?;
            host.ip(&format!("route del {from}"))?;
        }
        let mut command = lab.host(name).command("dnsmasq");
        command.args([
            "--keep-in-foreground",
            "--no-resolv",
            "--no-hosts",
            "--conf-file=/dev/null",
        ]);
        command.args(["--user=root", "--pid-file=", "--bind-interfaces"]);
        command.arg(format!("--txt-record=who.example,{name}"));
        command.args(SHARED.map(|vip| format!("--listen-address={vip}")));
        servers.push(host.spawn("dnsmasq", command)?);
        for (vip, addr) in SHARED.into_iter().zip(addrs) {
            director.ipvsadm(&format!("-a -u {} -r {} -g", at(vip, 53), at(addr, 53)))?;
        }
    }
    let client = lab.host("client");
    for (vip, from) in SHARED.into_iter().zip(CLIENT) {
        // From one and the same port: a connection would stay at its server.
        let ask = format!("dig -b {from}#40053 @{vip} +short +tries=5 +time=2 who.example TXT");
        let mut answers: Vec<String> = Vec::new();
        for _ in 0..6 {
            answers.push(client.run(&ask)?.trim().trim_matches('"').to_owned());
        }
        let (first, second) = (&answers[0], &answers[1]);
        assert_ne!(first, second, "{mode} {vip}: {answers:?}");
        for pair in answers.chunks(2) {
            assert_eq!(pair, [first.clone(), second.clone()], "{mode} {vip}: {answers:?}");
        }
        let [conns, packets_in, packets_out, ..] =
            stats(&director, &format!("-u {}", at(vip, 53)))?[..]
        else {
            panic!("five numbers")
        };
        assert_eq!((conns, packets_in, packets_out), (6, 6, 0), "{mode} {vip}");
    }
    let listing = director.ipvsadm("-Lnc")?;
    assert_eq!(listing.lines().skip(2).count(), 0, "{listing}");
    Ok(())
}

#[test]
fn names_are_served_packet_by_packet_through_tc() -> Result<(), LabError> {
    need_lab!();
    names("tc")
}

#[test]
fn names_are_served_packet_by_packet_through_xdp() -> Result<(), LabError> {
    need_lab!();
    names("xdp")
}

/// tracepath finds the director, then a server behind the virtual address, and the server's MTU.
fn paths(mode: &str) -> Result<(), LabError> {
    if find_program("tracepath").is_none() {
        skip!("no tracepath on this machine; `cargo xtask setup` installs it");
    }
    let (lab, director) = start(mode)?;
    // A port for each probe, all of one client at one server.
    masquerade(&director, "-u", 0, "-p 300")?;
    let client = lab.host("client");
    for vip in DIRECTOR {
        let found = client.run(&format!("tracepath -n -p 40000 {vip}"))?;
        let hop = |number: &str| found.lines().any(|line| line.starts_with(number));
        assert!(hop(" 1: ") && hop(" 2: "), "{mode} {vip}: {found}");
        assert!(found.contains("reached"), "{mode} {vip}: {found}");
        assert!(found.contains("Resume: pmtu 1500 hops 2"), "{mode} {vip}: {found}");
        // Only the virtual address is seen of either.
        let others = SERVERS.iter().flat_map(|(_, addrs)| addrs);
        assert!(!others.into_iter().any(|addr| found.contains(addr)), "{mode} {vip}: {found}");
    }
    director.process().terminate(Duration::from_secs(10))?;
    Ok(())
}

#[test]
fn tracepath_sees_the_director_and_a_server_through_tc() -> Result<(), LabError> {
    need_lab!();
    paths("tc")
}

#[test]
fn tracepath_sees_the_director_and_a_server_through_xdp() -> Result<(), LabError> {
    need_lab!();
    paths("xdp")
}
