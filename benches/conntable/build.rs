//! Builds the eBPF programs and leaves the object in `OUT_DIR`. As crates/datapath/build.rs, but
//! only with `$RVS_BPF_RUSTC`, else Debian's compiler, and with bpf-linker from cargo's bin folder.

use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

fn main() {
    println!("cargo::rerun-if-changed=ebpf");
    println!("cargo::rerun-if-env-changed=RVS_BPF_RUSTC");
    println!("cargo::rerun-if-env-changed=BPF_LINKER");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let rustc = PathBuf::from(env::var_os("RVS_BPF_RUSTC").unwrap_or("/usr/bin/rustc".into()));
    let home = PathBuf::from(env::var_os("HOME").unwrap_or_default());
    let linker =
        env::var_os("BPF_LINKER").map_or_else(|| home.join(".cargo/bin/bpf-linker"), PathBuf::from);
    let flags = [
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        "-Ctarget-cpu=v3".to_owned(),
        format!("--cfg=bpf_target_arch=\"{}\"", env::consts::ARCH),
        format!("-Clinker={}", linker.display()),
    ];
    let mut command = Command::new(rustc.with_file_name("cargo"));
    for (key, _) in env::vars_os() {
        let key = key.to_string_lossy();
        let outer = key.starts_with("CARGO_") && key != "CARGO_HOME";
        if outer || key == "RUSTUP_TOOLCHAIN" || key == "RUSTFLAGS" {
            command.env_remove(&*key);
        }
    }
    command
        .env("RUSTC", &rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .args(["build", "--release", "--package", "conntable-ebpf", "--bin", "conntable"])
        .args(["--features", "bpf", "-Zbuild-std=core", "--target", "bpfel-unknown-none"])
        .arg("--target-dir")
        .arg(out.join("bpf"));
    let output = command.output().expect("cargo runs");
    if !output.status.success() {
        for line in String::from_utf8_lossy(&output.stderr).lines() {
            println!("cargo::warning={line}");
        }
        println!("cargo::error=the eBPF programs do not build");
        return;
    }
    fs::copy(out.join("bpf/bpfel-unknown-none/release/conntable"), out.join("conntable.bpf.o"))
        .expect("the object is where cargo puts it");
}
