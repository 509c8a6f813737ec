//! The native core against the eBPF programs: random services with each scheduler, changed while
//! random packets arrive, in plain memory and in the kernel. Every packet that leaves is the same
//! byte for byte, so every pick is; so are all counts and counters.
//!
//! The seed is printed and part of every failure; `RVS_SEED` plays it again.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rvs_core::addr::{Addr, V4, V6};
use rvs_core::conn::{REPLY, TEMPLATE, Word};
use rvs_core::control::{Change, ConnRow, Datapath};
use rvs_core::flow::Ip;
use rvs_core::layout::ConnSet;
use rvs_core::nat;
use rvs_core::reason::Reason;
use rvs_core::types::{
    DestConfig, Family, ForwardMethod, Protocol, Scheduler, ServiceConfig, ServiceFlags, ServiceKey,
};
use rvs_sim::{Frame, Outcome, Plain, SimDatapath, Sizes};
use rvs_tables::Memory;
use rvs_tests_bpf::frame::{ACK, Flags, SYN, build, read};
use rvs_tests_bpf::{Bench, Hook, Verdict, dest, in_namespace, ip};

/// Services for each scheduler and hook.
const SERVICES: u32 = 150;
/// What happens to each: packets, changes, expiry.
const STEPS: u32 = 50;

const SCHEDULERS: [Scheduler; 5] =
    [Scheduler::Rr, Scheduler::Wrr, Scheduler::Lc, Scheduler::Wlc, Scheduler::Sh];

#[test]
fn native_and_xdp_picks_are_equal_on_random_services() {
    in_namespace("native_and_xdp_picks_are_equal_on_random_services", || play(Hook::Xdp));
}

#[test]
fn native_and_tc_picks_are_equal_on_random_services() {
    in_namespace("native_and_tc_picks_are_equal_on_random_services", || play(Hook::Tc));
}

fn play(hook: Hook) {
    let seed = match std::env::var("RVS_SEED") {
        Ok(text) => text.parse().expect("RVS_SEED is a number"),
        Err(_) => RandomState::new().hash_one(hook as u32),
    };
    println!("{hook:?}: RVS_SEED={seed}");
    // Where the clients are.
    ip("route add 10.16.0.0/12 via 10.0.0.2");
    ip("route add fd01:0:0:1::/64 via fd01::2");
    let mut twins = Twins::new(hook);
    for scheduler in SCHEDULERS {
        let before = twins.picks;
        for number in 0..SERVICES {
            twins.label = format!("RVS_SEED={seed} {hook:?} {scheduler} service {number}");
            let rng = Rng(seed ^ u64::from(scheduler as u32 * SERVICES + number) << 32);
            Case::new(rng, scheduler).play(&mut twins);
            if number % 20 == 19 {
                twins.compare_connections();
                twins.clear();
            }
        }
        let picks = twins.picks - before;
        println!("{hook:?} {scheduler}: {SERVICES} services, {picks} picks");
        assert!(picks > SERVICES * STEPS / 4, "{}: only {picks} picks", twins.label);
    }
    assert!(twins.refused > 50, "{}: only {} refused", twins.label, twins.refused);
}

/// SplitMix64 (Steele, Lea and Flood 2014).
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// A number below `end`.
    fn below(&mut self, end: u32) -> u32 {
        (self.next() % u64::from(end)) as u32
    }

    /// True once in `n`.
    fn one_in(&mut self, n: u32) -> bool {
        self.below(n) == 0
    }
}

/// The same data path twice.
struct Twins {
    hook: Hook,
    kernel: Bench,
    native: SimDatapath,
    label: String,
    /// Connections that both scheduled.
    picks: u32,
    /// Packets for which neither found a destination.
    refused: u32,
}

impl Twins {
    fn new(hook: Hook) -> Self {
        let kernel = Bench::new();
        // With the same seed, connections have the same places in tables of the same size.
        let maps = kernel.datapath.maps();
        let sizes = Sizes { sets: maps.conns4.len() as u32, ..Sizes::default() };
        let native = SimDatapath::adopt(Plain::new(&sizes, maps.config().seed.get()));
        let (label, picks, refused) = (String::new(), 0, 0);
        Self { hook, kernel, native, label, picks, refused }
    }

    /// Both have the same connections in the same places.
    fn compare_connections(&self) {
        let list = |datapath: &dyn Datapath| {
            let mut rows = Vec::new();
            datapath.for_each_conn(&mut |row| {
                rows.push(ConnRow { expires: 0, ..*row });
                true
            });
            rows
        };
        let (kernel, native) = (list(&self.kernel.datapath), list(&self.native));
        assert_eq!(kernel, native, "{}: in the kernel and natively", self.label);
    }

    fn each(&mut self, mut f: impl FnMut(&mut dyn Datapath)) {
        f(&mut self.kernel.datapath);
        f(&mut self.native);
    }

    /// Whether there is a connection of these addresses.
    fn is_known(&self, frame: &[u8]) -> bool {
        let (packet, mut known) = (read(frame), false);
        self.native.for_each_conn(&mut |row| {
            known |= !row.template
                && (row.client, row.client_port) == (packet.src.ip(), packet.src.port())
                && (row.virtual_addr, row.virtual_port) == (packet.dst.ip(), packet.dst.port());
            true
        });
        known
    }

    /// Gives both the frame; where it went, if it left.
    fn packet(&mut self, frame: &[u8], v6: bool) -> Option<SocketAddr> {
        let mut native = Frame::new(frame);
        // To XDP a finished checksum may look unfinished, once in 65,536 packets.
        if self.hook == Hook::Xdp
            && if v6 { unfinished::<V6>(&native) } else { unfinished::<V4>(&native) }
        {
            return None;
        }
        let label = &self.label;
        let in_place = self.hook == Hook::Xdp && self.is_known(frame);
        let mut kernel = self.kernel.run(self.hook, frame);
        let outcome = self.native.maps().run(&mut native);
        // XDP leaves to TC what takes the place of a connection that is over; TC may refuse it.
        if in_place && (kernel.verdict, kernel.frame == frame) == (Verdict::Pass, true) {
            let later = self.kernel.run(Hook::Tc, frame);
            if outcome == Outcome::Sent {
                kernel = later;
            }
        }
        let unchanged = kernel.frame == frame;
        match outcome {
            Outcome::Sent => {
                assert_eq!(kernel.verdict, Verdict::Sent, "{label}");
                let (kernel, native) = (read(&kernel.frame), read(native.bytes()));
                assert_eq!(kernel, native, "{label}: in the kernel and natively");
                return Some(native.dst);
            }
            Outcome::Drop(Reason::NoDest) if self.hook == Hook::Tc => {
                self.refused += 1;
                let counted = self.kernel.reason(Reason::NoDest);
                assert_eq!(counted, u64::from(self.refused), "{label}: {:?}", kernel.verdict);
            }
            Outcome::Drop(Reason::NoDest) => {
                assert_eq!((kernel.verdict, unchanged), (Verdict::Pass, true), "{label}");
                self.refused += 1;
            }
            Outcome::Drop(_) => assert_eq!(kernel.verdict, Verdict::Drop, "{label}: {outcome:?}"),
            Outcome::Held => panic!("{label}: no fragment was sent"),
            Outcome::Pass(_) => {
                assert_eq!((kernel.verdict, unchanged), (Verdict::Pass, true), "{label}");
            }
        }
        None
    }

    /// Ends the connections of the chosen client ports in both.
    fn expire(&mut self, family: Family, chosen: impl Fn(u16) -> bool) {
        expire(self.kernel.datapath.maps(), family, &chosen);
        expire(self.native.maps(), family, &chosen);
        rvs_datapath::sweeper::pass(self.kernel.datapath.maps());
        self.native.maps().sweep();
    }

    /// Places that nothing uses any more are free again.
    fn tick(&mut self) {
        self.kernel.datapath.tick();
        self.native.tick();
    }

    /// Ends what is left of services that are gone.
    fn clear(&mut self) {
        // Templates last until a sweep after that of their connections.
        for family in [Family::V4, Family::V6, Family::V4, Family::V6] {
            self.expire(family, |_| true);
        }
        self.tick();
        let label = self.label.clone();
        self.each(|datapath| {
            datapath.for_each_conn(&mut |row| panic!("{label}: left {row:?}"));
        });
    }
}

/// Whether the frame's checksum looks as if a device were to finish it.
fn unfinished<A: Ip>(frame: &Frame) -> bool {
    A::parse(frame).is_ok_and(|flow| nat::is_unfinished(frame, &flow))
}

/// Lets the time of the chosen client ports' connections come; a template's port is 0.
fn expire<M: Memory>(memory: &M, family: Family, chosen: &impl Fn(u16) -> bool) {
    fn set<A: Addr>(sets: &[ConnSet<A>], past: u32, chosen: &impl Fn(u16) -> bool) {
        for conn in sets.iter().flat_map(|set| &set.ways) {
            let word = Word(conn.word.get());
            let key = conn.key.get();
            let port = if word.has(REPLY) { key.dport_be } else { key.sport_be };
            let port = if word.has(TEMPLATE) { 0 } else { u16::from_be(port) };
            if word.is_live() && chosen(port) {
                conn.expires.set(past);
            }
        }
    }
    let past = memory.now().0.wrapping_sub(1);
    match family {
        Family::V4 => set(memory.conns4(), past, chosen),
        Family::V6 => set(memory.conns6(), past, chosen),
    }
}

/// One service and what happens to it.
struct Case {
    rng: Rng,
    protocol: Protocol,
    v6: bool,
    vip: SocketAddr,
    key: ServiceKey,
    config: ServiceConfig,
    /// The one added last comes first.
    dests: Vec<DestConfig>,
    /// Clients that sent something, and where it went.
    clients: Vec<(SocketAddr, Option<SocketAddr>)>,
}

impl Case {
    fn new(mut rng: Rng, scheduler: Scheduler) -> Self {
        let v6 = rng.one_in(2);
        let protocol = if rng.one_in(2) { Protocol::Tcp } else { Protocol::Udp };
        let addr = if v6 { "fd01::9" } else { "10.0.0.9" }.parse().expect("a literal");
        // Not a port of FTP, whose packets XDP leaves to TC.
        let vip = SocketAddr::new(addr, 100 + rng.below(1000) as u16);
        let mut flags = ServiceFlags::empty();
        flags.set(ServiceFlags::PERSISTENT, rng.one_in(8));
        if scheduler == Scheduler::Sh {
            flags.set(ServiceFlags::SCHED1, rng.one_in(2));
            flags.set(ServiceFlags::SCHED2, rng.one_in(2));
        }
        let netmask = match (v6, rng.one_in(2)) {
            (false, true) => u32::MAX,
            (false, false) => 0xffff_ff00,
            (true, true) => 128,
            (true, false) => 120,
        };
        let config = ServiceConfig { scheduler, flags, timeout: 300, netmask, engine: None };
        let key = ServiceKey::Address { protocol, addr: vip.ip(), port: vip.port() };
        Self { rng, protocol, v6, vip, key, config, dests: Vec::new(), clients: Vec::new() }
    }

    fn weight(&mut self) -> u32 {
        match self.rng.below(10) {
            0 | 1 => 0,
            2 | 3 => 1,
            4 => 1 + self.rng.below(1 << 20),
            _ => 1 + self.rng.below(12),
        }
    }

    /// A destination that the service does not have; any weight, sometimes thresholds.
    fn new_dest(&mut self) -> DestConfig {
        loop {
            let host = 10 + self.rng.below(50);
            let addr = if self.v6 { format!("fd01::{host:x}") } else { format!("10.1.0.{host}") };
            let port = [self.vip.port(), 8080, 8081][self.rng.below(3) as usize];
            let mut new = dest(&addr, port, ForwardMethod::Masquerade, self.weight());
            self.set_thresholds(&mut new);
            if self.dests.iter().all(|dest| dest.key != new.key) {
                return new;
            }
        }
    }

    fn set_thresholds(&mut self, dest: &mut DestConfig) {
        (dest.upper_threshold, dest.lower_threshold) = (0, 0);
        if self.rng.one_in(4) {
            dest.upper_threshold = 1 + self.rng.below(5);
            dest.lower_threshold = self.rng.below(dest.upper_threshold);
        }
    }

    fn put(&self, twins: &mut Twins, change: Change) {
        let Self { key, config, dests, .. } = self;
        twins.each(|datapath| {
            datapath.put_service(key, config, dests, change).expect("there is room");
        });
        twins.kernel.datapath.take_new();
        twins.native.take_new();
    }

    /// Weights, thresholds, destinations or the service itself change.
    fn change(&mut self, twins: &mut Twins) {
        let at = self.rng.below(self.dests.len() as u32) as usize;
        let mut change = Change::Dests;
        match self.rng.below(6) {
            0 if self.dests.len() < 60 => {
                let new = self.new_dest();
                self.dests.insert(0, new);
            }
            1 if self.dests.len() > 1 => drop(self.dests.remove(at)),
            2 => {
                let mut edited = self.dests[at];
                self.set_thresholds(&mut edited);
                self.dests[at] = edited;
            }
            3 => change = Change::Service,
            _ => self.dests[at].weight = self.weight(),
        }
        self.put(twins, change);
    }

    fn new_client(&mut self) -> SocketAddr {
        let [a, b, c, ..] = self.rng.next().to_be_bytes();
        // Few networks, so that some clients share one; never the director or a destination.
        let addr: IpAddr = if self.v6 {
            Ipv6Addr::new(0xfd01, 0, 0, 1, 0, 0, u16::from(b % 4), u16::from(c)).into()
        } else {
            Ipv4Addr::new(10, 16 + a % 16, b % 4, c).into()
        };
        SocketAddr::new(addr, 1024 + self.rng.below(60_000) as u16)
    }

    fn flags(&mut self) -> Flags {
        let fin = Flags { fin: true, ..ACK };
        [SYN, ACK, ACK, fin, fin, Flags::default()][self.rng.below(6) as usize]
    }

    fn frame(&mut self, src: SocketAddr, dst: SocketAddr, flags: Flags) -> Vec<u8> {
        let payload = self.rng.next().to_be_bytes();
        let len = self.rng.below(9) as usize;
        build(self.protocol, src, dst, flags, &payload[..len])
    }

    /// A new client's first packet.
    fn open(&mut self, twins: &mut Twins) {
        let client = self.new_client();
        let frame = self.frame(client, self.vip, SYN);
        let server = twins.packet(&frame, self.v6);
        twins.picks += u32::from(server.is_some());
        self.clients.push((client, server));
    }

    /// Another packet of a client that is known, or an answer to it.
    fn go_on(&mut self, twins: &mut Twins) {
        if self.clients.is_empty() {
            return;
        }
        let known = self.rng.below(self.clients.len() as u32) as usize;
        let (flags, answer) = (self.flags(), self.rng.one_in(3));
        let frame = match self.clients[known] {
            (client, Some(server)) if answer => self.frame(server, client, flags),
            (client, _) => self.frame(client, self.vip, flags),
        };
        twins.packet(&frame, self.v6);
    }

    /// Both have the same counts and counters.
    fn compare(&self, twins: &Twins) {
        let label = &twins.label;
        for dest in &self.dests {
            let kernel = twins.kernel.datapath.dest_status(&self.key, &dest.key);
            let native = twins.native.dest_status(&self.key, &dest.key);
            assert_eq!(kernel, native, "{label}: {:?} in the kernel and natively", dest.key);
        }
        let kernel = twins.kernel.datapath.service_stats(&self.key);
        let native = twins.native.service_stats(&self.key);
        assert_eq!(kernel, native, "{label}: in the kernel and natively");
    }

    fn play(mut self, twins: &mut Twins) {
        let (count, one_by_one) = (1 + self.rng.below(60), self.rng.one_in(2));
        self.put(twins, Change::Service);
        for _ in 0..count {
            let new = self.new_dest();
            self.dests.insert(0, new);
            if one_by_one {
                self.put(twins, Change::Dests);
            }
        }
        self.put(twins, Change::Dests);
        let family = if self.v6 { Family::V6 } else { Family::V4 };
        let label = twins.label.clone();
        for step in 0..STEPS {
            twins.label = format!("{label} step {step}");
            match self.rng.below(20) {
                0 | 1 => self.change(twins),
                2..5 => self.go_on(twins),
                5 if self.rng.one_in(3) => {
                    let rest = self.rng.below(3) as u16;
                    twins.expire(family, |port| port != 0 && port % 3 == rest);
                    if rest == 0 {
                        twins.tick();
                    }
                }
                _ => self.open(twins),
            }
            if step % 5 == 4 {
                self.compare(twins);
            }
        }
        twins.each(|datapath| assert!(datapath.remove_service(&self.key)));
    }
}
