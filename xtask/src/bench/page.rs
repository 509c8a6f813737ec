//! docs/benchmarks.md: the machine, the goals, what the parts printed, the curves.

use std::fmt::Write as _;
use std::process::Command;

use super::goals::{Goal, Measured};
use crate::sh::{stdout, workspace};

/// Where a run took place.
pub struct Machine {
    /// Commit of the tree, with a plus when something is not committed.
    pub commit: String,
    kernel: String,
    processor: String,
    load: String,
    date: String,
}

impl Machine {
    /// This machine, now.
    pub fn this() -> Self {
        let git = |words: &[&str]| stdout(Command::new("git").current_dir(workspace()).args(words));
        let dirty = git(&["status", "--porcelain"]).is_some_and(|files| !files.is_empty());
        let commit = git(&["rev-parse", "--short", "HEAD"]).unwrap_or_else(|| "unknown".into());
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let info = read("/proc/cpuinfo");
        let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            commit: commit + if dirty { "+" } else { "" },
            kernel: stdout(Command::new("uname").arg("-srm")).unwrap_or_default(),
            processor: format!("{count} × {}", model.map_or("unknown CPU", |(_, name)| name)),
            load: read("/proc/loadavg").split(' ').next().unwrap_or_default().into(),
            date: stdout(Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]))
                .unwrap_or_default(),
        }
    }
}

/// The table of goals.
pub fn goals(goals: &[Goal], measured: &Measured) -> String {
    let mut text =
        String::from("| goal | limit | measured | met | made of |\n|---|---|---:|---|---|\n");
    for goal in goals {
        let (limit, unit) = (goal.limit.words(), goal.figure.unit());
        let value = goal.figure.value(measured);
        let shown = value.map_or("not measured".into(), |value| format!("{value:.2}{unit}"));
        let met = value.map_or("–", |value| if goal.limit.met(value) { "yes" } else { "**no**" });
        let of = goal.figure.made_of();
        writeln!(text, "| {} | {limit}{unit} | {shown} | {met} | {of} |", goal.name)
            .expect("to memory");
    }
    text
}

/// The whole page.
pub fn page(
    machine: &Machine,
    table: &[Goal],
    measured: &Measured,
    printed: &[(&str, String)],
    drawn: &[String],
) -> String {
    let Machine { commit, kernel, processor, load, date } = machine;
    let mut text = format!(
        "# How fast: one run of `cargo xtask bench`\n\n\
         Commit {commit}, {kernel}, {processor}, load {load} at the start, {date}. Absolute figures \
         drift from machine to\nmachine and hour to hour; ratios are of measurements of the same \
         run.\n\n## Goals\n\n{}",
        goals(table, measured)
    );
    if !drawn.is_empty() {
        text += "\n## Curves\n\n";
        for name in drawn {
            writeln!(text, "![{name}]({name})").expect("to memory");
        }
    }
    for (part, printed) in printed {
        write!(text, "\n## Part `{part}`\n\n{}\n", printed.trim_end()).expect("to memory");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::goals::{Figure, Limit};
    use super::*;

    #[test]
    fn every_goal_has_a_row_measured_or_not() {
        let table = [
            Goal { name: "a", figure: Figure::Ratio("p/x", "p/y"), limit: Limit::AtMost(1.5) },
            Goal { name: "b", figure: Figure::Of("p/x", "ns"), limit: Limit::AtLeast(9.0) },
            Goal { name: "c", figure: Figure::Of("p/z", "ns"), limit: Limit::AtMost(1.0) },
        ];
        let measured = [("p/x".to_owned(), 3.0), ("p/y".to_owned(), 2.0)].into();
        let text = goals(&table, &measured);
        let rows: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(
            rows,
            [
                "| a | at most 1.5 × | 1.50 × | yes | `p/x` / `p/y` |",
                "| b | at least 9 ns | 3.00 ns | **no** | `p/x` |",
                "| c | at most 1 ns | not measured | – | `p/z` |",
            ]
        );
    }
}
