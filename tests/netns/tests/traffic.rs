//! Real sockets through rvsd: HTTP, large downloads, UDP, crowds, IPv6, both hooks, and a director
//! that is killed meanwhile. Each test has a lab of its own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use rvs_testkit::lab::{Checksums, Director, LabError};
use rvs_testkit::need_lab;
use rvs_tests_netns::{CLIENT, DIRECTOR, QUIET, SERVERS, at, lab, masquerade};

fn download(mode: &str) -> Result<(), LabError> {
    let lab = lab()?;
    let file = lab.web_file("big", 100_000_000)?;
    for (name, _) in SERVERS {
        lab.host(name).serve_http(80)?;
    }
    if mode == "xdp" {
        lab.prepare_for_xdp()?;
    }
    let director = Director::start(&lab.host("director"), &["--mode", mode])?;
    masquerade(&director, "-t", 80, "")?;
    let link = director.host().ip("link show dev eth0")?;
    assert_eq!(link.contains(" xdp "), mode == "xdp", "{link}");
    assert!(!link.contains("xdpgeneric"), "{link}");
    let client = lab.host("client");
    for vip in DIRECTOR {
        let got = lab.dir().join("got");
        let url = format!("http://{}/", at(vip, 80));
        let names: Vec<String> = (0..4)
            .map(|_| client.run(&format!("curl -sS --max-time 10 {url}")))
            .collect::<Result<_, _>>()?;
        assert_eq!((&names[0], &names[1]), (&names[2], &names[3]), "{mode} {vip}: {names:?}");
        assert_ne!(names[0], names[1], "{mode} {vip}");
        client.run(&format!("curl -sS --max-time 60 -o {} {url}big", got.display()))?;
        client.run(&format!("cmp {} {}", got.display(), file.display()))?;
    }
    Ok(())
}

#[test]
fn a_large_download_is_whole_through_tc() -> Result<(), LabError> {
    need_lab!();
    download("tc")
}

#[test]
fn a_large_download_is_whole_through_xdp() -> Result<(), LabError> {
    need_lab!();
    download("xdp")
}

#[test]
fn a_killed_director_costs_no_packet_of_a_download() -> Result<(), LabError> {
    need_lab!();
    let lab = lab()?;
    let file = lab.web_file("big", 24_000_000)?;
    for (name, _) in SERVERS {
        lab.host(name).serve_http(80)?;
    }
    let director = Director::start(&lab.host("director"), &[])?;
    masquerade(&director, "-t", 80, "")?;
    let client = lab.host("client");
    let url = format!("http://{}/", at(DIRECTOR[0], 80));
    let got = lab.dir().join("got");
    let mut curl = client.command("curl");
    curl.args(["-sS", "--max-time", "60", "-o"]).arg(&got).arg(format!("{url}slow/big"));
    let curl = client.spawn("curl", curl)?;
    let part = || std::fs::metadata(&got).map_or(0, |meta| meta.len());
    let wait = std::time::Instant::now();
    while part() < 1_000_000 && wait.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let before = director.ipvsadm("-Ln")?;
    director.process().kill();
    let answer = client.run(&format!("curl -sS --max-time 10 {url}"))?;
    assert!(answer.starts_with("rs"), "a new connection without rvsd: {answer}");
    director.restart()?;
    let after = director.ipvsadm("-Ln")?;
    let services = |text: &str| {
        text.lines().filter(|l| l.contains("Masq")).map(|l| l[..47].to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(services(&before), services(&after));
    assert_eq!(curl.wait(Duration::from_secs(60))?.code(), Some(0), "{}", curl.log());
    client.run(&format!("cmp {} {}", got.display(), file.display()))?;
    Ok(())
}

#[test]
fn datagrams_come_back_from_the_virtual_address() -> Result<(), LabError> {
    need_lab!();
    let lab = lab()?;
    let director = Director::start(&lab.host("director"), &[])?;
    masquerade(&director, "-u", 5353, "")?;
    let mut services = Vec::new();
    for (name, addrs) in SERVERS {
        let addrs = addrs.map(|addr| at(addr, 5353).parse().expect("an address"));
        services.push(lab.host(name).serve_udp_echo(&addrs)?);
    }
    for vip in DIRECTOR {
        let vip: SocketAddr = at(vip, 5353).parse().expect("an address");
        let answers = lab.host("client").enter(move || {
            let any = if vip.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            (0..20)
                .filter(|number| {
                    let socket = UdpSocket::bind(any).expect("a port");
                    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
                    let text = format!("datagram {number}");
                    socket.send_to(text.as_bytes(), vip).expect("a route");
                    let mut buffer = [0; 64];
                    matches!(socket.recv_from(&mut buffer),
                    Ok((len, from)) if from == vip && buffer[..len].ends_with(text.as_bytes()))
                })
                .count()
        })?;
        assert_eq!(answers, 20, "{vip}");
    }
    Ok(())
}

#[test]
fn a_thousand_connections_at_once_are_all_served() -> Result<(), LabError> {
    need_lab!();
    const CROWD: usize = 1000;
    let lab = lab()?;
    let director = Director::start(&lab.host("director"), &[])?;
    masquerade(&director, "-t", 7, "")?;
    let mut services = Vec::new();
    for (name, addrs) in SERVERS {
        let listener = lab.host(name).enter(move || TcpListener::bind(at(addrs[0], 7)))?;
        let listener = listener.expect("a free port");
        services.push(std::thread::spawn(move || {
            // All connections first, so that they are open at the same time.
            let open: Vec<TcpStream> =
                listener.incoming().take(CROWD / 2).filter_map(Result::ok).collect();
            for mut stream in open {
                let mut word = [0; 4];
                if stream.read_exact(&mut word).is_ok() {
                    let _ = stream.write_all(&word);
                }
            }
        }));
    }
    let served = lab.host("client").enter(|| {
        let vip: SocketAddr = at(DIRECTOR[0], 7).parse().expect("an address");
        let mut open: Vec<TcpStream> = (0..CROWD)
            .filter_map(|_| TcpStream::connect_timeout(&vip, Duration::from_secs(10)).ok())
            .collect();
        // The servers answer, and close, only after they have accepted them all.
        let rows = director.dests().expect("a listing");
        let active: usize = rows.iter().map(|row| row.active as usize).sum();
        assert_eq!(active, CROWD, "active connections");
        let mut served = 0;
        for (number, stream) in open.iter_mut().enumerate() {
            let word = (number as u32).to_be_bytes();
            stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
            stream.write_all(&word).expect("an open connection");
        }
        for (number, stream) in open.iter_mut().enumerate() {
            let mut word = [0; 4];
            let whole = stream.read_exact(&mut word).is_ok();
            served += usize::from(whole && word == (number as u32).to_be_bytes());
        }
        served
    })?;
    assert_eq!(served, CROWD);
    for service in services {
        service.join().expect("a server that does not panic");
    }
    Ok(())
}

/// The virtual addresses that the servers have, too.
const SHARED: [&str; 2] = ["192.168.122.22", "fd22::22"];

/// Direct routing, or tunneling with both servers reached over the address family `outer`.
fn shared_address(mode: &str, outer: Option<usize>) -> Result<(), LabError> {
    let lab = lab()?;
    let file = lab.web_file("big", 5_000_000)?;
    if mode == "xdp" {
        lab.prepare_for_xdp()?;
    }
    let lengths = ["/32", "/128 nodad"];
    for (vip, length) in SHARED.into_iter().zip(lengths) {
        lab.host("director").ip(&format!("addr add {vip}{length} dev eth0"))?;
    }
    let mut decapsulators = Vec::new();
    for (name, _) in SERVERS {
        let host = lab.host(name);
        // Replies go straight to the client.
        host.ip(&format!("route del {}", CLIENT[0]))?;
        host.ip(&format!("route del {}", CLIENT[1]))?;
        host.sysctls(&QUIET)?;
        for (vip, length) in SHARED.into_iter().zip(lengths) {
            host.ip(&format!("addr add {vip}{length} dev lo"))?;
        }
        host.serve_http(80)?;
        if outer.is_some() {
            decapsulators.push(host.serve_decap(Checksums::Complete)?);
        }
    }
    let director = Director::start(&lab.host("director"), &["--mode", mode])?;
    let client = lab.host("client");
    for (family, vip) in SHARED.into_iter().enumerate() {
        let vip = at(vip, 80);
        director.ipvsadm(&format!("-A -t {vip} -s rr"))?;
        let method = if outer.is_some() { "-i" } else { "-g" };
        for (_, addrs) in SERVERS {
            let server = at(addrs[outer.unwrap_or(family)], 80);
            director.ipvsadm(&format!("-a -t {vip} -r {server} {method}"))?;
        }
        let answer = || client.run(&format!("curl -sS --max-time 10 http://{vip}/"));
        let (first, second) = (answer()?, answer()?);
        assert_ne!(first, second, "{mode} {vip} {outer:?}");
        let got = lab.dir().join("got");
        client.run(&format!("curl -sS --max-time 30 -o {} http://{vip}/big", got.display()))?;
        client.run(&format!("cmp {} {}", got.display(), file.display()))?;
    }
    Ok(())
}

#[test]
fn direct_routing_serves_http_through_both_hooks() -> Result<(), LabError> {
    need_lab!();
    shared_address("tc", None)?;
    shared_address("xdp", None)
}

#[test]
fn tunnels_serve_http_through_tc() -> Result<(), LabError> {
    need_lab!();
    shared_address("tc", Some(0))?;
    shared_address("tc", Some(1))
}

#[test]
fn tunnels_serve_http_through_xdp() -> Result<(), LabError> {
    need_lab!();
    shared_address("xdp", Some(0))?;
    shared_address("xdp", Some(1))
}
