//! Two CPUs at once: look-ups while another inserts and deletes, and both doing that.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::report::Report;
use crate::table::{KINDS, Table};

const ROUNDS: usize = 5;
/// Repeats a system call. A run is one RCU reader, so this is also what a grace period waits for;
/// by TC, because an XDP test run waits for two grace periods itself.
const CHUNK: u32 = 4096;
const LIVE: u32 = 1 << 20;

/// Prints the costs.
pub fn measure() -> Result<()> {
    let title = format!("Two CPUs, {LIVE} live and up to {} more, capacity {}", LIVE / 4, 2 * LIVE);
    let mut report = Report::new(title, &KINDS.map(|kind| kind.name));
    let mut tables = Vec::new();
    for kind in KINDS {
        let table = Table::new(kind, 2 * LIVE)?;
        table.run("insert", &mut table.flows(0, LIVE), LIVE)?;
        tables.push(table);
    }
    for _ in 0..ROUNDS {
        for table in &tables {
            speed(table, &mut report)?;
        }
    }
    report.print(&["sets4", "sets8", "leap4", "leap8"]);
    Ok(())
}

/// Prints how often a look-up had another flow's data, in a small table under heavy reuse.
pub fn check() -> Result<()> {
    let title = "Correctness: capacity 256, 64 of 128 (A) or 256 (B) flows in turn".to_owned();
    let mut report = Report::new(title, &["hash", "lazy", "sets4", "sets8", "no grace period"]);
    for kind in KINDS.into_iter().filter(|kind| kind.name != "leap8") {
        let wait = kind.name != "leap4";
        let column = if wait { kind.name } else { "no grace period" };
        let table = Table::new(kind, 256)?;
        let flows = if kind.ways == 0 { 128 } else { 256 };
        for (calls, what) in
            [(0, "at once"), (3, "100 ns later"), (256, "9 µs later"), (4096, "140 µs later")]
        {
            let (reader, inserted) = both(
                |stop| read(&table, "tc_hold", flows, calls, stop),
                |stop| match kind.ways {
                    0 => swap(&table, 64, stop),
                    _ => churn(&table, 0, 64, wait, stop).map(|churn| churn.inserted),
                },
                Duration::from_millis(1500),
            )?;
            report.add(&format!("read {what}: found"), column, reader.found as f64);
            report.add(&format!("read {what}: another flow's data"), column, reader.wrong as f64);
            report.add(&format!("read {what}: inserts"), column, inserted as f64);
        }
    }
    report.print(&[]);
    Ok(())
}

fn speed(table: &Table, report: &mut Report) -> Result<()> {
    let name = table.kind.name;
    let batch = LIVE / 8;
    let time = Duration::from_millis(400);
    let idle = |stop: &AtomicBool| {
        while !stop.load(Relaxed) {
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    };
    let (empty, ()) = both(|stop| read(table, "tc_empty", LIVE, 0, stop), idle, time / 4)?;
    let (alone, ()) = both(|stop| read(table, "tc_find", LIVE, 0, stop), idle, time / 2)?;
    report.add("look-up alone, ns", name, alone.nanos - empty.nanos);
    let (reader, writer) = both(
        |stop| read(table, "tc_find", LIVE, 0, stop),
        |stop| churn(table, LIVE, batch, true, stop),
        time,
    )?;
    report.add("look-up, other CPU inserts and deletes, ns", name, reader.nanos - empty.nanos);
    report.add("- insert meanwhile, ns", name, writer.insert_nanos() - empty.nanos);
    report.add("- inserts/s, each deleted, thousands", name, writer.rate() / 1e3);
    report.add("- failed inserts in a million", name, writer.failed_in_a_million());
    report.add("- look-ups with another flow's data", name, reader.wrong as f64);
    let (one, two) = both(
        |stop| churn(table, LIVE, batch / 2, true, stop),
        |stop| churn(table, LIVE + (1 << 28), batch / 2, true, stop),
        time,
    )?;
    let nanos = (one.insert_nanos() + two.insert_nanos()) / 2.0;
    report.add("both insert and delete: insert, ns", name, nanos - empty.nanos);
    report.add(
        "- inserts/s of both, each deleted, thousands",
        name,
        (one.rate() + two.rate()) / 1e3,
    );
    Ok(())
}

#[derive(Default)]
struct Reader {
    nanos: f64,
    found: u64,
    wrong: u64,
}

fn read(table: &Table, program: &str, range: u32, pause: u32, stop: &AtomicBool) -> Result<Reader> {
    let mut run = table.flows(0, range);
    run.pause = pause;
    // A long run would make grace periods long.
    let chunk = (CHUNK / (1 + pause)).max(1);
    let (mut total, mut chunks) = (0.0, 0);
    while !stop.load(Relaxed) {
        total += table.run(program, &mut run, chunk)?;
        chunks += 1;
    }
    Ok(Reader { nanos: total / f64::from(chunks), found: run.done, wrong: run.wrong })
}

#[derive(Default)]
struct Churn {
    inserted: u64,
    failed: u64,
    inserting: Duration,
    /// All that it did, but waiting for grace periods.
    busy: Duration,
}

impl Churn {
    fn failed_in_a_million(&self) -> f64 {
        self.failed as f64 * 1e6 / (self.inserted + self.failed) as f64
    }

    fn insert_nanos(&self) -> f64 {
        self.inserting.as_nanos() as f64 / (self.inserted + self.failed) as f64
    }

    fn rate(&self) -> f64 {
        self.inserted as f64 / self.busy.as_secs_f64()
    }
}

/// Inserts `batch` flows, ends the `batch` before, and so on through four batches again and again:
/// entries pass from flow to flow.
fn churn(table: &Table, first: u32, batch: u32, wait: bool, stop: &AtomicBool) -> Result<Churn> {
    let mut churn = Churn::default();
    let (begin, mut waited) = (Instant::now(), Duration::ZERO);
    let chunk = CHUNK.min(batch);
    let half = |round: u32| table.flows(first + round % 4 * batch, batch);
    for round in 1.. {
        if stop.load(Relaxed) {
            break;
        }
        let (mut run, mut old) = (half(round), half(round - 1));
        run.expires = round;
        for _ in 0..batch / chunk {
            let nanos = table.run("tc_insert", &mut run, chunk)? * f64::from(chunk);
            churn.inserting += Duration::from_nanos(nanos as u64);
        }
        churn.inserted += run.done;
        churn.failed += run.missed;
        if table.kind.ways > 0 {
            waited += table.sweep(round - 1, wait)?.grace;
            continue;
        }
        for _ in 0..batch / chunk {
            table.run("tc_delete", &mut old, chunk)?;
        }
    }
    churn.busy = begin.elapsed() - waited;
    // What is left does not disturb the next round.
    if table.kind.ways > 0 {
        table.sweep(u32::MAX / 4, true)?;
    } else {
        for round in 0..4 {
            table.run("tc_delete", &mut half(round), batch)?;
        }
    }
    Ok(churn)
}

/// A only: one flow ends, another begins, `live` of them at a time; the number of inserts.
fn swap(table: &Table, live: u32, stop: &AtomicBool) -> Result<u64> {
    let mut run = table.flows(0, live);
    while !stop.load(Relaxed) {
        table.run("tc_swap", &mut run, CHUNK)?;
    }
    Ok(run.done)
}

/// Runs `one` on CPU 0 and `two` on CPU 1 for `time`.
fn both<A: Send, B: Send>(
    one: impl FnOnce(&AtomicBool) -> Result<A> + Send,
    two: impl FnOnce(&AtomicBool) -> Result<B> + Send,
    time: Duration,
) -> Result<(A, B)> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let one = scope.spawn(|| pin(0).and_then(|()| one(&stop)));
        let two = scope.spawn(|| pin(1).and_then(|()| two(&stop)));
        thread::sleep(time);
        stop.store(true, Relaxed);
        let join = "a measuring thread does not panic";
        Ok((one.join().expect(join)?, two.join().expect(join)?))
    })
}

fn pin(cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}
