//! rustfmt, clippy and cargo-deny, each run even if one before it finds something.

use std::process::Command;

use anyhow::{Result, bail};
use lexopt::prelude::*;

use crate::sh::{cargo, openly, say, workspace};

/// Sets up and lints the workspace.
pub fn run(mut parser: lexopt::Parser) -> Result<()> {
    let mut advisories = false;
    while let Some(arg) = parser.next()? {
        match arg {
            Long("advisories") => advisories = true,
            _ => return Err(arg.unexpected().into()),
        }
    }
    crate::setup::run()?;
    crate::setup::lints()?;
    let mut format = cargo();
    format.args(["fmt", "--all", "--check"]);
    let mut clippy = cargo();
    clippy.args([
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--keep-going",
        "--",
        "-D",
        "warnings",
    ]);
    let mut fuzz = cargo();
    fuzz.args(["clippy", "--quiet", "--manifest-path", "fuzz/Cargo.toml", "--target-dir"]);
    fuzz.arg(workspace().join("target/fuzz-lint")).args(["--", "-D", "warnings"]);
    let lints = [
        ("the format", Some(format)),
        ("clippy", Some(clippy)),
        ("clippy for the fuzz targets", Some(fuzz)),
        ("clippy for the eBPF programs", ebpf()?),
        ("the dependencies", deny(advisories)),
    ];
    let mut found = Vec::new();
    for (what, command) in lints {
        let Some(mut command) = command else { continue };
        say(&format!("checking {what}"));
        if let Err(error) = openly(&mut command) {
            say(&format!("{error:#}"));
            found.push(what);
        }
    }
    if !found.is_empty() {
        bail!("found fault with {}", found.join(", "));
    }
    say("no lint found anything");
    Ok(())
}

/// Clippy for the eBPF crate on its target, by the compiler that builds it, which is where the
/// sources of `core` are.
fn ebpf() -> Result<Option<Command>> {
    let rustc = crate::setup::compiler()?;
    let tool = |name: &str| rustc.with_file_name(name);
    if !tool("cargo-clippy").exists() || !tool("cargo").exists() {
        say(&format!("no clippy beside {}: the eBPF programs are not linted", rustc.display()));
        return Ok(None);
    }
    let mut command = Command::new(tool("cargo-clippy"));
    command.current_dir(workspace());
    for name in ["RUSTUP_TOOLCHAIN", "RUSTFLAGS", "CARGO_TARGET_DIR"] {
        command.env_remove(name);
    }
    let arch = std::env::consts::ARCH;
    let flags = [format!("--cfg=bpf_target_arch=\"{arch}\""), "-Ctarget-cpu=v3".into()];
    command.env("CARGO", tool("cargo")).env("RUSTC", &rustc).env("RUSTC_BOOTSTRAP", "1");
    command.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    let target =
        if cfg!(target_endian = "big") { "bpfeb-unknown-none" } else { "bpfel-unknown-none" };
    // The name that cargo itself would pass to a subcommand.
    command.args(["clippy", "--quiet", "--package", "rvs-ebpf", "--package", "rvs-bench-ebpf"]);
    command.args(["--lib", "--bins", "--features", "rvs-ebpf/bpf,rvs-bench-ebpf/bpf"]);
    command.args(["-Zbuild-std=core", "--target", target]);
    command.arg("--target-dir").arg(workspace().join("target/ebpf-lint"));
    command.args(["--", "-D", "warnings"]);
    Ok(Some(command))
}

fn deny(advisories: bool) -> Option<Command> {
    let mut command = Command::new(crate::setup::cargo_deny()?);
    command.current_dir(workspace()).args(["--workspace", "check", "--hide-inclusion-graph"]);
    if advisories {
        command.arg("advisories");
    }
    command.args(["bans", "licenses", "sources"]);
    Some(command)
}
