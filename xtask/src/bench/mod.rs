//! The benchmark: runs its parts, each in a network namespace of its own, and says of every goal
//! whether it is met; keeps the result in docs/, or compares with what is kept there.

mod curves;
mod goals;
mod page;
mod record;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use lexopt::prelude::*;

use crate::sh::{cargo, line, openly, say, workspace};
use goals::{GOALS, Measured};
use record::Record;

/// A part of the benchmark.
struct Part {
    name: &'static str,
    program: &'static str,
    args: &'static [&'static str],
    /// Further arguments of a short run.
    quick: &'static [&'static str],
}

const PARTS: [Part; 10] = [
    Part {
        name: "datapath",
        program: "rvs-bench",
        args: &["datapath"],
        quick: &["--rounds", "1", "--live", "1,65536"],
    },
    Part { name: "curves", program: "rvs-bench", args: &["curves"], quick: &["--quick"] },
    Part { name: "flood", program: "rvs-bench", args: &["flood"], quick: &["--quick"] },
    Part { name: "cores", program: "rvs-bench", args: &["cores"], quick: &["--quick"] },
    Part { name: "memory", program: "rvs-bench", args: &["memory"], quick: &["--quick"] },
    Part { name: "sweep", program: "rvs-bench", args: &["sweep"], quick: &["--quick"] },
    Part { name: "lab", program: "rvs-bench-lab", args: &["packets"], quick: &["--quick"] },
    Part { name: "control", program: "rvs-bench-lab", args: &["control"], quick: &["--quick"] },
    Part { name: "stream", program: "rvs-bench-lab", args: &["stream"], quick: &["--quick"] },
    Part { name: VM, program: "rvs-bench-lab", args: &["ipvs"], quick: &["--quick"] },
];
/// The part that runs in the oracle VM, whose kernel has IPVS.
const VM: &str = "vm";

/// What the command line asks for.
#[derive(Default)]
struct Options {
    quick: bool,
    check: bool,
    /// Names of the parts to run; empty for all.
    only: Vec<String>,
    /// Where the pages are.
    docs: Option<PathBuf>,
}

/// What a part printed, by its name.
type Printed = Vec<(&'static str, String)>;

/// Sets up, builds, and runs the parts asked for.
pub fn run(mut parser: lexopt::Parser) -> Result<()> {
    let mut options = Options::default();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("quick") => options.quick = true,
            Long("check") => options.check = true,
            Long("only") => {
                let names = parser.value()?.string()?;
                options.only.extend(names.split(',').map(str::to_owned));
            }
            Long("docs") => options.docs = Some(parser.value()?.into()),
            _ => return Err(arg.unexpected().into()),
        }
    }
    for name in &options.only {
        let known = PARTS.iter().map(|part| part.name).collect::<Vec<_>>().join(", ");
        ensure!(PARTS.iter().any(|part| part.name == name), "no part `{name}`, there are {known}");
    }
    crate::build::run()?;
    say("building the benchmark");
    let packages = ["--package", "rvs-bench", "--package", "rvs-bench-lab"];
    openly(cargo().args(["build", "--quiet", "--release"]).args(packages))?;
    rvs_testkit::lab::mount_bpffs()?;
    let machine = page::Machine::this();
    let (measured, printed) = measure(&options)?;
    print!("{}", page::goals(GOALS, &measured));
    let now = Record::of(&machine.commit, GOALS, &measured);
    let folder = options.docs.clone().unwrap_or_else(|| workspace().join("docs"));
    if options.check {
        return check(&options, &now, &folder.join("benchmarks.json"));
    }
    if options.docs.is_none() && (options.quick || !options.only.is_empty()) {
        say("docs/ stays as it is: that needs a whole run, or --docs FOLDER");
        return Ok(());
    }
    let drawn = curves::draw(&measured, &folder)?;
    let text = page::page(&machine, GOALS, &measured, &printed, &drawn);
    let path = folder.join("benchmarks.md");
    std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    now.write(&folder.join("benchmarks.json"))?;
    say(&format!("wrote {}, its curves, and benchmarks.json", path.display()));
    Ok(())
}

/// Whether a part is to be run.
fn wanted(options: &Options, part: &Part) -> bool {
    options.only.is_empty() || options.only.iter().any(|name| name == part.name)
}

/// Runs the parts one after the other. One that fails does not keep the others from running, but
/// its goals are not measured.
fn measure(options: &Options) -> Result<(Measured, Printed)> {
    let folder = std::env::temp_dir().join(format!("rvs-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let (mut measured, mut printed) = (Measured::new(), Vec::new());
    for part in PARTS.iter().filter(|part| wanted(options, part)) {
        say(&format!("measuring: {}", part.name));
        match run_part(part, options.quick, &folder.join(part.name)) {
            Ok((values, text)) => {
                measured.extend(values);
                printed.push((part.name, text));
            }
            Err(error) => say(&format!("{}: {error:#}", part.name)),
        }
    }
    std::fs::remove_dir_all(&folder)?;
    Ok((measured, printed))
}

fn run_part(part: &Part, quick: bool, record: &Path) -> Result<(Measured, String)> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target = target.unwrap_or_else(|| workspace().join("target"));
    let programs = target.join("release");
    let more = if quick { part.quick } else { &[] };
    let (mut command, record) = if part.name == VM {
        let words = [part.args, more].concat().join(" ");
        (in_vm(&programs, part.program, &words, record)?, record.join("record"))
    } else {
        let mut command = Command::new("unshare");
        command.arg("--net").arg(programs.join(part.program)).args(part.args);
        command.args(more).arg("--record").arg(record);
        (command, record.to_owned())
    };
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut text = String::new();
    let stdout = child.stdout.as_mut().context("its stdout is a pipe")?;
    stdout.read_to_string(&mut text)?;
    print!("{text}");
    let status = child.wait()?;
    ensure!(status.success(), "{} failed ({status})", line(&command));
    Ok((serde_json::from_slice(&std::fs::read(record)?)?, text))
}

/// A command that runs a program in the oracle VM; what it records goes to the folder `out`.
fn in_vm(programs: &Path, program: &str, words: &str, out: &Path) -> Result<Command> {
    let oracle = std::env::var_os("RVS_ORACLE").map(PathBuf::from);
    let oracle = oracle.unwrap_or_else(|| workspace().join("../shared/oracle"));
    let oracle = oracle.join("ipvs-oracle");
    ensure!(oracle.exists(), "no {}", oracle.display());
    std::fs::create_dir_all(out)?;
    let script = out.join("script.sh");
    let files = [program, "rvsd", "ipvsadm", "rvs"];
    let line =
        format!("RVS_BIN_DIR=/in exec unshare --net ./{program} {words} --record /out/record");
    std::fs::write(&script, format!("chmod +x {}\n{line}\n", files.join(" ")))?;
    let mut command = Command::new(oracle);
    // Two CPUs, 2 GiB, 900 seconds.
    command.args(["-s", "2", "-m", "2048", "-t", "900", "-o"]).arg(out).arg(&script);
    command.args(files.map(|name| programs.join(name)));
    Ok(command)
}

fn check(options: &Options, now: &Record, path: &Path) -> Result<()> {
    let parts: Vec<&str> =
        PARTS.iter().filter(|part| wanted(options, part)).map(|part| part.name).collect();
    let recorded = Record::read(path)?;
    let fallen = recorded.fallen(GOALS, now, &parts);
    if !fallen.is_empty() {
        bail!("fell back since {}:\n  {}", recorded.commit, fallen.join("\n  "));
    }
    say(&format!("no goal that was met at {} fell back by more than 10 %", recorded.commit));
    Ok(())
}
