//! The real programs on single packets: each test runs in a network namespace of its own (its
//! process starts itself again there) with routes and fixed neighbours, so that what the kernel's
//! FIB answers is known.
#![forbid(unsafe_code)]

pub mod frame;
pub mod linux61;
pub mod pieces;
pub mod receiver;
pub mod replay;
pub mod sctp;

use std::path::{Path, PathBuf};
use std::process::Command;

use aya::TestRun as _;
use aya::programs::{TestRunOptions, TestRunResult};
use rvs_core::conn::{CACHE, Word};
use rvs_core::control::{Change, Datapath};
use rvs_core::layout::{Conn, INTERFACE_KNOWN, INTERFACE_XDP, Interface};
use rvs_core::limit::Settings;
use rvs_core::sched::cache::SET;
use rvs_core::types::{
    DestConfig, DestKey, Family, ForwardMethod, Protocol, Scheduler, ServiceConfig, ServiceFlags,
    ServiceKey,
};
use rvs_datapath::{BpfDatapath, Object, Sizes};
use rvs_tables::Memory as _;

/// Set in the process that runs in the namespace.
const INSIDE: &str = "RVS_TEST_INSIDE";

/// Index of `eth0`.
pub const ETH0: u32 = 20;

/// MAC address of the director's interface.
pub const DIRECTOR: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// MAC address of every neighbour.
pub const NEIGHBOUR: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// Runs `body` in a network namespace: `eth0` is a veth device with 10.0.0.1/8, fd01::1/16 and
/// the MAC address [`DIRECTOR`], and every address that the tests use is a neighbour.
pub fn in_namespace(test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        network();
        body();
        return;
    }
    let exe = std::env::current_exe().expect("a test has an executable");
    let status = Command::new("unshare")
        .arg("--net")
        .arg(exe)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .status()
        .expect("unshare(1) of util-linux");
    assert!(status.success(), "{test} failed in its namespace (it needs root)");
}

/// Runs `ip WORDS` in the namespace of this process; panics if it fails.
pub fn ip(line: &str) {
    let status = Command::new("ip").args(line.split(' ')).status().expect("ip(8) of iproute2");
    assert!(status.success(), "ip {line}");
}

/// Sets up the network of the namespace that this process is in: see [`in_namespace`].
pub fn network() {
    ip("link set lo up");
    ip("link add eth0 index 20 address 02:00:00:00:00:01 type veth peer name peer");
    ip("link set peer up");
    ip("link set eth0 up");
    ip("addr add 10.0.0.1/8 dev eth0");
    ip("addr add fd01::1/16 dev eth0 nodad");
    neighbours();
    for file in ["ipv4", "ipv6"] {
        let path = format!("/proc/sys/net/{file}/conf/lo/forwarding");
        std::fs::write(&path, "1").unwrap_or_else(|e| panic!("{path}: {e}"));
    }
}

/// Makes the tests' addresses neighbours; again, once their network was taken from the interface.
pub fn neighbours() {
    for host in 2..60 {
        for addr in [format!("10.0.0.{host}"), format!("10.1.0.{host}"), format!("fd01::{host:x}")]
        {
            ip(&format!("neigh replace {addr} lladdr 02:00:00:00:00:02 nud permanent dev eth0"));
        }
    }
}

/// A recording of what the real kernel did, by its file's name: see `tests/oracle/README.md`.
pub fn read_recording(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../oracle/recorded").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Waits until the programs ask for the ways out again: they remember them for a tick.
pub fn next_tick() {
    let now = rvs_datapath::env::now();
    while rvs_datapath::env::now() == now {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    // They count jiffies, which may lag behind the clock by one.
    std::thread::sleep(std::time::Duration::from_millis(10));
}

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// `rvs_xdp`
    Xdp,
    /// `rvs_tc`
    Tc,
}

/// What a program did with a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The verdict, in one word for both hooks.
    pub verdict: Verdict,
    /// The frame as the program left it.
    pub frame: Vec<u8>,
}

/// A verdict of either hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// To the host.
    Pass,
    /// Dropped.
    Drop,
    /// Out of an interface.
    Sent,
    /// Anything else.
    Other(u32),
}

/// A loaded data path of its own, removed when dropped.
pub struct Bench {
    /// Its programs.
    pub object: Object,
    /// Its configuration.
    pub datapath: BpfDatapath,
    pin: PathBuf,
}

impl Bench {
    /// Loads the programs, with small maps.
    pub fn new() -> Self {
        Self::with_sizes(&Sizes { connections: 4096, services: 256, destinations: 4096 })
    }

    /// Loads the programs.
    pub fn with_sizes(sizes: &Sizes) -> Self {
        let pin = PathBuf::from(format!("/sys/fs/bpf/rvs-test-{}", std::process::id()));
        let _ = rvs_datapath::attach::remove(&pin);
        let (object, maps) = Object::load(&pin, sizes).unwrap_or_else(|e| panic!("{e}"));
        let datapath = BpfDatapath::adopt(maps);
        // Test runs arrive at the loopback unless told otherwise: an interface without a MAC.
        for interface in datapath.maps().interfaces.iter().take(64) {
            interface.set(Interface { mac: [0; 6], flags: INTERFACE_XDP });
        }
        // As on the machine that answers were recorded on.
        datapath.maps().limits().set(&Settings { ratemask: [0; 2], ..Settings::default() });
        Self { object, datapath, pin }
    }

    /// Gives a program one frame.
    pub fn run(&mut self, hook: Hook, frame: &[u8]) -> Outcome {
        self.run_marked(hook, frame, 0)
    }

    /// Gives a program one frame that netfilter or traffic control marked; XDP does not see marks.
    pub fn run_marked(&mut self, hook: Hook, frame: &[u8], mark: u32) -> Outcome {
        self.run_as(hook, frame, mark, 0)
    }

    /// Gives the TC program a super-packet with segments of this length: see `gso_size` of skbs.
    pub fn run_super(&mut self, frame: &[u8], gso_size: u32) -> Outcome {
        self.run_as(Hook::Tc, frame, 0, gso_size)
    }

    fn run_as(&mut self, hook: Hook, frame: &[u8], mark: u32, gso_size: u32) -> Outcome {
        let mut out = vec![0; 4096];
        // `mark`, `ifindex` and `gso_size` of `struct __sk_buff`: the frame arrives at eth0. For XDP
        // it is the loopback.
        let mut context = [0u8; 192];
        context[8..12].copy_from_slice(&mark.to_ne_bytes());
        context[40..44].copy_from_slice(&ETH0.to_ne_bytes());
        context[176..180].copy_from_slice(&gso_size.to_ne_bytes());
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: (hook == Hook::Tc).then_some(context.as_slice()),
            ..Default::default()
        };
        let TestRunResult { return_value, data_size_out, .. } = match hook {
            Hook::Xdp => self.object.xdp().expect("it is loaded").test_run(options),
            Hook::Tc => self.object.tc().expect("it is loaded").test_run(options),
        }
        .unwrap_or_else(|e| panic!("test run: {e}"));
        out.truncate(data_size_out as usize);
        let verdict = match (hook, return_value) {
            (Hook::Xdp, 2) | (Hook::Tc, u32::MAX) => Verdict::Pass,
            (Hook::Xdp, 1) | (Hook::Tc, 2) => Verdict::Drop,
            (Hook::Xdp, 3 | 4) | (Hook::Tc, 7) => Verdict::Sent,
            (_, other) => Verdict::Other(other),
        };
        Outcome { verdict, frame: out }
    }

    /// Opens the slow path, as rvsd does; its device is [`ETH0`].
    pub fn open_slow_path(&self) {
        let maps = self.datapath.maps();
        maps.slow[0].ifindex.set(ETH0);
        maps.slow[0].until.set(rvs_datapath::env::now().after(100_000).0);
        let flags = INTERFACE_KNOWN | INTERFACE_XDP;
        maps.interfaces[ETH0 as usize].set(Interface { mac: DIRECTOR, flags });
    }

    /// Gives the program behind the slow path one frame.
    pub fn put_back(&mut self, frame: &[u8]) -> Outcome {
        let mut out = vec![0; 4096];
        let options =
            TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..Default::default() };
        let program = self.object.back().expect("it is loaded");
        let result = program.test_run(options).unwrap_or_else(|e| panic!("test run: {e}"));
        out.truncate(result.data_size_out as usize);
        let verdict = match result.return_value {
            7 => Verdict::Sent,
            2 => Verdict::Drop,
            other => Verdict::Other(other),
        };
        Outcome { verdict, frame: out }
    }

    /// Puts a service in force; destinations in the order in which they are to be added.
    pub fn service(&mut self, key: ServiceKey, scheduler: Scheduler, dests: &[DestConfig]) {
        let flags = ServiceFlags::empty();
        let config =
            ServiceConfig { scheduler, flags, timeout: 0, netmask: u32::MAX, engine: None };
        self.service_with(key, config, dests);
    }

    /// The same with all of its configuration.
    pub fn service_with(&mut self, key: ServiceKey, config: ServiceConfig, dests: &[DestConfig]) {
        self.change(key, config, dests, Change::Dests);
    }

    /// The same, saying what the change is about.
    pub fn change(
        &mut self,
        key: ServiceKey,
        config: ServiceConfig,
        dests: &[DestConfig],
        change: Change,
    ) {
        let newest_first: Vec<DestConfig> = dests.iter().rev().copied().collect();
        let mut known = 0;
        self.datapath.for_each_service(&mut |k, _, dests| {
            if *k == key {
                known = dests.len();
            }
        });
        // One more destination at a time, as ipvsadm adds them: wrr's position remembers it.
        for count in (known + 1)..newest_first.len() {
            let part = newest_first.get(newest_first.len() - count..).unwrap_or_default();
            self.datapath.put_service(&key, &config, part, Change::Dests).expect("there is room");
        }
        self.datapath.put_service(&key, &config, &newest_first, change).expect("there is room");
        for (index, addr) in self.datapath.take_new() {
            let source = if addr.is_ipv4() { "10.0.0.1" } else { "fd01::1" };
            self.datapath.set_source(index, source.parse().expect("a literal"));
        }
    }

    /// Makes every connection some ticks older.
    pub fn age(&self, ticks: u32) {
        let maps = self.datapath.maps();
        maps.conns4.iter().flat_map(|set| &set.ways).for_each(|conn| age(conn, ticks));
        maps.conns6.iter().flat_map(|set| &set.ways).for_each(|conn| age(conn, ticks));
    }

    /// How many packets were counted for a reason.
    pub fn reason(&self, reason: rvs_core::reason::Reason) -> u64 {
        self.datapath.maps().reason(reason)
    }
}

impl Default for Bench {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = rvs_datapath::attach::remove(&self.pin);
    }
}

fn age<A: Copy>(conn: &Conn<A>, step: u32) {
    conn.expires.set(conn.expires.get().wrapping_sub(step));
    let word = Word(conn.word.get());
    if word.has(CACHE) && word.state() == SET {
        conn.control.set(conn.control.get().wrapping_sub(step));
    }
}

/// A service's key.
pub fn service(protocol: Protocol, addr: &str, port: u16) -> ServiceKey {
    ServiceKey::Address { protocol, addr: addr.parse().expect("an address"), port }
}

/// The key of a fwmark service.
pub fn fwmark(family: Family, mark: u32) -> ServiceKey {
    ServiceKey::Fwmark { family, mark }
}

/// A destination.
pub fn dest(addr: &str, port: u16, forward: ForwardMethod, weight: u32) -> DestConfig {
    DestConfig {
        key: DestKey { addr: addr.parse().expect("an address"), port },
        forward,
        weight,
        upper_threshold: 0,
        lower_threshold: 0,
        tunnel_type: 0,
        tunnel_port: 0,
        tunnel_flags: 0,
    }
}
