//! Kernel memory of the maps, as the kernel accounts it (`memlock` in fdinfo), by connection.

use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use aya::maps::MapData;
use rvs_core::types::{Family, ForwardMethod, Protocol, Scheduler};
use rvs_tests_bpf::{dest, service};

use crate::stage::{self, PORT, Room, Stage};
use crate::{Measured, table};

const VIP: &str = "10.200.0.2";
const SERVER: &str = "10.0.0.12";

/// Counts with the table made for as many connections, all of them masqueraded and there.
pub fn run(quick: bool) -> Result<Measured> {
    let connections = if quick { 1 << 14 } else { 1 << 20 };
    let room = Room { connections, services: 256, destinations: 4096, flows: 1 };
    let mut stage = Stage::new(&room)?;
    let key = service(Protocol::Tcp, VIP, PORT);
    stage.bench.service(key, Scheduler::Rr, &[dest(SERVER, PORT, ForwardMethod::Masquerade, 1)]);
    let at = |addr: &str| format!("{addr}:{PORT}").parse();
    stage.establish(at(VIP)?, Some(at(SERVER)?), 0..connections)?;
    let found = table::live(stage.bench.datapath.maps(), Family::V4);
    ensure!(table::holds(found as u32, 2 * connections), "{found} entries of {connections}");
    let mut maps = Vec::new();
    for entry in std::fs::read_dir(stage::pin().join("maps")).context("the pinned maps")? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        maps.extend(memlock(&entry.path())?.map(|bytes| (name, bytes)));
    }
    maps.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    let count = f64::from(connections);
    println!(
        "{connections} masqueraded connections over IPv4, two entries each ({found} found room), in \
         tables made for as\nmany: three entries a connection and family, so that a third stays free, \
         for templates too.\n\n| map | bytes | bytes a connection |\n|---|---:|---:|"
    );
    for (name, bytes) in maps.iter().filter(|(_, bytes)| *bytes >= 1 << 16) {
        println!("| {name} | {bytes} | {:.1} |", *bytes as f64 / count);
    }
    let of = |name: &str| {
        let map = maps.iter().find(|map| map.0 == name).map(|map| map.1 as f64);
        map.with_context(|| format!("no pinned map {name}"))
    };
    let table = of("CONNS4")? + of("TAGS4")?;
    let all: u64 = maps.iter().map(|(_, bytes)| *bytes).sum();
    println!("| all | {all} | {:.1} |", all as f64 / count);
    println!("\nIn use of the IPv4 table: {:.1} bytes a connection.", found as f64 * 64.0 / count);
    Ok([
        // To the byte: the map itself takes a page.
        ("memory/connection".to_owned(), (table / count).round()),
        ("memory/connection, in use".to_owned(), found as f64 * 64.0 / count),
        ("memory/connection, all maps".to_owned(), all as f64 / count),
    ]
    .into())
}

/// The accounted bytes of a pinned map; nothing for what is pinned there that is none.
fn memlock(path: &Path) -> Result<Option<u64>> {
    let Ok(map) = MapData::from_pin(path) else { return Ok(None) };
    let info = format!("/proc/self/fdinfo/{}", map.fd().as_fd().as_raw_fd());
    let text = std::fs::read_to_string(&info)?;
    let line = text.lines().find_map(|line| line.strip_prefix("memlock:"));
    Ok(Some(line.context("no memlock in fdinfo")?.trim().parse()?))
}
