//! Builds a lab: namespaces, bridges, veth pairs and addresses, by a few runs of `ip -batch`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::process::wait_until;
use super::{Inner, Lab, LabError, SWITCH, registry};

/// The hosts of a lab, and what they are connected to.
#[derive(Debug, Default)]
pub struct Topology {
    prefix: Option<String>,
    links: Vec<Link>,
}

#[derive(Debug)]
struct Link {
    host: String,
    interface: String,
    segment: String,
    addresses: Vec<String>,
}

impl Topology {
    /// No host yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What the lab's name begins with, in place of `rvs-lab`.
    #[must_use]
    pub fn prefix(mut self, prefix: &str) -> Self {
        self.prefix = Some(prefix.into());
        self
    }

    /// A host on the segment `lan`, with addresses like `10.0.0.1/24` and `fd00::1/64`.
    #[must_use]
    pub fn host(self, name: &str, addresses: &[&str]) -> Self {
        self.attach(name, "lan", addresses)
    }

    /// One more interface for a host, which is made if it is not there yet: `eth0`, `eth1` and so on
    /// in the order of the calls. The name of a segment has at most 12 letters.
    #[must_use]
    pub fn attach(mut self, host: &str, segment: &str, addresses: &[&str]) -> Self {
        let number = self.links.iter().filter(|link| link.host == host).count();
        self.links.push(Link {
            host: host.into(),
            interface: format!("eth{number}"),
            segment: segment.into(),
            addresses: addresses.iter().map(|&address| address.to_owned()).collect(),
        });
        self
    }

    /// Makes the lab. When it returns, packets flow and every address can be used.
    pub fn build(self) -> Result<Lab, LabError> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let prefix = self.prefix.as_deref().unwrap_or("rvs-lab");
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{prefix}-{}-{number}", std::process::id());
        let mut hosts = unique(self.links.iter().map(|link| link.host.as_str()));
        hosts.push(SWITCH.into());
        let port = |(number, link): (usize, &Link)| {
            (link.host.clone(), link.interface.clone(), format!("p{number}"))
        };
        let ports = self.links.iter().enumerate().map(port).collect();
        registry::register(&name)?;
        let inner = Inner {
            name,
            hosts,
            ports,
            processes: Mutex::new(Vec::new()),
            services: Mutex::new(Vec::new()),
            kept: Mutex::new(false),
        };
        // From here on dropping `lab` removes what has been made.
        let lab = Lab { inner: Arc::new(inner) };
        self.fill(&lab)?;
        Ok(lab)
    }

    fn fill(&self, lab: &Lab) -> Result<(), LabError> {
        let inner = &lab.inner;
        let www = inner.www();
        std::fs::create_dir_all(&www).map_err(LabError::file(&www))?;
        let mut script = String::new();
        for host in &inner.hosts {
            line(&mut script, format_args!("netns add {}", inner.namespace(host)));
        }
        batch(None, &script)?;
        lab.switch().sysctl("net.ipv6.conf.all.disable_ipv6", "1")?;
        lab.switch().sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
        for host in lab.host_names() {
            lab.host(host).sysctls(&HOST_SYSCTLS)?;
        }
        batch(Some(&inner.namespace(SWITCH)), &self.switch_script(inner))?;
        for host in lab.host_names() {
            batch(Some(&inner.namespace(host)), &self.host_script(host))?;
        }
        self.wait_for_ports(lab)
    }

    fn switch_script(&self, inner: &Inner) -> String {
        let mut script = String::new();
        for segment in unique(self.links.iter().map(|link| link.segment.as_str())) {
            // Snooping would hold back IPv6 neighbour solicitations until it has learned listeners.
            let kind = "type bridge stp_state 0 mcast_snooping 0";
            line(&mut script, format_args!("link add br-{segment} {kind}"));
            line(&mut script, format_args!("link set br-{segment} up"));
        }
        for (link, (host, interface, port)) in self.links.iter().zip(&inner.ports) {
            let peer = format!("peer name {interface} netns {}", inner.namespace(host));
            line(&mut script, format_args!("link add {port} type veth {peer}"));
            line(&mut script, format_args!("link set {port} master br-{} up", link.segment));
        }
        script
    }

    fn host_script(&self, host: &str) -> String {
        let mut script = String::from("link set lo up\n");
        for Link { interface, addresses, .. } in self.links.iter().filter(|l| l.host == host) {
            line(&mut script, format_args!("link set {interface} up"));
            for address in addresses {
                let nodad = if address.contains(':') { " nodad" } else { "" };
                line(&mut script, format_args!("addr add {address} dev {interface}{nodad}"));
            }
        }
        script
    }

    fn wait_for_ports(&self, lab: &Lab) -> Result<(), LabError> {
        wait_until("the ports of the switch", Duration::from_secs(10), || {
            let ports = lab.switch().run("bridge link show")?;
            Ok(ports.matches("state forwarding").count() >= self.links.len())
        })?;
        // The kernel gives an interface its link-local address once its link is ready for IPv6.
        for host in lab.host_names() {
            let links = self.links.iter().filter(|link| link.host == host).count();
            wait_until(&format!("the links of {host}"), Duration::from_secs(10), || {
                let addresses = lab.host(host).enter(|| std::fs::read_to_string(IF_INET6))?;
                let addresses = addresses.map_err(LabError::file(Path::new(IF_INET6)))?;
                let local = |line: &&str| line.starts_with("fe80") && line.contains("eth");
                Ok(addresses.lines().filter(local).count() >= links)
            })?;
        }
        Ok(())
    }
}

/// The IPv6 addresses of the calling thread's namespace.
const IF_INET6: &str = "/proc/thread-self/net/if_inet6";

/// Settings of every host: no waiting for duplicate addresses, no source check in the way of
/// direct routing and tunneling.
const HOST_SYSCTLS: [(&str, &str); 8] = [
    ("net.ipv6.conf.all.disable_ipv6", "0"),
    ("net.ipv6.conf.default.disable_ipv6", "0"),
    ("net.ipv6.conf.all.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_dad", "0"),
    ("net.ipv6.conf.default.router_solicitations", "0"),
    ("net.ipv6.conf.default.accept_ra", "0"),
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
];

fn line(script: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(script, "{text}").expect("a String takes all text");
}

fn unique<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut seen: Vec<String> = Vec::new();
    for name in names {
        if !seen.iter().any(|other| other == name) {
            seen.push(name.into());
        }
    }
    seen
}

/// Runs lines of `ip` commands in a namespace, or for namespaces themselves outside of any.
pub(super) fn batch(namespace: Option<&str>, script: &str) -> Result<(), LabError> {
    let mut command = Command::new("ip");
    if let Some(namespace) = namespace {
        command.args(["-n", namespace]);
    }
    command.args(["-batch", "-"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let start = |source| LabError::Start { program: "ip".into(), source };
    let mut child = command.spawn().map_err(start)?;
    let mut stdin = child.stdin.take().expect("stdin is a pipe");
    // An `ip` that ends early closes the pipe; its status then says why.
    let _ = stdin.write_all(script.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().map_err(start)?;
    if output.status.success() {
        return Ok(());
    }
    Err(LabError::Failed {
        command: format!("ip -batch ({} lines)", script.lines().count()),
        status: output.status.to_string(),
        stderr: String::from_utf8_lossy(&output.stderr).trim_end().replace('\n', "; "),
    })
}
