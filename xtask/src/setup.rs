//! Finds or installs what the workspace needs beside a stable Rust: a compiler with the sources of
//! `core` and a linker for the eBPF programs, and the network tools of the lab.
//!
//! Two worlds: rustup, where any toolchain with rust-src will do; and Debian, whose rustc-web,
//! cargo-web and rust-web-src have all of it in packages. `crates/datapath/build.rs` looks for the
//! same things in the same places.

mod debian;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use rvs_testkit::lab::nginx;

use crate::sh::{cargo, find_program, quietly, say, stdout, succeeds, tools, workspace};

/// The bpf-linker that the project is tested with, and cargo-deny.
const BPF_LINKER: &str = "0.13.0";
const CARGO_DENY: &str = "0.20.2";
/// LLVM versions that this bpf-linker can be built with, the best first: not older than rustc's.
const LLVM: [u32; 3] = [22, 23, 21];

/// Programs that the lab and the tests run, and the Debian packages that have them.
const PROGRAMS: [(&str, &str); 9] = [
    ("cc", "gcc"),
    ("ip", "iproute2"),
    ("bridge", "iproute2"),
    ("nsenter", "util-linux"),
    ("ethtool", "ethtool"),
    ("curl", "curl"),
    ("python3", "python3"),
    ("iperf3", "iperf3"),
    ("tcpdump", "tcpdump"),
];

/// Programs of others that the tests run unmodified, and their Debian packages. None does anything by
/// itself without a configuration, which is not installed.
const CLIENTS: [(&str, &str); 7] = [
    ("/usr/sbin/ipvsadm", "ipvsadm"),
    ("/usr/sbin/keepalived", "keepalived"),
    ("/usr/sbin/dnsmasq", "dnsmasq-base"),
    ("/usr/bin/dig", "bind9-dnsutils"),
    ("/usr/bin/tracepath", "iputils-tracepath"),
    ("/usr/sbin/nft", "nftables"),
    ("/usr/sbin/conntrack", "conntrack"),
];

/// Sets up what building, the demo and the tests need.
pub fn run() -> Result<()> {
    programs()?;
    let compiler = compiler()?;
    let linker = linker()?;
    web_server();
    clients();
    say(&format!("eBPF tools: {} and {}", compiler.display(), linker.display()));
    Ok(())
}

/// Sets up what the lints need beyond that.
pub fn lints() -> Result<()> {
    for (tool, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if !succeeds(cargo().args([tool, "--version"])) {
            say(&format!("installing {component} with rustup"));
            quietly(Command::new("rustup").args(["component", "add", component]))?;
        }
    }
    if compiler()? == Path::new("/usr/bin/rustc") && !Path::new("/usr/bin/clippy-driver").exists() {
        debian::install("the linter for the eBPF programs", &["rust-web-clippy"])?;
    }
    if cargo_deny().is_none() {
        say("building cargo-deny (about two minutes, once)");
        install("cargo-deny", CARGO_DENY, &[], None)?;
    }
    Ok(())
}

/// cargo-deny, if it is here.
pub fn cargo_deny() -> Option<PathBuf> {
    find_tool("cargo-deny")
}

fn programs() -> Result<()> {
    let missing = PROGRAMS.iter().filter(|(program, _)| find_program(program).is_none());
    let mut packages: Vec<&str> = missing.map(|&(_, package)| package).collect();
    packages.dedup();
    // The names of services, which ipvsadm prints without -n.
    if !Path::new("/etc/services").exists() {
        packages.push("netbase");
    }
    if packages.is_empty() {
        return Ok(());
    }
    debian::install("network tools", &packages)
}

/// The compiler that builds the eBPF programs; installs one if there is none.
pub fn compiler() -> Result<PathBuf> {
    if let Some(rustc) = find_compiler() {
        return Ok(rustc);
    }
    if debian::offers("rust-web-src") {
        let packages = ["rustc-web", "cargo-web", "rust-web-src"];
        debian::install("a Rust compiler with the sources of core, for eBPF", &packages)?;
    } else if find_program("rustup").is_some() {
        say("installing rust-src with rustup");
        quietly(Command::new("rustup").args(["component", "add", "rust-src"]))?;
    } else {
        bail!(
            "the eBPF programs need a Rust compiler with rust-src: install rustup, or Debian's \
               rustc-web, cargo-web and rust-web-src"
        );
    }
    find_compiler().context("there is still no Rust compiler with the sources of core")
}

fn find_compiler() -> Option<PathBuf> {
    let mut candidates: Vec<PathBuf> = Vec::new();
    candidates.extend(std::env::var_os("RVS_BPF_RUSTC").map(PathBuf::from));
    let active = stdout(Command::new("rustc").args(["--print", "sysroot"]));
    candidates.extend(active.map(|sysroot| Path::new(&sysroot).join("bin/rustc")));
    let nightly = stdout(Command::new("rustup").args(["which", "--toolchain", "nightly", "rustc"]));
    candidates.extend(nightly.map(PathBuf::from));
    candidates.push("/usr/bin/rustc".into());
    candidates.into_iter().find(|rustc| has_sources(rustc))
}

fn has_sources(rustc: &Path) -> bool {
    let mut command = Command::new(rustc);
    let sysroot = stdout(command.args(["--print", "sysroot"]).env_remove("RUSTUP_TOOLCHAIN"));
    sysroot.is_some_and(|sysroot| {
        Path::new(&sysroot).join("lib/rustlib/src/rust/library/core/src/lib.rs").exists()
    })
}

/// The linker of the eBPF programs; builds it if there is none that runs.
fn linker() -> Result<PathBuf> {
    let runs = |path: &PathBuf| succeeds(Command::new(path).arg("--version"));
    if let Some(path) = std::env::var_os("BPF_LINKER").map(PathBuf::from) {
        if !runs(&path) {
            bail!("BPF_LINKER names {}, which does not run", path.display());
        }
        return Ok(path);
    }
    if let Some(path) = find_tool("bpf-linker").filter(runs) {
        return Ok(path);
    }
    let (llvm, prefix) = llvm()?;
    say(&format!("building bpf-linker {BPF_LINKER} with LLVM {llvm} (about a minute, once)"));
    let feature = format!("llvm-{llvm}");
    install(
        "bpf-linker",
        BPF_LINKER,
        &["--no-default-features", "--features", &feature],
        Some(&prefix),
    )?;
    find_tool("bpf-linker").filter(runs).context("the bpf-linker that was built does not run")
}

/// An LLVM to build bpf-linker with: its version and prefix.
fn llvm() -> Result<(u32, PathBuf)> {
    let packages = ["llvm-22-dev", "libzstd-dev", "zlib1g-dev"];
    if find_llvm().is_none() || debian::lacks(&packages[1..]) {
        if !debian::offers(packages[0]) {
            bail!(
                "bpf-linker needs LLVM 22 with its headers: install llvm-22-dev (apt.llvm.org), or \
                   a bpf-linker built elsewhere on the PATH"
            );
        }
        debian::install("LLVM for bpf-linker", &packages)?;
    }
    find_llvm().context("no llvm-config of LLVM 22 where Debian's package puts it")
}

fn find_llvm() -> Option<(u32, PathBuf)> {
    LLVM.into_iter().find_map(|version| {
        let names = [
            format!("/usr/lib/llvm-{version}/bin/llvm-config"),
            format!("llvm-config-{version}"),
            "llvm-config".to_owned(),
        ];
        names.iter().find_map(|name| {
            let found = stdout(Command::new(name).arg("--version"))?;
            let prefix = stdout(Command::new(name).arg("--prefix"))?;
            found.starts_with(&format!("{version}.")).then(|| (version, prefix.into()))
        })
    })
}

/// nginx for the lab. Without it the lab has a small server of its own, so nothing here is an error.
fn web_server() {
    if nginx().is_none() && !unpack("nginx") {
        say("no nginx: the lab uses its built-in server");
    }
}

/// Programs of others. The tests that run them are skipped without them.
fn clients() {
    let missing = CLIENTS.iter().filter(|(path, _)| !Path::new(path).exists());
    let packages: Vec<&str> = missing.map(|&(_, package)| package).collect();
    if let Err(error) = debian::install("programs that the tests run", &packages) {
        say(&format!("{error:#}: the tests that run them are skipped"));
    }
    for program in ["prometheus-node-exporter", "vsftpd"] {
        if find_program(program).is_none() && !unpack(program) {
            say(&format!("no {program}: the test that runs it is skipped"));
        }
    }
}

/// Unpacks a package into `.tools/debian`: no service of this machine is added or started.
fn unpack(package: &str) -> bool {
    if !debian::offers(package) {
        return false;
    }
    say(&format!("unpacking Debian's {package} into .tools/debian"));
    let result = debian::unpack(package, &tools().join("debian"));
    if let Err(error) = &result {
        say(&format!("{error:#}"));
    }
    result.is_ok()
}

/// Builds a tool from crates.io into the workspace's folder of tools, without optimisation: most of
/// the work of these tools is LLVM's or the network's.
fn install(name: &str, version: &str, args: &[&str], llvm: Option<&Path>) -> Result<()> {
    let mut command = cargo();
    command.args(["install", name, "--version", version, "--locked", "--quiet", "--root"]);
    command.arg(tools()).args(args);
    for (key, value) in
        [("DEBUG", "0"), ("OPT_LEVEL", "0"), ("LTO", "off"), ("CODEGEN_UNITS", "16")]
    {
        command.env(format!("CARGO_PROFILE_RELEASE_{key}"), value);
    }
    // A folder of its own, removed when it is done: it is of no further use.
    let target = workspace().join("target/tools");
    command.env("CARGO_TARGET_DIR", &target);
    if let Some(prefix) = llvm {
        command.env("LLVM_PREFIX", prefix);
    }
    let result = quietly(&mut command);
    let _ = std::fs::remove_dir_all(target);
    result
}

/// Looks where `crates/datapath/build.rs` looks.
fn find_tool(name: &str) -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo"));
    let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from).or(home);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.extend(cargo_home.map(|home| home.join("bin")));
    folders.push(tools().join("bin"));
    folders.into_iter().map(|folder| folder.join(name)).find(|path| path.is_file())
}
