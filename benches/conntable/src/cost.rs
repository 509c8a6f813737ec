//! What each operation costs one CPU, by number of live connections.

use std::time::Instant;

use anyhow::{Result, ensure};

use crate::report::Report;
use crate::table::{ENDS, KINDS, Table};

const ROUNDS: usize = 5;
const REPEAT: u32 = 1_000_000;
/// Flows from here on are never in a table.
const ABSENT: u32 = 1 << 30;

/// Prints one table for each number of connections.
pub fn measure() -> Result<()> {
    for live in [1, 1 << 16, 1 << 20, 1 << 23] {
        let capacity = (2 * live).max(1 << 14);
        let load = f64::from(live) / f64::from(capacity);
        let title = format!("{live} live, capacity {capacity}, load {load:.2}: ns each");
        let mut report = Report::new(title, &KINDS.map(|kind| kind.name));
        let mut tables = Vec::new();
        for kind in KINDS {
            let table = Table::new(kind, capacity)?;
            let mut run = table.flows(0, live);
            table.run("insert", &mut run, live)?;
            ensure!(run.missed <= u64::from(live) / 1000, "{}: {} failed", kind.name, run.missed);
            report.add("(failed inserts of the fill)", kind.name, run.missed as f64);
            tables.push(table);
        }
        for _ in 0..ROUNDS {
            for table in &tables {
                round(table, live, capacity, &mut report)?;
            }
        }
        for table in &tables {
            report.add("memory, MiB", table.kind.name, table.memory()?);
        }
        report.print(&["sets4", "sets8", "leap4", "leap8"]);
    }
    Ok(())
}

fn round(table: &Table, live: u32, capacity: u32, report: &mut Report) -> Result<()> {
    let name = table.kind.name;
    let empty = table.run("empty", &mut table.flows(0, live), REPEAT)?;
    report.add("(empty wrapper)", name, empty);
    for (row, program, first, range, found) in [
        ("look-up", "find", 0, live, true),
        ("look-up, each waits for the last", "chain", 0, live, true),
        ("look-up, 16 hot flows", "find", 0, live.min(16), true),
        ("look-up, miss", "find", ABSENT, live.max(1 << 16), false),
    ] {
        let mut run = table.flows(first, range);
        let nanos = table.run(program, &mut run, REPEAT)?;
        ensure!(run.wrong == 0, "{name}: {row}: {run:?}");
        let unexpected = if found { run.missed } else { run.done };
        ensure!(unexpected <= u64::from(REPEAT) / 1000, "{name}: {row}: {run:?}");
        report.add(row, name, nanos - empty);
    }

    let count = (capacity / 16).min(1 << 16);
    let empty = table.run("empty", &mut table.flows(0, live), count)?;
    let mut new = table.flows(live, count);
    new.expires = ENDS;
    let mut insert = || -> Result<u64> {
        let mut run = new;
        let nanos = table.run("insert", &mut run, count)?;
        report.add("insert", name, nanos - empty);
        Ok(run.done)
    };
    let each = f64::from(count);
    insert()?;
    if table.kind.ways == 0 {
        let nanos = table.run("delete", &mut new.clone(), count)?;
        insert()?;
        report.add("delete, from BPF", name, nanos - empty);
        let nanos = table.delete_batch(live, count)?.as_nanos() as f64 / each;
        report.add("delete, by batch or sweep", name, nanos);
    } else {
        let start = Instant::now();
        table.scan()?;
        let idle = start.elapsed().as_nanos() as f64;
        let sweep = table.sweep(ENDS, true)?;
        let work = (sweep.scan + sweep.clear).as_nanos() as f64;
        report.add("delete, by batch or sweep", name, work / sweep.ended.max(1) as f64);
        report.add("- of it not the scan itself", name, (work - idle) / sweep.ended.max(1) as f64);
        report.add("- grace period, µs a sweep", name, sweep.grace.as_nanos() as f64 / 1e3);
    }
    let start = Instant::now();
    table.scan()?;
    report.add("full sweep, reading only, ms", name, start.elapsed().as_nanos() as f64 / 1e6);
    Ok(())
}
