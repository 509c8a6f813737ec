//! Where everything is measured: the network, the data path, and the programs around it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rvs_bench_ebpf::{Control, RVS};
use rvs_core::layout::{INTERFACE_KNOWN, INTERFACE_XDP, Interface};
use rvs_core::types::Family;
use rvs_datapath::Sizes;
use rvs_tests_bpf::frame::{ACK, Flags, SYN};
use rvs_tests_bpf::{Bench, DIRECTOR, ETH0, Hook, ip, network};

use crate::frames::{Client, template};
use crate::programs::Programs;

/// Port of all services.
pub const PORT: u16 = 80;
/// First of the flows that are opened while others live.
pub const FRESH: u32 = 1 << 22;

/// How large the maps are.
pub struct Room {
    /// See [`Sizes`].
    pub connections: u32,
    /// See [`Sizes`].
    pub services: u32,
    /// See [`Sizes`].
    pub destinations: u32,
    /// Entries of the hash that RVS is compared with.
    pub flows: u32,
}

/// See the module.
pub struct Stage {
    /// The data path.
    pub bench: Bench,
    /// The programs around it.
    pub programs: Programs,
}

impl Stage {
    /// Sets up the network, once in a process; `eth0` is an interface that XDP sends out of.
    pub fn new(room: &Room) -> Result<Self> {
        network();
        ip("route add default via 10.0.0.2");
        ip("route add default via fd01::2");
        // Test runs of XDP need a receive queue that XDP knows: veth has one with GRO.
        let status = Command::new("ethtool").args(["-K", "eth0", "gro", "on"]).status();
        ensure!(status.is_ok_and(|status| status.success()), "ethtool -K eth0 gro on");
        let Room { connections, services, destinations, flows } = *room;
        let mut bench = Bench::with_sizes(&Sizes { connections, services, destinations });
        let flags = INTERFACE_KNOWN | INTERFACE_XDP;
        let interface = bench.datapath.maps().interfaces.get(ETH0 as usize);
        interface.context("eth0's index")?.set(Interface { mac: DIRECTOR, flags });
        let programs = Programs::load(&mut bench, flows)?;
        Ok(Self { bench, programs })
    }

    /// Opens connections of `flows` to an IPv4 service and establishes them; with a `server` its
    /// answers are seen as well, as masquerading has it.
    pub fn establish(
        &mut self,
        vip: SocketAddr,
        server: Option<SocketAddr>,
        flows: std::ops::Range<u32>,
    ) -> Result<()> {
        let both = Flags { syn: true, ack: true, ..Flags::default() };
        let mut steps = vec![template(vip, Client::Sends, SYN)];
        steps.extend(server.map(|server| template(server, Client::Receives, both)));
        steps.push(template(vip, Client::Sends, ACK));
        for step in steps {
            let first = flows.start;
            let step = Control { program: RVS, first, mask: u32::MAX, in_turn: 1, ..step };
            self.programs.run(Hook::Xdp, Family::V4, &step, flows.end - flows.start)?;
        }
        Ok(())
    }
}

/// Where the maps of this process's data path are pinned.
pub fn pin() -> PathBuf {
    PathBuf::from(format!("/sys/fs/bpf/rvs-test-{}", std::process::id()))
}

/// The last CPU: the first has most of the machine's interrupts.
pub fn last_cpu() -> Result<usize> {
    let cpus = aya::util::online_cpus().map_err(|(_, error)| error)?;
    Ok(*cpus.last().context("a CPU")? as usize)
}

/// [`last_cpu`], where it is another than the first.
pub fn second_cpu() -> Result<usize> {
    let last = last_cpu()?;
    ensure!(last > 0, "this machine has one CPU");
    Ok(last)
}

/// Moves this thread to a CPU, for good.
pub fn stay_on(cpu: usize) -> Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set).context("stay on one CPU")
}
