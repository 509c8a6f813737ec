//! The real ipvsadm 1.31 of Debian, run unmodified against a director of ours.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::lab::{Ended, Lab};

/// The program.
pub const IPVSADM: &str = "/usr/sbin/ipvsadm";

/// `rvs`, where it is with the library that it preloads and the program.
pub fn rvs() -> Option<PathBuf> {
    let rvs = rvs_testkit::lab::binary("rvs").ok()?;
    (rvs.with_file_name("librvs_ipvs.so").exists() && Path::new(IPVSADM).exists()).then_some(rvs)
}

/// Runs it.
pub fn run(rvs: &Path, lab: &Lab, args: &[&str], stdin: Option<&str>) -> Ended {
    let mut child = Command::new(rvs)
        .args(["run", "--", IPVSADM])
        .args(args)
        .env("RVS_SOCKET", lab.socket())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("rvs");
    let mut input = child.stdin.take().expect("a pipe");
    // It may end without having read everything.
    let _ = input.write_all(stdin.unwrap_or_default().as_bytes());
    drop(input);
    let output = child.wait_with_output().expect("a child");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}
