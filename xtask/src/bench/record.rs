//! The record of a run: `benchmarks.json`, with which later runs are compared.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::goals::{Goal, Measured};

/// Figures of goals, and where they come from.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct Record {
    /// Commit of the tree that was measured.
    pub commit: String,
    /// The figures by goal.
    pub goals: BTreeMap<String, Recorded>,
}

/// A goal's figure.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Recorded {
    /// The figure.
    pub value: f64,
    /// Whether it was within the limit.
    pub met: bool,
}

impl Record {
    /// What a run came to.
    pub fn of(commit: &str, goals: &[Goal], measured: &Measured) -> Self {
        let figure = |goal: &Goal| {
            let value = goal.figure.value(measured)?;
            Some((goal.name.to_owned(), Recorded { value, met: goal.limit.met(value) }))
        };
        Self { commit: commit.into(), goals: goals.iter().filter_map(figure).collect() }
    }

    /// Reads one.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).with_context(|| path.display().to_string())?;
        serde_json::from_slice(&text).with_context(|| path.display().to_string())
    }

    /// Writes it.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)? + "\n";
        std::fs::write(path, text).with_context(|| path.display().to_string())
    }

    /// What was met here and has fallen back in `now`, or is missing there though `parts` were run;
    /// a sentence for each.
    pub fn fallen(&self, goals: &[Goal], now: &Self, parts: &[&str]) -> Vec<String> {
        let mut fallen = Vec::new();
        for goal in goals.iter().filter(|goal| parts.contains(&goal.figure.part())) {
            let Some(before) = self.goals.get(goal.name).filter(|before| before.met) else {
                continue;
            };
            let unit = goal.figure.unit();
            match now.goals.get(goal.name) {
                None => fallen.push(format!("{}: was met, is not measured", goal.name)),
                Some(now) if goal.limit.fell_back(now.value, before.value) => fallen.push(format!(
                    "{}: {:.2}{unit}, recorded {:.2}{unit} ({})",
                    goal.name,
                    now.value,
                    before.value,
                    goal.limit.words()
                )),
                Some(_) => {}
            }
        }
        fallen
    }
}

#[cfg(test)]
mod tests {
    use super::super::goals::{Figure, Limit};
    use super::*;

    const GOALS: [Goal; 2] = [
        Goal { name: "fast", figure: Figure::Of("p/a", "ns"), limit: Limit::AtMost(10.0) },
        Goal { name: "many", figure: Figure::Ratio("q/b", "q/c"), limit: Limit::AtLeast(2.0) },
    ];

    fn run(values: &[(&str, f64)]) -> Record {
        let measured = values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        Record::of("commit", &GOALS, &measured)
    }

    #[test]
    fn only_what_was_met_can_fall_back() {
        let before = run(&[("p/a", 5.0), ("q/b", 3.0), ("q/c", 2.0)]);
        assert!(before.goals["fast"].met && !before.goals["many"].met);
        let worse = run(&[("p/a", 6.0), ("q/b", 1.0), ("q/c", 2.0)]);
        let fallen = before.fallen(&GOALS, &worse, &["p", "q"]);
        assert_eq!(fallen, ["fast: 6.00 ns, recorded 5.00 ns (at most 10)"]);
    }

    #[test]
    fn a_goal_that_is_no_longer_measured_has_fallen_unless_its_part_was_left_out() {
        let before = run(&[("p/a", 5.0)]);
        let now = run(&[]);
        assert_eq!(before.fallen(&GOALS, &now, &["p"]).len(), 1);
        assert_eq!(before.fallen(&GOALS, &now, &["q"]).len(), 0);
    }

    #[test]
    fn a_record_reads_as_written() {
        let path = std::env::temp_dir().join(format!("rvs-record-{}", std::process::id()));
        let before = run(&[("p/a", 5.25)]);
        before.write(&path).unwrap();
        let read = Record::read(&path);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(read.unwrap().goals, before.goals);
    }
}
