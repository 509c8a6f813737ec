//! What control costs at size: our ipvsadm and rvsd with 10,000 services of 10 destinations.

use std::fmt::Write as _;
use std::fs::File;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use rvs_testkit::lab::{Director, Topology};

use crate::{Measured, median};

/// Destinations of a service.
const DESTS: u32 = 10;
/// Changes in one go, of which one's time is told.
const CHANGES: u32 = 1000;

/// Measures, and prints a table.
pub fn run(quick: bool) -> Result<Measured> {
    let (services, rounds) = if quick { (200, 1) } else { (10_000, 3) };
    let lab = Topology::new().prefix("rvs-bench").host("director", &["10.0.0.1/8"]).build()?;
    let director = Director::start(&lab.host("director"), &["--mode", "tc"])?;
    let (mut rules, mut changes) = (String::new(), String::new());
    for service in 0..services {
        let vip = address(service);
        writeln!(rules, "-A -t {vip} -s wlc")?;
        for dest in 0..DESTS {
            writeln!(rules, "-a -t {vip} -r 10.1.{}.{}:80 -m -w 1", service % 200, dest + 1)?;
        }
    }
    for change in 0..CHANGES {
        let service = change * (services / CHANGES).max(1) % services;
        let weight = 2 + change % 5;
        let server = format!("10.1.{}.1:80", service % 200);
        writeln!(changes, "-e -t {} -r {server} -m -w {weight}", address(service))?;
    }
    let (loading, changing) = (lab.dir().join("load"), lab.dir().join("change"));
    std::fs::write(&loading, rules)?;
    std::fs::write(&changing, changes)?;
    let restore = |path| ipvsadm(&director, &["-R"], Some(path));
    let (mut load, mut change, mut alone, mut list) = (vec![], vec![], vec![], vec![]);
    for _ in 0..rounds {
        director.ipvsadm("-C")?;
        load.push(restore(&loading)?.0);
        change.push(restore(&changing)?.0 * 1000.0 / f64::from(CHANGES));
        let line = format!("-e -t {} -r 10.1.0.1:80 -m -w 9", address(0));
        alone.push(ipvsadm(&director, &line.split(' ').collect::<Vec<_>>(), None)?.0 * 1000.0);
        let (seconds, text) = ipvsadm(&director, &["-Ln"], None)?;
        let dests = text.lines().filter(|line| line.starts_with("  -> 10.1.")).count();
        ensure!(dests == (services * DESTS) as usize, "{dests} destinations are listed");
        list.push(seconds);
    }
    let measured: Measured = [
        ("control/load", median(load)),
        ("control/change", median(change)),
        ("control/change alone", median(alone)),
        ("control/list", median(list)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    println!("{services} services of {DESTS} destinations; medians of {rounds}.\n");
    println!("| what | time |\n|---|---:|");
    println!("| `ipvsadm -R` of them all | {:.2} s |", measured["control/load"]);
    println!(
        "| a change, one of {CHANGES} in an `ipvsadm -R` | {:.3} ms |",
        measured["control/change"]
    );
    println!(
        "| a change, one `ipvsadm -e` with its process | {:.2} ms |",
        measured["control/change alone"]
    );
    println!("| `ipvsadm -Ln` | {:.2} s |", measured["control/list"]);
    Ok(measured)
}

/// The address of a service.
fn address(service: u32) -> String {
    format!("10.200.{}.{}:80", service / 250, service % 250 + 1)
}

/// Runs ipvsadm; seconds, and what it printed.
fn ipvsadm(
    director: &Director,
    args: &[&str],
    input: Option<&std::path::PathBuf>,
) -> Result<(f64, String)> {
    let mut command = director.ipvsadm_command()?;
    command.args(args).stdout(Stdio::piped());
    if let Some(path) = input {
        command.stdin(File::open(path)?);
    }
    let start = Instant::now();
    let output = command.output().context("ipvsadm")?;
    let seconds = start.elapsed().as_secs_f64();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ipvsadm {}: {errors}", args.join(" "));
    Ok((seconds, String::from_utf8_lossy(&output.stdout).into_owned()))
}
