//! The pinned maps, opened: arrays as memory, hashes and the counters of reasons by system call.

use std::cell::Cell;
use std::io;
use std::path::Path;

use aya::maps::{Map, MapData, MapError, PerCpuArray};
use rvs_core::addr::{V4, V6};
use rvs_core::fragment::{Note, NoteKey, Slow};
use rvs_core::layout::{
    CallId, Config, ConnSet, Dest, DestStats, Interface, LAYOUT_VERSION, MarkRule, ROWS_TOGETHER,
    Row, Slot, Version,
};
use rvs_core::limit::Limits;
use rvs_core::reason::Reason;
use rvs_core::table;

use crate::memory::Mapped;
use crate::object::OpenError;

/// Names of all maps, as in `crates/ebpf/src/maps.rs`.
pub const MAPS: [&str; 30] = [
    "CONFIG",
    "SERVICES4",
    "SERVICES6",
    "SLOTS",
    "VERSIONS",
    "ROWS",
    "MARKS",
    "TABLES",
    "DESTS",
    "DEST_STATS",
    "CONNS4",
    "CONNS6",
    "TAGS4",
    "TAGS6",
    "PASSING4",
    "PASSING6",
    "ASKED",
    "CALL_IDS",
    "REAL_SERVERS4",
    "REAL_SERVERS6",
    "REASONS",
    "ICMP_LIMITS",
    "RECEIVERS",
    "ICMP_REQUEST",
    "SCRATCH",
    "PROGRAMS",
    "INTERFACES",
    "NOTES",
    "SLOW",
    "SLOW_REASONS",
];

/// Capacities; they hold until the pinned maps are removed.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Connections per address family; rounded up to a power of two. A masqueraded connection
    /// takes two of the [`ENTRIES`](rvs_core::layout::ENTRIES) for each.
    pub connections: u32,
    /// Services.
    pub services: u32,
    /// Destinations, of all services together.
    pub destinations: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { connections: 1 << 17, services: 1 << 14, destinations: 1 << 17 }
    }
}

impl Sizes {
    /// Number of elements by map.
    pub(crate) fn entries(&self) -> [(&'static str, u32); 17] {
        let connections = self.connections.clamp(16, 1 << 26).next_power_of_two();
        let (sets, apart) = table::sets(connections);
        // What is more than a map can have is refused by the kernel, not taken for less.
        let (services, destinations) = (self.services, self.destinations.max(1).saturating_add(1));
        let rows = destinations.saturating_mul(4).saturating_add(4096);
        let cpus = aya::util::nr_cpus().map_or(1 << 12, |cpus| cpus as u32);
        // Room for the old and the new version of everything, and for what waits to be freed.
        [
            ("SERVICES4", services),
            ("SERVICES6", services),
            ("SLOTS", services.saturating_add(1)),
            ("VERSIONS", services.saturating_mul(2).saturating_add(1024)),
            ("ROWS", rows.div_ceil(ROWS_TOGETHER as u32)),
            ("TABLES", services.saturating_mul(256).clamp(65_536, 1 << 22)),
            ("DESTS", destinations),
            ("DEST_STATS", destinations.saturating_mul(cpus)),
            ("CONNS4", sets),
            ("CONNS6", sets),
            ("TAGS4", apart),
            ("TAGS6", apart),
            // One Call-ID for every four connections.
            ("CALL_IDS", connections / 4),
            ("REAL_SERVERS4", destinations),
            ("REAL_SERVERS6", destinations),
            ("PASSING4", cpus),
            ("PASSING6", cpus),
        ]
        .map(|(name, entries)| (name, entries.max(1)))
    }
}

/// The maps of one data path.
pub struct Maps {
    /// See [`Config`].
    pub config: Mapped<Config>,
    /// See [`Slot`].
    pub slots: Mapped<Slot>,
    /// See [`Version`].
    pub versions: Mapped<Version>,
    /// See [`Row`].
    pub rows: Mapped<[Cell<Row>; ROWS_TOGETHER]>,
    /// Tables of hashing schedulers; the kernel pads each word to eight bytes.
    pub tables: Mapped<[Cell<u32>; 2]>,
    /// See [`MarkRule`].
    pub marks: Mapped<Cell<MarkRule>>,
    /// See [`Dest`].
    pub dests: Mapped<Dest>,
    /// See [`DestStats`].
    pub(crate) dest_stats: Mapped<DestStats>,
    /// See [`Interface`].
    pub interfaces: Mapped<Cell<Interface>>,
    /// See [`Slow`].
    pub slow: Mapped<Slow>,
    /// See [`Limits`].
    pub limits: Mapped<Limits>,
    /// Packets by [`Reason`], counted by rvsd.
    pub slow_reasons: Mapped<Cell<u64>>,
    /// The IPv4 connection table.
    pub conns4: Mapped<ConnSet<V4>>,
    /// The IPv6 connection table.
    pub conns6: Mapped<ConnSet<V6>>,
    /// Tags of the IPv4 connection table's first two parts.
    pub tags4: Mapped<Cell<u64>>,
    /// Those of the IPv6 connection table.
    pub tags6: Mapped<Cell<u64>>,
    /// See [`CallId`].
    pub call_ids: Mapped<CallId>,
    pub(crate) real_servers4: aya::maps::HashMap<MapData, [u8; 8], u32>,
    pub(crate) real_servers6: aya::maps::HashMap<MapData, [u8; 20], u32>,
    pub(crate) services4: aya::maps::HashMap<MapData, [u8; 8], u32>,
    pub(crate) services6: aya::maps::HashMap<MapData, [u8; 20], u32>,
    reasons: PerCpuArray<MapData, u64>,
    notes: aya::maps::HashMap<MapData, [u32; 10], [u32; 8]>,
}

fn failed(name: &'static str, reason: impl ToString) -> OpenError {
    OpenError::Map { name, reason: reason.to_string() }
}

fn open(pin: &Path, name: &'static str) -> Result<MapData, OpenError> {
    MapData::from_pin(pin.join("maps").join(name)).map_err(|e| failed(name, e))
}

fn mapped<T>(pin: &Path, name: &'static str) -> Result<Mapped<T>, OpenError> {
    let map = open(pin, name)?;
    let info = map.info().map_err(|e| failed(name, e))?;
    if (info.value_size() as usize).next_multiple_of(8) != size_of::<T>() {
        return Err(failed(name, format!("values of {} bytes", info.value_size())));
    }
    use std::os::fd::AsFd;
    Mapped::new(map.fd().as_fd(), info.max_entries()).map_err(|e: io::Error| failed(name, e))
}

impl Maps {
    /// Opens the maps that are pinned below `pin`.
    pub fn open(pin: &Path) -> Result<Self, OpenError> {
        let hash = |name| -> Result<Map, OpenError> {
            Map::from_map_data(open(pin, name)?).map_err(|e| failed(name, e))
        };
        Ok(Self {
            config: mapped(pin, "CONFIG")?,
            slots: mapped(pin, "SLOTS")?,
            versions: mapped(pin, "VERSIONS")?,
            rows: mapped(pin, "ROWS")?,
            tables: mapped(pin, "TABLES")?,
            marks: mapped(pin, "MARKS")?,
            dests: mapped(pin, "DESTS")?,
            dest_stats: mapped(pin, "DEST_STATS")?,
            interfaces: mapped(pin, "INTERFACES")?,
            slow: mapped(pin, "SLOW")?,
            limits: mapped(pin, "ICMP_LIMITS")?,
            slow_reasons: mapped(pin, "SLOW_REASONS")?,
            conns4: mapped(pin, "CONNS4")?,
            conns6: mapped(pin, "CONNS6")?,
            tags4: mapped(pin, "TAGS4")?,
            tags6: mapped(pin, "TAGS6")?,
            call_ids: mapped(pin, "CALL_IDS")?,
            real_servers4: hash("REAL_SERVERS4")?
                .try_into()
                .map_err(|e: MapError| failed("REAL_SERVERS4", e))?,
            real_servers6: hash("REAL_SERVERS6")?
                .try_into()
                .map_err(|e: MapError| failed("REAL_SERVERS6", e))?,
            services4: hash("SERVICES4")?
                .try_into()
                .map_err(|e: MapError| failed("SERVICES4", e))?,
            services6: hash("SERVICES6")?
                .try_into()
                .map_err(|e: MapError| failed("SERVICES6", e))?,
            reasons: hash("REASONS")?.try_into().map_err(|e: MapError| failed("REASONS", e))?,
            notes: hash("NOTES")?.try_into().map_err(|e: MapError| failed("NOTES", e))?,
        })
    }

    /// Fails if maps of another layout are pinned below `pin`; fine if there are none.
    pub(crate) fn check_layout(pin: &Path) -> Result<(), OpenError> {
        if !pin.join("maps/CONFIG").exists() {
            return Ok(());
        }
        let config: Mapped<Config> = mapped(pin, "CONFIG")?;
        let found = config.first().map_or(0, |config| config.layout.get());
        // 0: made by an rvsd that was killed before it wrote anything.
        if found == LAYOUT_VERSION || found == 0 {
            return Ok(());
        }
        Err(OpenError::Layout { path: pin.to_owned(), found, expected: LAYOUT_VERSION })
    }

    /// The configuration element.
    pub fn config(&self) -> &Config {
        self.config.first().expect("CONFIG has one element, checked when it was mapped")
    }

    /// Writes the configuration of new maps; adopted ones stay as they are.
    pub(crate) fn initialise(&self) {
        if self.config().layout.get() == LAYOUT_VERSION {
            return;
        }
        rvs_tables::initialise(self, random());
    }

    /// The note that a datagram's first fragment left.
    pub fn note(&self, key: &NoteKey) -> Option<Note> {
        let [[a, b, c, d], [e, f, g, h]] = [key.src, key.dst];
        let key = [a, b, c, d, e, f, g, h, key.id_be, key.protocol];
        let [tick, word, dest, ports, target @ ..] = self.notes.get(&key, 0).ok()?;
        let [a, b, c, d] = ports.to_ne_bytes();
        let ports = [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d])];
        Some(Note { tick, word, dest, ports, target })
    }

    /// Packets by reason, in the order of [`Reason::ALL`]: see [`Self::reason`].
    pub fn reasons(&self) -> Vec<(Reason, u64)> {
        Reason::ALL.iter().map(|reason| (*reason, self.reason(*reason))).collect()
    }

    /// Packets counted for a reason, summed over CPUs and with those that rvsd counted.
    pub fn reason(&self, reason: Reason) -> u64 {
        let values = self.reasons.get(&(reason as u32), 0);
        let counted: u64 = values.map_or(0, |values| values.iter().sum());
        counted + self.slow_reasons.get(reason as usize).map_or(0, Cell::get)
    }
}

/// 64 random bits for the hash's seed.
fn random() -> u64 {
    let mut bytes = [0u8; 8];
    let read = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    match read {
        Ok(8) => u64::from_ne_bytes(bytes),
        // Only before the kernel's generator is ready; the clock is better than nothing.
        _ => {
            let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
            (now.tv_sec as u64) << 30 ^ now.tv_nsec as u64
        }
    }
}
