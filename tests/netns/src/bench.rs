//! The network of `tests/oracle/conntrack.py` and `conntrack_own.py`, to be asked the same; what netfilter knows.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::time::{Duration, Instant};

use rvs_testkit::lab::{Host, Lab, LabError, Topology};
use serde_json::Value;

/// A far end of the network, or a client on the director.
pub struct End {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Drop for End {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl End {
    /// One in `host`, that sends to the director's interface.
    pub fn new(host: &Host, director: &Host, interface: &str) -> Result<Self, LabError> {
        Ok(Self::start(host, "tests/frames.py", &["eth0", &mac(director, interface)?]))
    }

    /// A client on the director, whose packets have no header before that of IP.
    pub fn own(director: &Host) -> Self {
        Self::start(director, "tests/own.py", &[])
    }

    fn start(host: &Host, script: &str, arguments: &[&str]) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(script);
        let mut command = host.command("python3");
        command.arg(script).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python3 starts");
        let input = child.stdin.take().expect("a pipe");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut end = Self { child, input, output };
        // It listens now.
        end.came();
        end
    }

    fn say(&mut self, line: &str) -> Vec<String> {
        writeln!(self.input, "{line}").expect("it lives");
        let mut answer = String::new();
        self.output.read_line(&mut answer).expect("it answers");
        serde_json::from_str(&answer).expect("JSON")
    }

    /// Sends a recorded frame.
    pub fn send(&mut self, frame: &str) {
        self.say(&frame[24..]);
    }

    /// Sends an IP packet of a client on the director: the error's name if that fails.
    pub fn send_packet(&mut self, packet: &str) -> Option<String> {
        self.say(packet).pop()
    }

    /// The IP packets that came since the last call.
    pub fn came(&mut self) -> Vec<String> {
        self.say("")
    }
}

fn mac(host: &Host, interface: &str) -> Result<String, LabError> {
    let text = host.ip(&format!("-o link show {interface}"))?;
    let (_, rest) = text.split_once("link/ether ").expect("an Ethernet device");
    Ok(rest[..17].to_owned())
}

/// The recording's network: the director between two ends that have no addresses.
pub fn network() -> Result<Lab, LabError> {
    let lab = Topology::new()
        .attach("client", "c", &[])
        .attach("director", "c", &["10.0.0.1/24", "fd00::1/64"])
        .attach("director", "r", &["10.1.0.1/24", "fd01::1/64"])
        .attach("servers", "r", &[])
        .build()?;
    let director = lab.host("director");
    let [client, servers] = ["client", "servers"].map(|name| mac(&lab.host(name), "eth0"));
    let (client, servers) = (client?, servers?);
    for (addr, mac, interface) in [
        ("10.0.0.2", &client, "eth0"),
        ("fd00::2", &client, "eth0"),
        ("10.1.0.11", &servers, "eth1"),
        ("10.1.0.12", &servers, "eth1"),
        ("fd01::11", &servers, "eth1"),
        ("fd01::12", &servers, "eth1"),
    ] {
        director.ip(&format!("neigh replace {addr} lladdr {mac} dev {interface} nud permanent"))?;
    }
    director.ip("addr add 10.9.1.1/32 dev lo")?;
    director.ip("addr add fd09::1/128 dev lo nodad")?;
    director.sysctls(&[("net.ipv4.ip_forward", "1"), ("net.ipv6.conf.all.forwarding", "1")])?;
    Ok(lab)
}

/// What the real kernel recorded of netfilter's entries with this client's port.
pub fn recorded(row: &Value, port: u64) -> Vec<String> {
    let direction = |tuple: &Value| {
        let number = |name: &str| tuple[name].as_u64().expect("a number");
        let text = |name: &str| tuple[name].as_str().expect("a text").to_owned();
        let (sport, dport) = (number("sport"), number("dport"));
        format!("{} {} {sport} {dport}", text("src"), text("dst"))
    };
    let rows = row["rows"].as_array().expect("a list").iter();
    let own = rows.filter(|entry| entry["orig"]["sport"] == port);
    let entry = |entry: &Value| {
        let seen = if entry["seen_reply"] == true { "" } else { " [UNREPLIED]" };
        let assured = if entry["assured"] == true { " [ASSURED]" } else { "" };
        format!("{} {}{seen}{assured}", direction(&entry["orig"]), direction(&entry["reply"]))
    };
    own.map(entry).collect()
}

/// The same of what it knows here.
pub fn known(director: &Host, port: u64) -> Result<Vec<String>, LabError> {
    let mut entries = Vec::new();
    for family in ["ipv4", "ipv6"] {
        for line in director.run(&format!("conntrack -L -f {family}"))?.lines() {
            let values = line.split_whitespace().filter_map(|word| word.split_once('='));
            let wanted = ["src", "dst", "sport", "dport"];
            let values = values.filter(|(name, _)| wanted.contains(name));
            let values: Vec<&str> = values.map(|(_, value)| value).collect();
            let mut entry = values.join(" ");
            for flag in [" [UNREPLIED]", " [ASSURED]"] {
                entry.push_str(if line.contains(flag) { flag } else { "" });
            }
            if values.get(2).is_some_and(|value| *value == port.to_string()) {
                entries.push(entry);
            }
        }
    }
    Ok(entries)
}

/// Waits until netfilter knows nothing of a client's port.
pub fn is_forgotten(director: &Host, port: u64) -> Result<(), LabError> {
    let end = Instant::now() + Duration::from_secs(20);
    while !known(director, port)?.is_empty() {
        assert!(Instant::now() < end, "port {port} is known");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
