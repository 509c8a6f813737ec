//! Samples, and Markdown tables of their medians and spread.

use std::collections::HashMap;

/// A table: rows appear in the order of their first sample.
pub struct Report {
    title: String,
    columns: Vec<String>,
    rows: Vec<String>,
    samples: HashMap<(String, String), Vec<f64>>,
}

impl Report {
    /// An empty one.
    pub fn new(title: String, columns: &[&str]) -> Self {
        let columns = columns.iter().map(|c| c.to_string()).collect();
        Self { title, columns, rows: Vec::new(), samples: HashMap::new() }
    }

    /// Adds a sample.
    pub fn add(&mut self, row: &str, column: &str, sample: f64) {
        if !self.rows.iter().any(|r| r == row) {
            self.rows.push(row.to_owned());
        }
        self.samples.entry((row.to_owned(), column.to_owned())).or_default().push(sample);
    }

    fn sorted(&self, row: &str, column: &str) -> Option<Vec<f64>> {
        let mut samples = self.samples.get(&(row.to_owned(), column.to_owned()))?.clone();
        samples.sort_by(f64::total_cmp);
        Some(samples)
    }

    /// Prints it; with the first column's ratio to each of `ratios`.
    pub fn print(&self, ratios: &[&str]) {
        println!("\n### {}\n", self.title);
        let heads: String = ratios.iter().map(|r| format!(" {}/{r} |", self.columns[0])).collect();
        println!("| | {} |{heads}", self.columns.join(" | "));
        println!("|---|{}", "---:|".repeat(self.columns.len() + ratios.len()));
        for row in &self.rows {
            let mut line = format!("| {row} |");
            for column in &self.columns {
                line +=
                    &self.sorted(row, column).map_or(" |".into(), |s| format!(" {} |", cell(&s)));
            }
            let median = |c: &str| self.sorted(row, c).map(|s| s[s.len() / 2]);
            for ratio in ratios {
                line += &match (median(&self.columns[0]), median(ratio)) {
                    (Some(a), Some(b)) if b > 0.0 => format!(" {:.1} |", a / b),
                    _ => " |".into(),
                };
            }
            println!("{line}");
        }
    }
}

fn cell(sorted: &[f64]) -> String {
    let number = |x: f64| match x.abs() {
        ..100.0 if x.fract() != 0.0 => format!("{x:.1}"),
        _ => format!("{x:.0}"),
    };
    let (low, high) = (sorted[0], sorted[sorted.len() - 1]);
    let median = number(sorted[sorted.len() / 2]);
    if sorted.len() == 1 || low == high {
        return median;
    }
    format!("{median} ({}–{})", number(low), number(high))
}
