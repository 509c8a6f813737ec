//! `cargo xtask`: set-up, build, demo, tests, lints and benchmark of the workspace.
#![forbid(unsafe_code)]

mod bench;
mod build;
mod demo;
mod helper;
mod lint;
mod parity;
mod setup;
mod sh;
mod test;

use std::process::ExitCode;

use anyhow::{Result, bail};
use lexopt::Parser;
use lexopt::prelude::*;

const HELP: &str = "\
Usage: cargo xtask COMMAND

  setup                      find or install the tools that the workspace needs; safe to run twice
  build                      setup, then rvsd, ipvsadm and rvs into target/release
  demo [--keep] [--clean] [--mode auto|tc|xdp]
                             setup and build, then a lab of network namespaces (root): NAT, direct
                             routing, tunneling and IPv6 with real servers and ipvsadm. --keep leaves
                             the lab standing, --clean removes labs that were kept
  test [--quick]             setup and build, then all tests (those with network namespaces and eBPF
                             need root). --quick leaves out the virtual machine and long loads
  lint [--advisories]        rustfmt, clippy (the eBPF programs included) and cargo-deny;
                             --advisories also asks the advisory database on the network
  bench [--quick] [--check] [--only PART,...] [--docs FOLDER]
                             setup and build, then every figure that has a goal (root, ten minutes on
                             a quiet machine), written to docs/benchmarks.md, benchmarks.json and
                             curves. --check compares with benchmarks.json and fails where a goal that
                             was met falls back by more than a tenth
  parity [--seed N] [--scenarios N] [--minutes N]
                             setup and build, then random services, changes and packets, given to the
                             kernel's IPVS and to RVS side by side in a virtual machine; from a random
                             seed, 10 minutes with each hook
";

fn main() -> ExitCode {
    match dispatch() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch() -> Result<()> {
    let mut parser = Parser::from_env();
    let command = match parser.next()? {
        Some(Value(command)) => command.string()?,
        Some(Short('h') | Long("help")) | None => {
            print!("{HELP}");
            return Ok(());
        }
        Some(other) => return Err(other.unexpected().into()),
    };
    match command.as_str() {
        "setup" => {
            end(parser)?;
            setup::run()
        }
        "build" => {
            while let Some(arg) = parser.next()? {
                match arg {
                    // What it does anyway.
                    Long("release") => {}
                    _ => return Err(arg.unexpected().into()),
                }
            }
            build::run()
        }
        "demo" => demo::run(parser),
        "test" => test::run(parser),
        "lint" => lint::run(parser),
        "bench" => bench::run(parser),
        "parity" => parity::run(parser),
        "helper" => helper::run(parser),
        _ => bail!("no command `{command}`; cargo xtask --help lists them"),
    }
}

/// Refuses further arguments.
fn end(mut parser: Parser) -> Result<()> {
    match parser.next()? {
        Some(arg) => Err(arg.unexpected().into()),
        None => Ok(()),
    }
}
