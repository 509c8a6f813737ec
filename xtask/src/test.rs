//! All tests of the workspace, and the line that counts them.

mod counts;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use lexopt::prelude::*;

use crate::sh::{cargo, line, openly, say, succeeds, workspace};
use counts::{Counts, Runner};

/// Sets up, builds and runs the tests; prints `N passed, N failed, N skipped` last. An error if any
/// fails, and, when `$CI` is set, if any is skipped.
pub fn run(mut parser: lexopt::Parser) -> Result<()> {
    let mut quick = false;
    while let Some(arg) = parser.next()? {
        match arg {
            Long("quick") => quick = true,
            _ => return Err(arg.unexpected().into()),
        }
    }
    let ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false");
    let prepared = crate::build::run().and_then(|()| oracle(quick, ci));
    let oracle = match prepared {
        Ok(oracle) => oracle,
        Err(error) => {
            // What counts lines must not take a broken build for a run without tests.
            say(&format!("error: {error:#}"));
            println!("{}", Counts { passed: 0, failed: 1, skipped: 0 });
            bail!("no test was run");
        }
    };
    let folder = workspace().join("target");
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    let skip_log = folder.join("skipped-tests");
    let _ = std::fs::remove_file(&skip_log);
    let environment = |command: &mut Command| {
        command.env("RVS_SKIP_LOG", &skip_log).env_remove("RVS_ORACLE");
        if let Some(oracle) = &oracle {
            command.env("RVS_ORACLE", oracle);
        }
        if quick {
            command.env("RVS_QUICK", "1");
        }
    };
    let mut counts = Counts::default();
    for (runner, mut command) in runs() {
        environment(&mut command);
        counts += run_tests(&mut command, runner)?;
    }
    let skips = std::fs::read_to_string(&skip_log).unwrap_or_default();
    let skips: Vec<&str> = skips.lines().collect();
    report_skips(&skips);
    // The harness took them for passed.
    counts.passed = counts.passed.saturating_sub(skips.len());
    counts.skipped += skips.len();
    println!("{counts}");
    if counts.failed > 0 {
        bail!("{} tests failed", counts.failed);
    }
    if counts.passed == 0 {
        bail!("no test passed");
    }
    if ci && counts.skipped > 0 {
        bail!("{} tests were skipped, and CI is set", counts.skipped);
    }
    Ok(())
}

/// The runs that together are all tests: nextest knows no documentation tests.
fn runs() -> Vec<(Runner, Command)> {
    let mut command = cargo();
    if !succeeds(cargo().args(["nextest", "--version"])) {
        command.args(["test", "--workspace", "--no-fail-fast"]);
        return vec![(Runner::Cargo, command)];
    }
    command.args(["nextest", "run", "--workspace", "--no-fail-fast", "--color", "never"]);
    let mut docs = cargo();
    docs.args(["test", "--quiet", "--workspace", "--no-fail-fast", "--doc"]);
    vec![(Runner::Nextest, command), (Runner::Cargo, docs)]
}

/// Runs one of them, showing its output, and reads the counts out of that.
fn run_tests(command: &mut Command, runner: Runner) -> Result<Counts> {
    say(&format!("running {}", line(command)));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot run {}", line(command)))?;
    let out = child.stdout.take().context("stdout is a pipe")?;
    let err = child.stderr.take().context("stderr is a pipe")?;
    let reader = std::thread::spawn(move || tee(err, std::io::stderr(), runner));
    let mut counts = tee(out, std::io::stdout(), runner);
    counts += reader.join().unwrap_or_default();
    let status = child.wait()?;
    if !status.success() && counts.failed == 0 {
        say(&format!("{} ended with {status}", line(command)));
        counts.failed = 1;
    }
    Ok(counts)
}

fn tee(from: impl std::io::Read, mut to: impl Write, runner: Runner) -> Counts {
    let mut counts = Counts::default();
    let mut reader = BufReader::new(from);
    let mut bytes = Vec::new();
    while reader.read_until(b'\n', &mut bytes).is_ok_and(|length| length > 0) {
        // A closed terminal is no reason to stop counting.
        let _ = to.write_all(&bytes);
        counts += Counts::parse(&String::from_utf8_lossy(&bytes), runner).unwrap_or_default();
        bytes.clear();
    }
    counts
}

/// Prints each reason once, with the number of tests that it kept from running.
fn report_skips(skips: &[&str]) {
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for skip in skips {
        let (_, reason) = skip.split_once(": ").unwrap_or(("", skip));
        *reasons.entry(reason).or_default() += 1;
    }
    for (reason, number) in reasons {
        println!("SKIPPED {number}: {reason}");
    }
}

/// Sets up the virtual machine with the kernel's IPVS where its recipe is: in the folder
/// `$RVS_ORACLE`, or beside the workspace. Returns the folder, which the tests get as `$RVS_ORACLE`.
fn oracle(quick: bool, ci: bool) -> Result<Option<PathBuf>> {
    if quick {
        say("--quick: the tests against a kernel with IPVS are skipped");
        return Ok(None);
    }
    let default = || workspace().join("../shared/oracle");
    let folder = std::env::var_os("RVS_ORACLE").map(PathBuf::from).unwrap_or_else(default);
    let setup = folder.join("setup");
    if !setup.exists() {
        let text = format!("no virtual machine with the kernel's IPVS in {}", folder.display());
        if ci {
            bail!("{text}");
        }
        say(&format!("{text}: the tests that ask it are skipped"));
        return Ok(None);
    }
    say("setting up the virtual machine with the kernel's IPVS");
    openly(Command::new(&setup).current_dir(Path::new("/")))?;
    Ok(Some(std::fs::canonicalize(folder)?))
}
