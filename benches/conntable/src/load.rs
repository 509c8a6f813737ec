//! How full a set-associative table may be: failed inserts and look-ups by load factor.

use anyhow::Result;

use crate::report::Report;
use crate::table::{ENDS, KINDS, STAYS, Table};

const CAPACITY: u32 = 1 << 18;
const REPEAT: u32 = 1_000_000;
const ROUNDS: usize = 5;
const LOADS: [(u32, &str); 4] = [(25, "0.25"), (50, "0.50"), (75, "0.75"), (90, "0.90")];

/// Prints the failed inserts, then the cost of look-ups with 4 probes.
pub fn measure() -> Result<()> {
    let columns = LOADS.map(|(_, name)| name);
    let title = format!("Failed inserts in a million, capacity {CAPACITY}, filled to this load");
    let mut failed = Report::new(title, &columns);
    let title =
        "Failed inserts in a million of the next 1% of the capacity, at this load".to_owned();
    let mut next = Report::new(title, &columns);
    let title = format!("ns each by load factor, capacity {CAPACITY}, 4 probes");
    let mut cost = Report::new(title, &columns);
    for kind in KINDS.into_iter().filter(|kind| kind.ways > 0) {
        for (probes, insert) in [(1, "insert 1"), (2, "insert 2"), (3, "insert 3"), (4, "insert")] {
            if kind.name.starts_with("leap") && probes < 4 {
                continue;
            }
            let table = Table::new(kind, CAPACITY)?;
            let (mut live, mut missed) = (0, 0);
            for (percent, load) in LOADS {
                let target = CAPACITY / 100 * percent;
                let mut run = table.flows(live, target - live);
                run.expires = if live == 0 { STAYS } else { ENDS };
                table.run(insert, &mut run, target - live)?;
                missed += run.missed;
                live = target;
                let row = format!("{}, {probes} probes", kind.name);
                failed.add(&row, load, missed as f64 * 1e6 / f64::from(live));
                let mut run = table.flows(1 << 29, CAPACITY / 100);
                run.expires = 0;
                table.run(insert, &mut run, CAPACITY / 100)?;
                next.add(&row, load, run.missed as f64 * 1e6 / f64::from(CAPACITY / 100));
                table.sweep(0, true)?;
                if probes == 4 {
                    look_ups(&table, live, load, "", &mut cost)?;
                }
            }
            if probes == 4 {
                table.sweep(ENDS, true)?;
                let live = CAPACITY / 100 * LOADS[0].0;
                look_ups(&table, live, LOADS[0].1, " after 0.90", &mut cost)?;
            }
        }
    }
    failed.print(&[]);
    next.print(&[]);
    cost.print(&[]);
    Ok(())
}

fn look_ups(table: &Table, live: u32, load: &str, when: &str, report: &mut Report) -> Result<()> {
    for _ in 0..ROUNDS {
        let empty = table.run("empty", &mut table.flows(0, live), REPEAT)?;
        for (what, first) in [("hit", 0), ("miss", 1 << 30)] {
            let nanos = table.run("find", &mut table.flows(first, live), REPEAT)?;
            report.add(&format!("{}, {what}{when}", table.kind.name), load, nanos - empty);
        }
    }
    Ok(())
}
