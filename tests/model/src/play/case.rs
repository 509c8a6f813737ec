//! What happens in a case: data, so that proptest can leave out of a failing one what does not
//! matter.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use proptest::collection::vec;
use proptest::prelude::*;
use rvs_core::types::{
    DestConfig, DestKey, Family, ForwardMethod, Protocol, Scheduler, ServiceConfig, ServiceFlags,
    ServiceKey, Timeouts,
};

use crate::{Jiffies, Settings, jiffies};

/// Services of a case.
pub(super) const SERVICES: usize = 2;
/// Servers that may be destinations, and clients.
const SERVERS: u8 = 4;
const CLIENTS: u8 = 4;

/// A case: services, and what happens to them.
#[derive(Clone)]
pub struct Case {
    /// Addresses are of IPv6.
    pub v6: bool,
    /// Settings from the start.
    pub settings: Settings,
    /// The services that there are at the start, without destinations.
    pub services: [Spec; SERVICES],
    /// What happens then.
    pub steps: Vec<Step>,
}

/// What of an address a service is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Port 80.
    Port,
    /// All ports; it is persistent.
    AnyPort,
    /// Packets with a mark.
    Mark,
}

/// A service.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// What it is for.
    pub place: Place,
    /// Its scheduler.
    pub scheduler: Scheduler,
    /// Flags of the scheduler, one-packet scheduling.
    pub flags: ServiceFlags,
    /// Persistence, if it has it.
    pub persistence: Option<Persistence>,
}

/// Persistence of a service.
#[derive(Clone, Copy, Debug)]
pub struct Persistence {
    /// Timeout.
    pub seconds: u32,
    /// Whether a template is for a whole network of clients.
    pub network: bool,
}

/// A destination.
#[derive(Clone, Copy, Debug)]
pub struct Server {
    /// Which server.
    pub number: u8,
    /// How packets get to it.
    pub forward: ForwardMethod,
    /// Weight.
    pub weight: u32,
    /// Upper and lower threshold.
    pub thresholds: (u32, u32),
}

/// Whose packets.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// To the address of which service.
    pub service: usize,
    /// Which client.
    pub client: u8,
    /// From which of its ports; 2 is FTP's data port.
    pub port: u16,
    /// To port 80 (0) or 81 (1).
    pub to: u16,
}

/// What happens. Services are meant by their number in the case.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// A client's packet: TCP flags, bytes of payload. One without SYN may be of another flow,
    /// which is known.
    Client(Flow, &'static str, usize),
    /// What the destination of that client's connection, or of another's, sends to it.
    Server(Flow, &'static str, usize),
    /// Time passes.
    Wait(Jiffies),
    /// `ipvsadm -a`, or `-e` if it is known.
    Dest(usize, Server),
    /// `ipvsadm -d`
    DeleteDest(usize, u8),
    /// `ipvsadm -E` of everything but the name, or `-A` if it was deleted.
    Service(usize, Spec),
    /// `ipvsadm -D`
    DeleteService(usize),
    /// `ipvsadm --set`
    Set(Timeouts),
    /// `ipvsadm -Z`
    Zero(usize),
}

impl fmt::Debug for Case {
    /// A line for each thing, in proptest's reports, too.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "IPv{}, {:?}", if self.v6 { 6 } else { 4 }, self.settings)?;
        for (number, spec) in self.services.iter().enumerate() {
            writeln!(f, "service {number}: {spec:?}")?;
        }
        for (number, step) in self.steps.iter().enumerate() {
            writeln!(f, "step {number}: {step:?}")?;
        }
        Ok(())
    }
}

impl Case {
    fn address(&self, v4: [u8; 4], last: u8) -> IpAddr {
        if self.v6 {
            Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, last.into()).into()
        } else {
            Ipv4Addr::from(v4).into()
        }
    }

    /// Address of a client; the first two are of one network.
    pub(super) fn client(&self, client: u8) -> IpAddr {
        let network = u8::from(client >= 2);
        self.address([10, network, 0, 20 + client], 0x20 + 8 * network + client % 2)
    }

    /// Virtual address of a service.
    pub(super) fn vip(&self, service: usize) -> IpAddr {
        self.address([10, 0, 0, 8 + service as u8], 8 + service as u8)
    }

    /// The mark of a service's packets, or 0.
    pub(super) fn mark(&self, service: usize) -> u32 {
        if self.services[service].place == Place::Mark { 7 + service as u32 } else { 0 }
    }

    /// Name of a service.
    pub(super) fn key(&self, service: usize) -> ServiceKey {
        let Spec { protocol, place, .. } = self.services[service];
        let addr = self.vip(service);
        match place {
            Place::Port => ServiceKey::Address { protocol, addr, port: 80 },
            Place::AnyPort => ServiceKey::Address { protocol, addr, port: 0 },
            Place::Mark => {
                ServiceKey::Fwmark { family: Family::of(addr), mark: self.mark(service) }
            }
        }
    }

    /// Configuration of a service. All ports need persistence.
    pub(super) fn config(&self, service: usize, spec: &Spec) -> ServiceConfig {
        let any_port = self.services[service].place == Place::AnyPort;
        let fallback = any_port.then_some(Persistence { seconds: 50, network: false });
        let persistence = spec.persistence.or(fallback);
        let mut flags = spec.flags;
        flags.set(ServiceFlags::PERSISTENT, persistence.is_some());
        let network = persistence.is_some_and(|persistence| persistence.network);
        let netmask = match (self.v6, network) {
            (false, false) => u32::MAX,
            (false, true) => 0xffff_0000,
            (true, false) => 128,
            (true, true) => 125,
        };
        let timeout = persistence.map_or(0, |persistence| persistence.seconds);
        ServiceConfig { scheduler: spec.scheduler, flags, timeout, netmask, engine: None }
    }

    /// Name of a destination. Every other server has another port than its service.
    pub(super) fn dest_key(&self, service: usize, server: u8) -> DestKey {
        let port = match self.services[service].place {
            _ if server % 2 == 1 => 8080,
            Place::Port => 80,
            Place::AnyPort | Place::Mark => 0,
        };
        DestKey { addr: self.address([10, 1, 0, 40 + server], 0x10 + server), port }
    }

    /// Configuration of a destination.
    pub(super) fn dest(&self, service: usize, server: &Server) -> DestConfig {
        let (upper_threshold, lower_threshold) = server.thresholds;
        DestConfig {
            key: self.dest_key(service, server.number),
            forward: server.forward,
            weight: server.weight,
            upper_threshold,
            lower_threshold,
            tunnel_type: 0,
            tunnel_port: 0,
            tunnel_flags: 0,
        }
    }

    /// Where a client's packets to a port come from: of no two virtual ports are a client's ports
    /// the same, because the answers of one server to one port belong to the newer connection only
    /// ("Ideal and reality").
    pub(super) fn client_at(&self, flow: &Flow) -> SocketAddr {
        let port = match flow.port {
            2 => 20,
            port => 1000 * (flow.service as u16 + 1) + 10 * flow.to + port,
        };
        SocketAddr::new(self.client(flow.client), port)
    }

    /// Where they go to.
    pub(super) fn virt(&self, flow: &Flow) -> SocketAddr {
        SocketAddr::new(self.vip(flow.service), 80 + flow.to)
    }
}

fn spec() -> impl Strategy<Value = Spec> {
    use Scheduler::{Dh, Fo, Lc, Nq, Ovf, Rr, Sed, Sh, Wlc, Wrr};
    let scheduler =
        prop::sample::select(vec![Rr, Wrr, Wrr, Lc, Wlc, Wlc, Sed, Nq, Fo, Ovf, Sh, Dh]);
    let flags = (any::<bool>(), any::<bool>(), prop::bool::weighted(0.1));
    let flags = flags.prop_map(|(fallback, port, one_packet)| {
        let mut flags = ServiceFlags::empty();
        flags.set(ServiceFlags::SCHED1, fallback);
        flags.set(ServiceFlags::SCHED2, port);
        flags.set(ServiceFlags::ONEPACKET, one_packet);
        flags
    });
    let protocol = prop::sample::select(vec![Protocol::Tcp, Protocol::Tcp, Protocol::Udp]);
    let place =
        prop_oneof![6 => Just(Place::Port), 1 => Just(Place::AnyPort), 1 => Just(Place::Mark)];
    let persistence = (prop::sample::select(vec![50, 100, 400]), any::<bool>())
        .prop_map(|(seconds, network)| Persistence { seconds, network });
    let persistence = prop::option::weighted(0.3, persistence);
    (protocol, place, scheduler, flags, persistence).prop_map(
        |(protocol, place, scheduler, flags, persistence)| Spec {
            protocol,
            place,
            scheduler,
            flags,
            persistence,
        },
    )
}

fn server() -> impl Strategy<Value = Server> {
    use ForwardMethod::{DirectRoute, Masquerade, Tunnel};
    let forward = prop_oneof![5 => Just(Masquerade), 2 => Just(DirectRoute), 1 => Just(Tunnel)];
    let weight = prop_oneof![1 => Just(0u32), 6 => 1u32..6];
    // ipvsadm refuses a lower one above the upper one.
    let set = (1u32..5, 0u32..5).prop_map(|(upper, lower)| (upper, lower.min(upper)));
    let thresholds = prop_oneof![2 => Just((0, 0)), 1 => set];
    (0..SERVERS, forward, weight, thresholds).prop_map(|(number, forward, weight, thresholds)| {
        Server { number, forward, weight, thresholds }
    })
}

fn settings() -> impl Strategy<Value = Settings> {
    let bits = (any::<bool>(), any::<bool>(), 0u8..4, prop::bool::weighted(0.1));
    bits.prop_map(|(expire_nodest_conn, expire_quiescent_template, conn_reuse_mode, sloppy_tcp)| {
        Settings { expire_nodest_conn, expire_quiescent_template, conn_reuse_mode, sloppy_tcp }
    })
}

/// A moment, or as long as something lives, or a little longer.
fn wait() -> impl Strategy<Value = Jiffies> {
    let seconds = prop::sample::select(vec![1, 2, 10, 30, 50, 60, 100, 120, 300, 900]);
    prop_oneof![1u64..30, (seconds, 0u64..3).prop_map(|(seconds, more)| jiffies(seconds) + more)]
}

fn step() -> impl Strategy<Value = Step> {
    let service = 0..SERVICES;
    let port = prop_oneof![20 => Just(0u16), 9 => Just(1), 1 => Just(2)];
    let flow = (service.clone(), 0..CLIENTS, port, prop::bool::weighted(0.07));
    let flow = flow.prop_map(|(service, client, port, to)| {
        let to = to.into();
        Flow { service, client, port, to }
    });
    let payload = prop::sample::select(vec![0usize, 0, 1, 17, 100]);
    let usual = prop::sample::select(vec!["S", "S", "S", "S", "A", "A", "FA", "R"]);
    let odd = prop::sample::select(vec!["", "F", "SA", "RA", "SF", "SR", "PA"]);
    let sent = prop_oneof![8 => usual, 1 => odd];
    let answers = vec!["SA", "SA", "A", "A", "FA", "FA", "R", "S", "RA", ""];
    let client = (flow.clone(), sent, payload.clone())
        .prop_map(|(flow, flags, payload)| Step::Client(flow, flags, payload));
    let answer = (flow, prop::sample::select(answers), payload)
        .prop_map(|(flow, flags, payload)| Step::Server(flow, flags, payload));
    let set = (20u32..1000, 20u32..200, 20u32..400)
        .prop_map(|(tcp, tcp_fin, udp)| Step::Set(Timeouts { tcp, tcp_fin, udp }));
    let dest = (service.clone(), server());
    let dest = dest.prop_map(|(service, server)| Step::Dest(service, server));
    let delete = (service.clone(), 0..SERVERS);
    let delete = delete.prop_map(|(service, server)| Step::DeleteDest(service, server));
    prop_oneof![
        50 => client,
        25 => answer,
        10 => wait().prop_map(Step::Wait),
        7 => dest,
        3 => delete,
        3 => (service.clone(), spec()).prop_map(|(service, spec)| Step::Service(service, spec)),
        1 => service.clone().prop_map(Step::DeleteService),
        1 => set,
        1 => service.prop_map(Step::Zero),
    ]
}

/// Cases of up to so many steps.
pub fn cases(steps: usize) -> impl Strategy<Value = Case> {
    let first = (0..SERVICES, server()).prop_map(|(service, server)| Step::Dest(service, server));
    let steps = (vec(first, 2..8), vec(step(), 1..steps)).prop_map(|(mut first, steps)| {
        first.extend(steps);
        first
    });
    (any::<bool>(), settings(), [spec(), spec()], steps)
        .prop_map(|(v6, settings, services, steps)| Case { v6, settings, services, steps })
}
