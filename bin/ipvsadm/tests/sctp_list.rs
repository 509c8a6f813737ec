//! Listings of SCTP services and connections: the same rules, packets and seconds as the real kernel and
//! program had (`tests/oracle/recorded/sctp_list.jsonl`), on the data path in plain memory.

mod lab;

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use lab::Lab;
use rvs_compat::proc::File;
use rvs_core::time::ticks;
use rvs_director::Director;
use rvs_netlink::Client;
use rvs_sim::{Frame, Outcome, Plain, SimDatapath, Sizes};
use serde_json::Value;

/// What is to be done before the next client is served.
const NOTHING: u32 = 0;
const PACKETS: u32 = 1;
const SECONDS: u32 = 2;

/// Seconds between the recorded `-Lnc` and `-Lc`.
const LATER: u32 = 4;
/// Other connections of the recording belong to services that it had before.
const PORTS: [&str; 2] = [":80", ":36412"];

/// An SCTP packet with one chunk; its checksums are of no interest here.
fn frame(from: (&str, u16), to: (&str, u16), chunk: u8, value: &[u8]) -> Vec<u8> {
    let addr = |text: &str| -> IpAddr { text.parse().expect("an address") };
    let mut sctp = Vec::new();
    sctp.extend(from.1.to_be_bytes());
    sctp.extend(to.1.to_be_bytes());
    sctp.extend([1, 2, 3, 4, 5, 6, 7, 8, chunk, 0]);
    sctp.extend((value.len() as u16 + 4).to_be_bytes());
    sctp.extend(value);
    let len = sctp.len() as u16;
    let mut frame = vec![2; 12];
    match (addr(from.0), addr(to.0)) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            frame.extend([8, 0, 0x45, 0]);
            frame.extend((len + 20).to_be_bytes());
            frame.extend([0, 1, 0x40, 0, 64, 132, 0, 0]);
            frame.extend(src.octets());
            frame.extend(dst.octets());
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(len.to_be_bytes());
            frame.extend([132, 64]);
            frame.extend(src.octets());
            frame.extend(dst.octets());
        }
        _ => panic!("mixed families"),
    }
    frame.extend(sctp);
    frame
}

/// An INIT, its INIT ACK, and an INIT to the other service.
fn packets(sim: &SimDatapath) {
    let cookie = [&[0; 16][..], b"\0\x07\0\x08cook"].concat();
    for frame in [
        frame(("10.0.0.2", 40000), ("10.9.1.1", 80), 1, &[0; 16]),
        frame(("10.1.0.11", 8080), ("10.0.0.2", 40000), 2, &cookie),
        frame(("fd00::2", 40000), ("fd09::1", 36412), 1, &[0; 16]),
    ] {
        assert_eq!(sim.maps().run(&mut Frame::new(&frame)), Outcome::Sent);
    }
}

/// Lines of a listing of connections but for their time, sorted, and the times.
fn conns(text: &str) -> (Vec<String>, Vec<u32>) {
    let rows = text.lines().filter(|line| line.starts_with("SCTP"));
    let rows = rows.filter(|line| {
        let virt = line.split_whitespace().nth(4).expect("a virtual address");
        PORTS.iter().any(|port| virt.ends_with(port))
    });
    let mut rows: Vec<(String, u32)> = rows
        .map(|line| {
            let (minutes, seconds) = line[5..10].split_once(':').expect("a time");
            let number = |text: &str| -> u32 { text.parse().expect("a number") };
            let time = number(minutes) * 60 + number(seconds);
            (format!("{}{}", &line[..5], &line[10..]), time)
        })
        .collect();
    rows.sort();
    rows.into_iter().unzip()
}

/// Rows of `ip_vs_conn` likewise.
fn proc_conns(text: &str) -> (Vec<String>, Vec<u32>) {
    let mut rows: Vec<(String, u32)> = text
        .lines()
        .skip(1)
        .filter(|line| line.split_whitespace().nth(4) == Some("0050"))
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            (words[..8].join(" "), words[8].parse().expect("seconds"))
        })
        .collect();
    rows.sort();
    rows.into_iter().unzip()
}

/// The kernel's clock went on while it was asked.
fn compare(ours: (Vec<String>, Vec<u32>), theirs: (Vec<String>, Vec<u32>), rows: usize) {
    assert_eq!((ours.0.len(), &ours.0), (rows, &theirs.0));
    for (ours, theirs) in ours.1.iter().zip(&theirs.1) {
        assert!(ours.abs_diff(*theirs) <= 3, "{ours} {theirs}");
    }
}

/// The services of a listing, whose order is not the kernel's.
fn services(text: &str) -> Vec<String> {
    let mut all: Vec<String> =
        text.split("\nSCTP").map(|part| part.trim_end().to_owned()).collect();
    all[1..].sort();
    all
}

#[test]
fn sctp_is_listed_as_the_kernel_s_is() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/oracle/recorded/sctp_list.jsonl");
    let text = std::fs::read_to_string(path).expect("it is part of the repository");
    let row: Value = serde_json::from_str(&text).expect("one line of JSON");
    let printed = |name: &str| row[name]["stdout"].as_str().expect("a text").to_owned();

    let sizes = Sizes { sets: 64, services: 8, destinations: 8 };
    let sim = SimDatapath::adopt(Plain::new(&sizes, 1));
    let next = Arc::new(AtomicU32::new(NOTHING));
    let todo = Arc::clone(&next);
    let lab = Lab::start("sctp_list", Director::new(sim), move |director| {
        match todo.swap(NOTHING, Ordering::SeqCst) {
            PACKETS => packets(director.datapath()),
            SECONDS => {
                director.datapath().maps().advance(ticks(LATER));
                director.datapath().maps().sweep();
            }
            _ => {}
        }
    });
    let ipvsadm = |line: &str, stdin: Option<&str>| -> String {
        let args: Vec<&str> = line.split(' ').collect();
        let (code, stdout, stderr) = lab.ipvsadm(&args, stdin);
        assert_eq!((code, &*stderr), (0, ""), "{line}");
        let size =
            stdout.find("(size=").map(|at| (at, at + stdout[at..].find(')').expect("an end")));
        size.map_or(stdout.clone(), |(from, to)| {
            format!("{}(size=4096{}", &stdout[..from], &stdout[to..])
        })
    };
    ipvsadm("-R", row["rules"].as_str());
    next.store(PACKETS, Ordering::SeqCst);
    assert_eq!(ipvsadm("-Ln", None), printed("-Ln"));
    compare(conns(&ipvsadm("-Lnc", None)), conns(&printed("-Lnc")), 3);
    assert_eq!(ipvsadm("-Sn", None), printed("-Sn"));
    assert_eq!(ipvsadm("-Ln --stats", None), printed("-Ln --stats"));
    next.store(SECONDS, Ordering::SeqCst);
    // The association to the other service is over.
    assert_eq!(ipvsadm("-L", None), printed("-L"));
    compare(conns(&ipvsadm("-Lc", None)), conns(&printed("-Lc")), 2);
    let mut client = Client::connect_to(lab.socket()).expect("a director");
    let mut file = |file: File| {
        String::from_utf8(file.text(&mut client).expect("an answer")).expect("it is text")
    };
    let (ours, theirs) = (file(File::Services), row["proc"]["ip_vs"].as_str().expect("a text"));
    assert_eq!(services(&ours)[1..], services(theirs)[1..]);
    let theirs = row["proc"]["ip_vs_conn"].as_str().expect("a text");
    compare(proc_conns(&file(File::Conns)), proc_conns(theirs), 2);
}
