//! A line of the lab: generator and sink in this namespace, a director of some kind between them in
//! a namespace of its own. Lines stand beside each other, and one at a time carries packets, so that
//! what is compared alternates within seconds.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::process::Pid;
use rustix::thread::CpuSet;
use rvs_testkit::lab::{Director, Host, Lab};

use crate::programs::{Programs, index};

/// Addresses of the services.
pub const NAT: &str = "10.200.0.1:5000";
/// See [`NAT`]: direct routing.
pub const DR: &str = "10.200.0.2:5000";
/// The real server, behind the director.
pub const SERVER: &str = "10.9.0.2:5000";

/// What stands between generator and sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An XDP program that redirects whatever comes.
    Bare,
    /// The same by TC.
    BareTc,
    /// The kernel's forwarding.
    Forward,
    /// The kernel's forwarding with a dnat rule of nftables.
    Nft,
    /// The kernel's IPVS.
    Ipvs,
    /// rvsd with this `--mode`.
    Rvs(&'static str),
}

/// See the module.
pub struct Line {
    /// Index of the generator's interface.
    pub generator: u32,
    /// Keeps rvsd, and the programs of the bare line, as long as the line stands.
    _director: Option<Director>,
    _programs: Option<Programs>,
}

impl Line {
    /// Builds one in a host of the lab that has nothing yet but a name. `number` tells it from the
    /// others; its director works on the last CPU.
    pub fn build(
        lab: &Lab,
        host: &str,
        number: usize,
        kind: Kind,
        sinks: &mut Programs,
    ) -> Result<Self> {
        let host = lab.host(host);
        let (way_in, way_out) = (format!("i{number}"), format!("o{number}"));
        let (generator, sink) = (format!("g{number}"), format!("s{number}"));
        for (inside, outside, mac) in [(&way_in, &generator, 1), (&way_out, &sink, 3)] {
            let namespace = host.namespace();
            ip(&format!(
                "link add {outside} type veth peer name {inside} address 02:00:00:00:00:0{mac} \
                 netns {namespace}"
            ))?;
            ip(&format!("link set {outside} up"))?;
            host.ip(&format!("link set {inside} up"))?;
            // Frames of XDP arrive where NAPI runs. GRO has it run without a program as well, and
            // its change is noticed on devices that are up.
            ethtool(&["-K", outside, "gro", "off"])?;
            ethtool(&["-K", outside, "gro", "on"])?;
            host.run(&format!("ethtool -K {inside} gro off"))?;
            host.run(&format!("ethtool -K {inside} gro on"))?;
        }
        host.ip("link set lo up")?;
        host.ip(&format!("addr add 10.8.0.1/24 dev {way_in}"))?;
        host.ip(&format!("addr add 10.9.0.1/24 dev {way_out}"))?;
        host.ip(&format!(
            "neigh add 10.8.0.2 lladdr 02:00:00:00:00:02 nud permanent dev {way_in}"
        ))?;
        host.ip(&format!(
            "neigh add 10.9.0.2 lladdr 02:00:00:00:00:04 nud permanent dev {way_out}"
        ))?;
        host.ip("route add 172.16.0.0/12 via 10.8.0.2")?;
        host.sysctl("net.ipv4.ip_forward", "1")?;
        sinks.sink(&sink)?;
        let (mut director, mut programs) = (None, None);
        match kind {
            Kind::Bare | Kind::BareTc => {
                programs = Some(bare(&host, &way_in, &way_out, kind == Kind::BareTc)?);
            }
            Kind::Forward => {}
            Kind::Nft => dnat(&host)?,
            Kind::Ipvs => {
                // It sees what is for the host itself only.
                for vip in [NAT, DR] {
                    let (addr, _) = vip.split_once(':').context("an address and a port")?;
                    host.ip(&format!("addr add {addr}/32 dev lo"))?;
                }
                services(|words| Ok(host.run(&format!("ipvsadm {words}"))?))?;
            }
            Kind::Rvs(mode) => director = Some(rvs(&host, mode, &way_in, &way_out)?),
        }
        give_a_core(&host, &way_in)?;
        Ok(Self { generator: index(&generator)?, _director: director, _programs: programs })
    }
}

fn bare(host: &Host, way_in: &str, way_out: &str, by_tc: bool) -> Result<Programs> {
    host.enter(|| -> Result<Programs> {
        let mut programs = Programs::load()?;
        programs.redirect(way_in, index(way_out)?, by_tc)?;
        Ok(programs)
    })?
}

/// What IPVS's masquerading does, by nftables.
pub fn dnat(host: &Host) -> Result<()> {
    let rules = "add table ip t\n\
         add chain ip t in { type nat hook prerouting priority dstnat; }\n\
         add rule ip t in ip daddr 10.200.0.1 meta l4proto { tcp, udp } dnat to 10.9.0.2\n";
    let path = host.lab_dir().join("dnat.nft");
    std::fs::write(&path, rules)?;
    host.run(&format!("nft -f {}", path.display()))?;
    // Flows without answers are forgotten after half a minute otherwise.
    host.sysctl("net.netfilter.nf_conntrack_udp_timeout", "600")?;
    Ok(())
}

fn rvs(host: &Host, mode: &str, way_in: &str, way_out: &str) -> Result<Director> {
    let args = ["--mode", mode, "--interface", way_in, "--interface", way_out];
    let log = host.lab_dir().join(format!("{}-rvsd.log", host.name()));
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    let director = Director::start_beside(host, &args).with_context(said)?;
    services(|words| Ok(director.ipvsadm(words)?))?;
    Ok(director)
}

/// The two services, by an ipvsadm.
fn services(ipvsadm: impl Fn(&str) -> Result<String>) -> Result<()> {
    for (vip, method) in [(NAT, "-m"), (DR, "-g")] {
        ipvsadm(&format!("-A -u {vip} -s wlc"))?;
        ipvsadm(&format!("-a -u {vip} -r {SERVER} {method}"))?;
    }
    Ok(())
}

/// Has the packets that come in by an interface processed by a thread, on the last CPU.
pub fn give_a_core(host: &Host, interface: &str) -> Result<()> {
    // `ip netns exec` has the namespace's own /sys.
    let write = format!("echo 1 > /sys/class/net/{interface}/threaded");
    let status = Command::new("ip")
        .args(["netns", "exec", &host.namespace(), "sh", "-c", &write])
        .status()?;
    ensure!(status.success(), "no thread for {interface}");
    let last = last_cpu()?;
    let threads = threads(&format!("napi/{interface}-"))?;
    ensure!(!threads.is_empty(), "no thread napi/{interface}-*");
    for thread in threads {
        rustix::thread::sched_setaffinity(Some(thread), &only(last)).context("pin the director")?;
    }
    Ok(())
}

/// Kernel threads by the beginning of their name.
fn threads(name: &str) -> Result<Vec<Pid>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let path = entry?.path();
        let comm = std::fs::read_to_string(path.join("comm")).unwrap_or_default();
        if comm.starts_with(name) {
            let number = path.file_name().and_then(|name| name.to_str()?.parse().ok());
            found.extend(number.and_then(Pid::from_raw));
        }
    }
    Ok(found)
}

/// The last CPU.
pub fn last_cpu() -> Result<usize> {
    let cpus = aya::util::online_cpus().map_err(|(_, error)| error)?;
    Ok(*cpus.last().context("a CPU")? as usize)
}

/// Moves this thread to a CPU, for good.
pub fn stay_on(cpu: usize) -> Result<()> {
    rustix::thread::sched_setaffinity(None, &only(cpu)).context("stay on one CPU")
}

/// A set of one CPU.
fn only(cpu: usize) -> CpuSet {
    let mut set = CpuSet::new();
    set.set(cpu);
    set
}

fn ip(line: &str) -> Result<()> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let status = Command::new("ip").args(&words).status()?;
    ensure!(status.success(), "ip {line}");
    Ok(())
}

fn ethtool(words: &[&str]) -> Result<()> {
    let status = Command::new("ethtool").args(words).status()?;
    ensure!(status.success(), "ethtool {}", words.join(" "));
    Ok(())
}
