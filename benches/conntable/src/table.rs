//! A loaded table: run its programs, and the parts that user space does.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use aya::maps::Map;
use aya::programs::{Program, TestRunOptions};
use aya::{Ebpf, EbpfLoader, TestRun};
use conntable_ebpf::{DEAD, FREE, Key, LIVE, Run, key};
use rustix::thread::{MembarrierCommand, membarrier};
use zerocopy::IntoBytes;

use crate::bpf::{self, Mapped};

/// A way to keep connections.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// As in the names of its map and programs.
    pub name: &'static str,
    /// Entries a set; 0 for hash maps.
    pub ways: usize,
}

/// All of them.
pub const KINDS: [Kind; 6] = [
    Kind { name: "hash", ways: 0 },
    Kind { name: "lazy", ways: 0 },
    Kind { name: "sets4", ways: 4 },
    Kind { name: "sets8", ways: 8 },
    Kind { name: "leap4", ways: 4 },
    Kind { name: "leap8", ways: 8 },
];

/// `expires` of entries that stay.
pub const STAYS: u32 = u32::MAX / 2;
/// `expires` of entries that are to be ended.
pub const ENDS: u32 = 1;

/// What a sweep did, and how long its parts took.
pub struct Sweep {
    /// Entries ended.
    pub ended: usize,
    /// Reading all entries, and marking those.
    pub scan: Duration,
    /// The RCU grace period.
    pub grace: Duration,
    /// Clearing them.
    pub clear: Duration,
}

/// One table of one kind.
pub struct Table {
    /// Its kind.
    pub kind: Kind,
    ebpf: Ebpf,
    memory: Option<Mapped>,
    sets: u32,
}

impl Table {
    /// An empty table.
    pub fn new(kind: Kind, capacity: u32) -> Result<Self> {
        let sets = capacity / kind.ways.max(1) as u32;
        let map = kind.name.to_uppercase();
        let object = include_bytes!(concat!(env!("OUT_DIR"), "/conntable.bpf.o"));
        let mut ebpf = EbpfLoader::new().map_max_entries(&map, sets).load(object)?;
        for (name, program) in ebpf.programs_mut() {
            if name.ends_with("empty") || name.contains(kind.name) {
                let loaded = match program {
                    Program::Xdp(program) => program.load(),
                    Program::SchedClassifier(program) => program.load(),
                    _ => bail!("{name}: neither XDP nor TC"),
                };
                loaded.with_context(|| name.to_owned())?;
            }
        }
        let mut table = Self { kind, ebpf, memory: None, sets };
        if kind.ways > 0 {
            table.memory = Some(Mapped::new(table.map()?, capacity as usize)?);
        }
        Ok(table)
    }

    fn map(&self) -> Result<BorrowedFd<'_>> {
        match self.ebpf.map(&self.kind.name.to_uppercase()).context("no such map")? {
            Map::Array(data) | Map::HashMap(data) => Ok(data.fd().as_fd()),
            _ => bail!("not the type of map that it should be"),
        }
    }

    /// Parameters of a run over `range` flows from `first` on.
    pub fn flows(&self, first: u32, range: u32) -> Run {
        // Other flows each time, or a large table would be measured in the cache.
        static RUNS: AtomicU64 = AtomicU64::new(1);
        let random = RUNS.fetch_add(1, Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let (seed, mask) = (0x243f_6a88_85a3_08d3, self.sets - 1);
        Run { random, seed, mask, first, range, expires: STAYS, ..Run::default() }
    }

    /// Runs a program `repeat` times; nanoseconds each by the kernel's clock, cut to whole ones,
    /// the wrapper included.
    pub fn run(&self, operation: &str, run: &mut Run, repeat: u32) -> Result<f64> {
        let name = match operation.split_once(' ') {
            _ if operation.ends_with("empty") => operation.to_owned(),
            Some((verb, probes)) => format!("{verb}_{}_{probes}", self.kind.name),
            None => format!("{operation}_{}", self.kind.name),
        };
        let input = *run;
        let options = TestRunOptions {
            data_in: Some(input.as_bytes()),
            data_out: Some(run.as_mut_bytes()),
            repeat,
            ..TestRunOptions::default()
        };
        let result = match self.ebpf.program(&name).context(name)? {
            Program::Xdp(program) => program.test_run(options)?,
            Program::SchedClassifier(program) => program.test_run(options)?,
            _ => bail!("neither XDP nor TC"),
        };
        ensure!(result.return_value == 2, "the program returned {}", result.return_value);
        Ok(result.duration.as_nanos() as f64)
    }

    /// Reads state and expiry of every entry; their sum, so that it is really done.
    pub fn scan(&self) -> Result<u64> {
        let Some(memory) = &self.memory else { return Ok(bpf::scan(self.map()?)?.0) };
        let word = |e: &bpf::Entry| (e.word.load(Relaxed) + e.expires.load(Relaxed)) as u64;
        Ok(memory.iter().map(word).sum())
    }

    /// B only: ends what expires by `now`. Without the grace period (`wait`) it is wrong.
    pub fn sweep(&self, now: u32, wait: bool) -> Result<Sweep> {
        let memory = self.memory.as_ref().context("a hash map has no sweep")?;
        let start = Instant::now();
        let ended: Vec<usize> = memory
            .iter()
            .enumerate()
            .filter(|(_, e)| e.word.load(Acquire) == LIVE && e.expires.load(Relaxed) <= now)
            .filter(|(_, e)| e.word.compare_exchange(LIVE, DEAD, AcqRel, Relaxed).is_ok())
            .map(|(index, _)| index)
            .collect();
        let scan = start.elapsed();
        let start = Instant::now();
        if wait {
            membarrier(MembarrierCommand::Global).context("wait for a grace period")?;
        }
        let grace = start.elapsed();
        let start = Instant::now();
        for entry in ended.iter().map(|&index| &memory[index]) {
            entry.key[0].store(0, Relaxed);
            entry.key[1].store(0, Relaxed);
            entry.word.store(FREE, Release);
        }
        Ok(Sweep { ended: ended.len(), scan, grace, clear: start.elapsed() })
    }

    /// A only: deletes flows by batch.
    pub fn delete_batch(&self, first: u32, count: u32) -> Result<Duration> {
        let keys: Vec<Key> = (first..first + count).map(key).collect();
        let start = Instant::now();
        bpf::delete(self.map()?, &keys)?;
        Ok(start.elapsed())
    }

    /// Memory of the map in MiB, by the kernel's account.
    pub fn memory(&self) -> Result<f64> {
        let path = format!("/proc/self/fdinfo/{}", self.map()?.as_raw_fd());
        let info = std::fs::read_to_string(path)?;
        let line = info.lines().find_map(|l| l.strip_prefix("memlock:")).context("no memlock")?;
        Ok(line.trim().parse::<f64>()? / f64::from(1 << 20))
    }
}
