//! For build scripts: builds eBPF programs of the workspace for the kernel's byte order.
//!
//! `cargo xtask setup` installs the tools. The compiler is the first of these that has the
//! sources of `core`: `$RVS_BPF_RUSTC`, the compiler of this build, rustup's nightly, the
//! distribution's `/usr/bin/rustc` (Debian: rustc-web, cargo-web and rust-web-src). One that is
//! not a nightly runs with `RUSTC_BOOTSTRAP=1`. The linker is `$BPF_LINKER`, else `bpf-linker`
//! from `PATH`, cargo's bin folder, or the workspace's `.tools/bin`.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Builds the programs of `package`'s binary `name` and leaves them in `OUT_DIR/NAME.bpf.o`. To be
/// called by a build script; `sources` are the paths below the workspace's root that the programs
/// are made of. Ends the build with one line when something is missing.
pub fn build(package: &str, name: &str, sources: &[&str]) {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let root = manifest.ancestors().find(|folder| folder.join("Cargo.lock").exists());
    let root = root.expect("a workspace has a Cargo.lock");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    for path in sources.iter().copied().chain(["Cargo.lock"]) {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }
    for name in ["RVS_BPF_RUSTC", "BPF_LINKER", "PATH"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    if let Err(error) = object(root, package, name, &out) {
        println!("cargo::error={error}; `cargo xtask setup` installs what is missing");
        std::process::exit(1);
    }
}

fn object(workspace: &Path, package: &str, name: &str, out: &Path) -> Result<(), String> {
    let rustc = compiler()
        .ok_or("no rustc with the sources of `core` (rust-src) to build the eBPF programs")?;
    let cargo = rustc.with_file_name("cargo");
    let cargo =
        if cargo.exists() { cargo } else { env::var_os("CARGO").unwrap_or("cargo".into()).into() };
    let linker = linker(workspace).ok_or("no bpf-linker to link the eBPF programs")?;
    let endian = env::var("CARGO_CFG_TARGET_ENDIAN").unwrap_or_default();
    let target = if endian == "big" { "bpfeb-unknown-none" } else { "bpfel-unknown-none" };
    let arch = env::var("CARGO_CFG_TARGET_ARCH").map_err(|e| e.to_string())?;
    let flags = [
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        "-Cdebuginfo=2".into(),
        "-Clink-arg=--btf".into(),
        // cmpxchg and 32-bit jumps; every kernel from 5.12 on has them.
        "-Ctarget-cpu=v3".into(),
        format!("-Clinker={}", linker.display()),
    ];
    let target_dir = out.join("bpf-target");
    let mut command = Command::new(&cargo);
    for (key, _) in env::vars_os() {
        if is_outer_setting(&key.to_string_lossy()) {
            command.env_remove(key);
        }
    }
    command
        .current_dir(workspace)
        .env("RUSTC", &rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .args(["build", "--release", "--package", package, "--bin", name, "--features", "bpf"])
        .args(["-Zbuild-std=core", "--target", target, "--target-dir"])
        .arg(&target_dir);
    let output = command.output().map_err(|e| format!("cannot run {}: {e}", cargo.display()))?;
    if !output.status.success() {
        for line in String::from_utf8_lossy(&output.stderr).lines() {
            println!("cargo::warning={line}");
        }
        return Err("the eBPF programs do not build".into());
    }
    let object = target_dir.join(target).join("release").join(name);
    fs::copy(&object, out.join(format!("{name}.bpf.o")))
        .map(|_| ())
        .map_err(|e| format!("cannot copy {}: {e}", object.display()))
}

/// Whether an environment variable belongs to the outer build and must not reach the inner one.
fn is_outer_setting(name: &str) -> bool {
    let kept = ["CARGO_HOME", "CARGO_NET_OFFLINE"];
    (name.starts_with("CARGO_")
        && !kept.contains(&name)
        && !name.starts_with("CARGO_REGISTR")
        && !name.starts_with("CARGO_HTTP"))
        || ["RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "RUSTUP_TOOLCHAIN"]
            .contains(&name)
}

fn stdout(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The compiler to use: a real one, not rustup's proxy.
fn compiler() -> Option<PathBuf> {
    let mut candidates: Vec<PathBuf> = Vec::new();
    candidates.extend(env::var_os("RVS_BPF_RUSTC").map(PathBuf::from));
    let outer = PathBuf::from(env::var_os("RUSTC")?);
    if let Some(sysroot) = stdout(Command::new(outer).args(["--print", "sysroot"])) {
        candidates.push(Path::new(&sysroot).join("bin/rustc"));
    }
    let nightly = ["which", "--toolchain", "nightly", "rustc"];
    candidates.extend(stdout(Command::new("rustup").args(nightly)).map(PathBuf::from));
    candidates.push("/usr/bin/rustc".into());
    candidates.into_iter().find(|rustc| {
        let mut print = Command::new(rustc);
        stdout(print.args(["--print", "sysroot"]).env_remove("RUSTUP_TOOLCHAIN")).is_some_and(|s| {
            Path::new(&s).join("lib/rustlib/src/rust/library/core/src/lib.rs").exists()
        })
    })
}

fn linker(workspace: &Path) -> Option<PathBuf> {
    if let Some(linker) = env::var_os("BPF_LINKER") {
        return Some(linker.into());
    }
    let mut folders: Vec<PathBuf> =
        env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect();
    let home = env::var_os("HOME").map(|home| Path::new(&home).join(".cargo"));
    folders.extend(env::var_os("CARGO_HOME").map(PathBuf::from).or(home).map(|h| h.join("bin")));
    folders.push(workspace.join(".tools/bin"));
    folders.into_iter().map(|folder| folder.join("bpf-linker")).find(|path| path.exists())
}
