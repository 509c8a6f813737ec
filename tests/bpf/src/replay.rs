//! Replays a recording of the kernel: commands, packets, and the time between them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::frame::{Flags, build};
use crate::{Bench, Hook, Outcome, Verdict, dest, fwmark, service};
use rvs_core::conn::FREE;
use rvs_core::control::{Change, Datapath};
use rvs_core::sysctl::{self, Kind};
use rvs_core::time::ticks;
use rvs_core::types::{
    DestConfig, Engine, Family, ForwardMethod, Protocol, Scheduler, ServiceConfig, ServiceFlags,
    ServiceKey,
};
use rvs_datapath::env::now;
use rvs_datapath::sweeper;

struct Service {
    key: ServiceKey,
    config: ServiceConfig,
    /// In the order in which they were added.
    dests: Vec<DestConfig>,
}

/// A connection or template as the kernel's `/proc/net/ip_vs_conn` shows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    /// `TCP`, `UDP`.
    pub protocol: String,
    /// Client; port 0 in a template.
    pub client: SocketAddr,
    /// Virtual address.
    pub vip: SocketAddr,
    /// Destination.
    pub dest: SocketAddr,
    /// State.
    pub state: String,
    /// Seconds left.
    pub expires: u32,
}

/// A data path, its services and its clock.
pub struct Replay {
    /// The data path.
    pub bench: Bench,
    hook: Hook,
    services: Vec<Service>,
    /// Tick of the recording's second 0 by the machine's clock.
    start: u32,
    /// Ticks by which the connections were aged beyond the machine's clock.
    aged: u32,
}

impl Replay {
    /// Nothing configured, at the recording's second 0.
    pub fn new(hook: Hook) -> Self {
        Self { bench: Bench::new(), hook, services: Vec::new(), start: now().0, aged: 0 }
    }

    /// Runs an ipvsadm command line.
    pub fn command(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let value = |flag: &str| {
            let flag = words.iter().position(|word| *word == flag)?;
            words.get(flag + 1).filter(|word| !word.starts_with('-')).copied()
        };
        let number = |flag: &str| value(flag).and_then(|word| word.parse().ok());
        let at = |at: &str| -> SocketAddr { at.parse().expect("an address and a port") };
        let sctp = value("--sctp-service").map(at);
        let key = match (value("-f"), value("-t"), value("-u")) {
            _ if let Some(vip) = sctp => service(Protocol::Sctp, &vip.ip().to_string(), vip.port()),
            (Some(mark), ..) => {
                let family = if words.contains(&"-6") { Family::V6 } else { Family::V4 };
                fwmark(family, mark.parse().expect("a mark"))
            }
            (_, Some(vip), _) => service(Protocol::Tcp, &at(vip).ip().to_string(), at(vip).port()),
            (.., vip) => {
                let vip = at(vip.expect("a service"));
                service(Protocol::Udp, &vip.ip().to_string(), vip.port())
            }
        };
        let position = self.services.iter().position(|service| service.key == key);
        let (change, config) = match words[0] {
            "-A" | "-E" => {
                let timeout = words.contains(&"-p").then(|| number("-p").unwrap_or(360));
                let mut flags = ServiceFlags::empty();
                flags.set(ServiceFlags::PERSISTENT, timeout.is_some());
                flags.set(ServiceFlags::ONEPACKET, words.contains(&"-o"));
                let mask = value("-M").map(|mask| match mask.parse::<Ipv4Addr>() {
                    Ok(mask) => mask.to_bits(),
                    Err(_) => mask.parse().expect("a prefix length"),
                });
                let whole = if key.family() == Family::V4 { u32::MAX } else { 128 };
                let netmask = mask.unwrap_or(whole);
                let scheduler = value("-s").and_then(Scheduler::from_name).expect("a scheduler");
                let timeout = timeout.unwrap_or(0);
                flags.set(ServiceFlags::ONEPACKET, words.contains(&"-o"));
                let engine = value("--pe").and_then(Engine::from_name);
                (
                    Change::Service,
                    Some(ServiceConfig { scheduler, flags, timeout, netmask, engine }),
                )
            }
            "-D" => {
                self.services.remove(position.expect("a known service"));
                assert!(self.bench.datapath.remove_service(&key), "{line}");
                return;
            }
            _ => (Change::Dests, None),
        };
        let position = position.unwrap_or_else(|| {
            let config = config.expect("-A comes first");
            self.services.push(Service { key, config, dests: Vec::new() });
            self.services.len() - 1
        });
        let service = &mut self.services[position];
        service.config = config.unwrap_or(service.config);
        if let Some(server) = value("-r") {
            // A fwmark service's need no port.
            let server = match server.parse() {
                Ok(addr) => SocketAddr::new(addr, 0),
                Err(_) => at(server),
            };
            let forward = match words.iter().find(|word| matches!(**word, "-g" | "-i")) {
                Some(&"-g") => ForwardMethod::DirectRoute,
                Some(_) => ForwardMethod::Tunnel,
                None => ForwardMethod::Masquerade,
            };
            let weight = number("-w").unwrap_or(1);
            let mut new = dest(&server.ip().to_string(), server.port(), forward, weight);
            new.upper_threshold = number("-x").unwrap_or(0);
            new.tunnel_type = match value("--tun-type") {
                Some("gue") => 1,
                Some("gre") => 2,
                _ => 0,
            };
            new.tunnel_port = value("--tun-port").map_or(0, |port| port.parse().expect("a port"));
            let known = service.dests.iter().position(|dest| dest.key == new.key);
            match (words[0], known) {
                ("-a", None) => service.dests.push(new),
                ("-e", Some(index)) => service.dests[index] = new,
                ("-d", Some(index)) => drop(service.dests.remove(index)),
                _ => panic!("{line}"),
            }
        }
        self.bench.change(key, service.config, &service.dests, change);
    }

    /// Goes on to a second of the recording, sweeping twice a second as rvsd does.
    pub fn advance(&mut self, second: f64) {
        let tick = |second: f64| (second * 7.450_580_6) as u32;
        let elapsed = now().0.wrapping_sub(self.start);
        self.wait(tick(second).saturating_sub(self.aged + elapsed));
    }

    /// Goes on by some ticks, sweeping twice a second, and once in any case.
    pub fn wait(&mut self, mut left: u32) {
        if left == 0 {
            self.sweep();
        }
        while left > 0 {
            let step = left.min(ticks(1) / 2);
            self.age(step);
            left -= step;
        }
    }

    /// Goes on by some seconds, sweeping twice in each.
    pub fn pass_seconds(&mut self, seconds: u32) {
        for half in 0..2 * seconds {
            self.age(ticks(half + 1) / 2 - ticks(half) / 2);
        }
    }

    /// Makes every connection some ticks older, and sweeps once.
    fn age(&mut self, step: u32) {
        self.bench.age(step);
        self.sweep();
        self.aged += step;
    }

    /// Sweeps once.
    pub fn sweep(&mut self) {
        sweeper::pass(self.bench.datapath.maps());
        self.bench.datapath.tick();
    }

    /// Changes a setting.
    pub fn set(&mut self, name: &'static str, value: &str) {
        let kind = sysctl::find(name).expect("a setting");
        let (sysctl, value) = Kind::parse(kind, name, value).expect("a fitting value");
        self.bench.datapath.set_sysctl(sysctl, value).expect("it can be set");
    }

    /// Sends a packet (letters of TCP flags, or `udp`); where it went, if it was forwarded.
    pub fn packet(&mut self, src: SocketAddr, dst: SocketAddr, flags: &str) -> Option<SocketAddr> {
        self.marked(src, dst, flags, 0)
    }

    /// The same for a packet with a mark.
    pub fn marked(
        &mut self,
        src: SocketAddr,
        dst: SocketAddr,
        flags: &str,
        mark: u32,
    ) -> Option<SocketAddr> {
        let protocol = if flags == "udp" { Protocol::Udp } else { Protocol::Tcp };
        let has = |letter| protocol == Protocol::Tcp && flags.contains(letter);
        let letters = Flags { syn: has('S'), ack: has('A'), fin: has('F'), rst: has('R') };
        let frame = build(protocol, src, dst, letters, b"");
        let outcome = self.frame(&frame, mark);
        // An ICMP error is sent, too, but not forwarded.
        let upper = if dst.is_ipv4() { 14 + 9 } else { 14 + 6 };
        let forwarded =
            outcome.verdict == Verdict::Sent && outcome.frame.get(upper) == frame.get(upper);
        forwarded.then(|| crate::frame::read(&outcome.frame).dst)
    }

    /// Gives a frame to the hook, and what XDP passes to TC.
    pub fn frame(&mut self, frame: &[u8], mark: u32) -> Outcome {
        let outcome = self.bench.run_marked(self.hook, frame, mark);
        if self.hook == Hook::Xdp && outcome.verdict == Verdict::Pass {
            return self.bench.run_marked(Hook::Tc, frame, mark);
        }
        outcome
    }

    /// Every service with its configuration and its destinations, the one added last first.
    pub fn services(&self) -> impl Iterator<Item = (ServiceKey, ServiceConfig, Vec<DestConfig>)> {
        let newest_first = |dests: &[DestConfig]| dests.iter().rev().copied().collect();
        self.services.iter().map(move |s| (s.key, s.config, newest_first(&s.dests)))
    }

    /// The connections and templates.
    pub fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        self.bench.datapath.for_each_conn(&mut |row| {
            rows.push(Row {
                protocol: match row.protocol {
                    0 => "IP".into(),
                    6 => "TCP".into(),
                    132 => "SCTP".into(),
                    _ => "UDP".into(),
                },
                client: SocketAddr::new(row.client, row.client_port),
                vip: SocketAddr::new(row.virtual_addr, row.virtual_port),
                dest: SocketAddr::new(row.dest, row.dest_port),
                state: row.state.into(),
                expires: row.expires,
            });
            true
        });
        rows.sort();
        rows
    }

    /// Of a destination: method, weight, active and inactive connections, templates. The port of
    /// a destination is that of its service in these recordings.
    pub fn dest(&self, addr: IpAddr, port: u16) -> Option<(&'static str, [u32; 4])> {
        let service = self.services.iter().find(|s| has(s, addr, port))?;
        self.status(service, addr, port)
    }

    /// The same of the service that was added last of those that have the destination.
    pub fn last_dest(&self, addr: IpAddr, port: u16) -> Option<(&'static str, [u32; 4])> {
        let service = self.services.iter().rfind(|s| has(s, addr, port))?;
        self.status(service, addr, port)
    }

    fn status(
        &self,
        service: &Service,
        addr: IpAddr,
        port: u16,
    ) -> Option<(&'static str, [u32; 4])> {
        let dest = service.dests.iter().find(|d| d.key.addr == addr && d.key.port == port)?;
        let status = self.bench.datapath.dest_status(&service.key, &dest.key);
        let method = match dest.forward {
            ForwardMethod::Masquerade => "Masq",
            ForwardMethod::Tunnel => "Tunnel",
            _ => "Route",
        };
        let counts = [status.active_conns, status.inactive_conns, status.persist_conns];
        Some((method, [dest.weight, counts[0], counts[1], counts[2]]))
    }

    /// The number of destinations of services at this port.
    pub fn dests_at(&self, port: u16) -> usize {
        let at =
            |key: &ServiceKey| matches!(key, ServiceKey::Address { port: p, .. } if *p == port);
        self.services.iter().filter(|s| at(&s.key)).map(|s| s.dests.len()).sum()
    }

    /// Lets everything expire: nothing may be left, in the table or in any count.
    pub fn end(mut self) {
        // The longest timeout is 15 minutes; templates outlive their connections by one, and what
        // schedulers remember goes with its service.
        (0..20).for_each(|_| self.age(ticks(60)));
        assert_eq!(self.rows(), []);
        let maps = self.bench.datapath.maps();
        let used4 = maps.conns4.iter().flat_map(|set| &set.ways);
        let used6 = maps.conns6.iter().flat_map(|set| &set.ways);
        let used = used4.filter(|conn| conn.word.get() != FREE).count()
            + used6.filter(|conn| conn.word.get() != FREE).count();
        assert_eq!(used, 0, "entries that are never cleared");
        let call_ids = maps.call_ids.iter().filter(|call_id| call_id.used.get() != 0).count();
        assert_eq!(call_ids, 0, "Call-IDs that are never given back");
        for service in &self.services {
            for dest in &service.dests {
                let status = self.bench.datapath.dest_status(&service.key, &dest.key);
                let counts = (status.active_conns, status.inactive_conns, status.persist_conns);
                assert_eq!(counts, (0, 0, 0), "{:?}", dest.key);
            }
        }
    }
}

fn has(service: &Service, addr: IpAddr, port: u16) -> bool {
    service.dests.iter().any(|dest| dest.key.addr == addr && dest.key.port == port)
}
