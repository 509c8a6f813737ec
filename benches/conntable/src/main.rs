//! Compares connection tables for the data path: BPF hash maps and a set-associative table in an
//! array map. Run as root: `conntable [load|cost|together|reuse]...`, all by default; see README.md.

mod bpf;
mod cost;
mod load;
mod report;
mod table;
mod together;

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let mut parts: Vec<String> = std::env::args().skip(1).collect();
    if parts.is_empty() {
        parts = ["load", "cost", "together", "reuse"].map(String::from).to_vec();
    }
    for part in parts {
        match part.as_str() {
            "cost" => cost::measure()?,
            "load" => load::measure()?,
            "together" => together::measure()?,
            "reuse" => together::check()?,
            _ => bail!("{part}: not load, cost, together or reuse"),
        }
    }
    Ok(())
}
