//! `conntrack`, a client on the director, packet by packet beside a real kernel's IPVS: what real servers get,
//! what the client gets, what netfilter knows, what is counted (`tests/oracle/recorded/conntrack_own.jsonl`, by
//! `conntrack_own.py`, which has the same network).

use std::collections::BTreeMap;
use std::path::Path;

use rvs_testkit::lab::{Director, Host, LabError};
use rvs_testkit::need_lab;
use rvs_tests_netns::bench::{End, is_forgotten, known, network, recorded};
use rvs_tests_netns::{at, nft, setting};
use serde_json::Value;

/// What is marked, by where it is.
const MARK: &str =
    "ip daddr 10.9.1.1 meta mark set 0x4000; ip6 daddr fd09::1 meta mark set 0x4000;";
/// Chains that mark.
const PRE: (&str, &str) = ("pre", "nat hook prerouting priority dstnat");
const OUT: (&str, &str) = ("out", "nat hook output priority -100");
const MANGLE: (&str, &str) = ("mangle", "route hook output priority -150");
/// What is marked is masqueraded.
const POST: &str =
    "chain post { type nat hook postrouting priority srcnat; meta mark 0x4000 masquerade; }";
/// The host would answer what no socket waits for; what was recorded has another TTL.
const QUIET: &str = "table inet quiet { chain out { type filter hook output priority -320;
    ip ttl 64 tcp flags & rst == rst drop; ip6 hoplimit 64 tcp flags & rst == rst drop
    icmp type destination-unreachable drop; icmpv6 type destination-unreachable drop
 }\n}";
/// Chains that packets pass, by name: type, hook, priority.
const HOOKS: [(&str, &str); 7] = [
    ("prerouting", "filter hook prerouting priority -310"),
    ("nat_prerouting", "nat hook prerouting priority -105"),
    ("input", "filter hook input priority 150"),
    ("forward", "filter hook forward priority 0"),
    ("output", "filter hook output priority -310"),
    ("nat_output", "nat hook output priority -105"),
    ("postrouting", "filter hook postrouting priority 150"),
];

fn text<'v>(row: &'v Value, name: &str) -> &'v str {
    row[name].as_str().unwrap_or_else(|| panic!("{name} of {row}"))
}

/// The host's rules of a recorded row.
fn rules(marks: &str) -> String {
    let chains: &[(&str, &str)] = match marks {
        "none" => &[],
        "kube" => &[PRE, OUT],
        "output" => &[OUT],
        _ => &[MANGLE],
    };
    let chain = |(name, kind): &(&str, &str)| format!("chain {name} {{ type {kind}; {MARK} }}\n");
    let chains: String = chains.iter().map(chain).collect();
    format!("table inet t\ndelete table inet t\ntable inet t {{\n{chains}{POST}\n}}\n")
}

/// Counts what passes each chain from or to this port.
fn watch(host: &Host, port: u64) -> Result<(), LabError> {
    let chain = |(name, kind): (&str, &str)| {
        let rules = ["tcp sport", "tcp dport", "udp sport", "udp dport"];
        let rules: String = rules.map(|word| format!("{word} {port} counter\n")).concat();
        format!("chain {name} {{ type {kind};\n{rules} }}\n")
    };
    let chains = HOOKS.map(chain).concat();
    nft(host, &format!("table inet seen\ndelete table inet seen\ntable inet seen {{\n{chains}}}\n"))
}

/// How many passed each chain.
fn passed(host: &Host) -> Result<BTreeMap<String, u64>, LabError> {
    let (mut chain, mut passed) = (String::new(), BTreeMap::new());
    for line in host.run("nft list table inet seen")?.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["chain", name, ..] => chain = name.to_owned(),
            [.., "packets", count, "bytes", _] => {
                let count: u64 = count.parse().expect("a number");
                *passed.entry(chain.clone()).or_default() += count;
            }
            _ => {}
        }
    }
    passed.retain(|_, count| *count != 0);
    Ok(passed)
}

/// The services of a recorded row.
struct Case<'r> {
    service: String,
    server: String,
    row: &'r Value,
}

impl<'r> Case<'r> {
    fn of(row: &'r Value) -> Self {
        let v4 = row["family"] == 4;
        let option = if row["protocol"] == "tcp" { "-t" } else { "-u" };
        let service = format!("{option} {}", at(if v4 { "10.9.1.1" } else { "fd09::1" }, 80));
        let own = row["server"].as_str();
        let addr = own.unwrap_or(if v4 { "10.1.0.11" } else { "fd01::11" });
        let same = row["expires"] == 1 || row["anew"] == 1;
        Self { service, server: at(addr, if same { 80 } else { 8080 }), row }
    }

    fn set_up(&self, director: &Director) -> Result<(), LabError> {
        director.ipvsadm("-C")?;
        let short = self.row["expires"] == 1;
        director.ipvsadm(if short { "--set 2 2 2" } else { "--set 900 120 300" })?;
        director.ipvsadm("-A -t 10.9.9.9:9 -s rr")?;
        director.ipvsadm(&format!("-A {} -s rr", self.service))?;
        director.ipvsadm(&format!("-a {} -r {} -m", self.service, self.server))?;
        if self.row["anew"] == 1 {
            let next = self.server.replacen("11", "12", 1);
            director.ipvsadm(&format!("-a {} -r {next} -m", self.service))?;
        }
        Ok(())
    }

    /// What was done before this case's packet.
    fn prepare(&self, host: &Host, director: &Director) -> Result<(), LabError> {
        let (service, server) = (&self.service, &self.server);
        match text(self.row, "case") {
            "forgotten" => {
                let protocol = text(self.row, "protocol");
                let port = &self.row["cport"];
                host.run(&format!("conntrack -D -p {protocol} --orig-port-src {port}"))?;
            }
            "gone" => drop(director.ipvsadm(&format!("-d {service} -r {server}"))?),
            "back" => drop(director.ipvsadm(&format!("-a {service} -r {server} -m"))?),
            "deleted" => drop(director.ipvsadm(&format!("-D {service}"))?),
            _ => {}
        }
        Ok(())
    }
}

/// The numbers of a service's line, and its connections with this port: state, addresses. Destinations came
/// back from cases before, with what they had counted.
fn listed(stats: &str, conns: &str, port: u64) -> (Vec<Vec<String>>, Vec<Vec<String>>) {
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let counted = stats.lines().skip(3).map(words);
    let counted = counted.filter(|row| row[0] != "->" && !row[1].starts_with("10.9.9.9:"));
    let own = conns.lines().filter(|line| line.contains(&format!(":{port} ")));
    let own = own.map(|line| {
        let mut row = words(line);
        // The time that is left.
        row.remove(1);
        row
    });
    (counted.collect(), own.collect())
}

#[test]
fn packets_of_the_director_s_own_clients_are_the_kernel_s() -> Result<(), LabError> {
    need_lab!("conntrack", "nft", "python3");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../oracle/recorded/conntrack_own.jsonl");
    let file = std::fs::read_to_string(path).expect("it is part of the repository");
    let lab = network()?;
    let host = lab.host("director");
    nft(&host, QUIET)?;
    let director = Director::start(&host, &["--mode", "tc"])?;
    setting(&director, "conntrack=1").expect("it can be set");
    let mut servers = End::new(&lab.host("servers"), &host, "eth1")?;
    let mut client = End::own(&host);
    let (mut port, mut marks) = (0, "");
    let (mut packets, mut entries, mut stats, mut differences) = (0, 0, 0, 0);
    for line in file.lines() {
        let row: Value = serde_json::from_str(line).expect("a line of JSON");
        let name = text(&row, "case");
        let what = format!("{name} {}", row["cport"]);
        let case = Case::of(&row);
        if marks != text(&row, "marks") {
            nft(&host, &rules(text(&row, "marks")))?;
            marks = ["none", "kube", "output", "mangle"]
                .into_iter()
                .find(|marks| row["marks"] == *marks)
                .expect("one of these");
        }
        let cport = row["cport"].as_u64().expect("a port");
        if cport != port {
            port = cport;
            case.set_up(&director)?;
            watch(&host, cport)?;
        }
        // What has its mark from nat OUTPUT alone is masqueraded by the kernel: here the packet does not
        // pass that chain.
        let unmarked = marks == "output";
        // The kernel masquerades on the loopback what goes to the director itself (of IPv4 as the virtual
        // address); here it is only received there.
        if marks == "kube" && row["server"] == "fd01::1" {
            if name == "opens" {
                client.send_packet(text(&row["in"], "packet"));
                let kernel = row["to_client"][0].as_str().expect("text");
                let ours = kernel.replacen("fd01::1 ", "fd09::1 ", 1);
                assert!(client.came() == [&*ours] && ours != kernel, "{what}");
                differences += 1;
            }
            continue;
        }
        if let Some(packet) = row["in"]["packet"].as_str() {
            case.prepare(&host, &director)?;
            let from_client = row["in"]["from_"] == "own";
            // What was answered to an address that nobody has here, and what came after it.
            if unmarked && name != "opens" {
                continue;
            }
            if from_client {
                // The kernel says at once what it drops.
                assert_eq!(client.send_packet(packet), None, "{what}");
            } else {
                servers.send(&format!("{:024}{}{packet}", 0, ethertype(&row)));
            }
            let (came, heard) = (servers.came(), client.came());
            let sent = row["to_server"].as_array().expect("a list").iter();
            let sent: Vec<&str> =
                sent.map(|sent| &sent["frame"].as_str().expect("a frame")[28..]).collect();
            if unmarked {
                assert_eq!((came.len(), sent.len()), (1, 1), "{what}");
                assert_ne!(came, sent, "{what}: nothing differs any more");
                assert_eq!(source(&came[0]), source(packet), "{what}");
                differences += 1;
            } else {
                assert_eq!(came, sent, "{what}");
            }
            let expected = row["to_client"].as_array().expect("a list").iter();
            let expected: Vec<&str> = expected.map(|said| said.as_str().expect("text")).collect();
            if name == "deleted" {
                // A kernel without another service of the family leaves the packet to the host.
                assert_eq!(heard, [""; 0], "{what}");
            } else {
                assert_eq!(heard, expected, "{what}");
            }
            if what == "reply 43001" && row["forgotten"] != 1 {
                // The client's packet, untracked, then as another's; the answer, then as the client gets it.
                let chains =
                    "forward 2 input 1 nat_prerouting 1 output 1 postrouting 3 prerouting 3";
                let passed = passed(&host)?.into_iter().map(|(chain, n)| format!("{chain} {n}"));
                assert_eq!(passed.collect::<Vec<_>>().join(" "), chains);
            }
            packets += 1;
        } else if name == "stats" {
            let ours = (director.ipvsadm("-Ln --stats --exact")?, director.ipvsadm("-Lnc")?);
            let kernel = listed(text(&row, "stats"), text(&row, "lnc"), cport);
            if !unmarked {
                assert_eq!(listed(&ours.0, &ours.1, cport), kernel, "{what}");
                stats += 1;
            }
        } else if !unmarked && name != "deleted: tracked" {
            if name == "expired" {
                is_forgotten(&host, cport)?;
            }
            let (mut ours, mut kernel) = (known(&host, cport)?, recorded(&row, cport));
            // What is dropped netfilter has seen by then in the kernel, and not here. A UDP flow is assured
            // after two seconds.
            if name == "gone: tracked" || row["protocol"] == "udp" {
                for entry in ours.iter_mut().chain(&mut kernel) {
                    *entry = entry.replace(" [ASSURED]", "");
                }
            }
            assert_eq!(ours, kernel, "{what}");
            entries += 1;
        }
    }
    assert_eq!((packets, entries, stats, differences), (150, 146, 26, 6));
    Ok(())
}

fn ethertype(row: &Value) -> &'static str {
    if row["family"] == 4 { "0800" } else { "86dd" }
}

/// A packet's source address.
fn source(packet: &str) -> &str {
    if packet.starts_with('4') { &packet[24..32] } else { &packet[16..48] }
}
