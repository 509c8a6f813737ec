//! Samples, and the Markdown table of their medians.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use rvs_tests_bpf::Hook;

/// What costs are compared with: the row's name.
pub const BARE: &str = "bare XDP_TX, or redirect";
/// Likewise.
pub const LOOK_UP: &str = "parse + one hash look-up";
/// Likewise, for new connections.
pub const INSERT: &str = "parse + one hash insert";

/// Samples by row, hook (XDP is false) and column.
#[derive(Default)]
pub struct Report {
    rows: Vec<&'static str>,
    columns: Vec<u32>,
    samples: BTreeMap<(usize, bool, u32), Vec<f64>>,
}

impl Report {
    /// Adds a sample of a row with `live` connections.
    pub fn add(&mut self, row: &'static str, hook: Hook, live: u32, nanos: f64) {
        let index = self.rows.iter().position(|known| *known == row).unwrap_or_else(|| {
            self.rows.push(row);
            self.rows.len() - 1
        });
        if !self.columns.contains(&live) {
            self.columns.push(live);
        }
        self.samples.entry((index, hook == Hook::Tc, live)).or_default().push(nanos);
    }

    /// The median of a row's samples.
    pub fn median(&self, row: &str, tc: bool, live: u32) -> Option<f64> {
        let index = self.rows.iter().position(|known| *known == row)?;
        let mut samples = self.samples.get(&(index, tc, live))?.clone();
        samples.sort_by(f64::total_cmp);
        samples.get(samples.len() / 2).copied()
    }

    /// All medians, named `PREFIX/HOOK/ROW/LIVE`.
    pub fn medians(&self, prefix: &str) -> Vec<(String, f64)> {
        let name = |(row, tc, live): &(usize, bool, u32)| {
            let (hook, row) = (if *tc { "tc" } else { "xdp" }, self.rows.get(*row)?);
            Some((format!("{prefix}/{hook}/{row}/{live}"), self.median(row, *tc, *live)?))
        };
        self.samples.keys().filter_map(name).collect()
    }

    /// A table for each hook. A cell: nanoseconds a packet, wrapper included; the ratio to the bare
    /// program; the ratio to the look-up, for new connections to the insert.
    pub fn markdown(&self, family: &str) -> String {
        let mut text = String::new();
        for (tc, hook) in [(false, "XDP"), (true, "TC")] {
            let heads: String = self.columns.iter().map(|live| format!(" {live} |")).collect();
            let rules = "---:|".repeat(self.columns.len());
            writeln!(text, "| {family}, {hook} |{heads}\n|---|{rules}").expect("to memory");
            for row in &self.rows {
                let cells: String =
                    self.columns.iter().map(|live| self.cell(row, tc, *live)).collect();
                writeln!(text, "| {row} |{cells}").expect("to memory");
            }
            text.push('\n');
        }
        text
    }

    fn cell(&self, row: &str, tc: bool, live: u32) -> String {
        let Some(nanos) = self.median(row, tc, live) else { return " |".into() };
        let reference = if row.starts_with("new") { INSERT } else { LOOK_UP };
        let ratio = |to: &str| match self.median(to, tc, live) {
            Some(other) if row != to => format!(" · {:.2}", nanos / other),
            _ => " · –".into(),
        };
        format!(" {nanos:.0}{}{} |", ratio(BARE), ratio(reference))
    }
}
