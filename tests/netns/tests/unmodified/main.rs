//! Programs made for the kernel's ip_vs, unmodified, by `rvs run`: Debian's ipvsadm and its scripts,
//! clients that were recorded with a kernel, readers of `/proc`, and one that is linked statically. The director is the real
//! one; only its data path is a table in memory.

mod director;
mod ipvsadm;
#[path = "../../../../crates/director/tests/memory/mod.rs"]
mod memory;
mod netlink;
mod proc;
mod sockopt;
mod supervised;
mod table;

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use director::Director;
use rvs_testkit::lab::{find_program, workspace};

/// Where a program is, or why tests that need it cannot run here.
fn find(program: &str) -> Result<String, String> {
    if let Some(reason) = rvs_testkit::lab::unavailable() {
        return Err(reason);
    }
    let absolute = PathBuf::from(program);
    let found = if absolute.is_file() { Some(absolute) } else { find_program(program) };
    let found = found.and_then(|path| path.into_os_string().into_string().ok());
    found.ok_or_else(|| format!("no {program} on this machine; `cargo xtask setup` installs it"))
}

/// The path of a program; ends the calling test as skipped where it is missing.
macro_rules! need {
    ($program:expr) => {
        match crate::find($program) {
            Ok(path) => path,
            Err(reason) => rvs_testkit::skip!("{reason}"),
        }
    };
}
pub(crate) use need;

/// `rvs run -- PROGRAM` for this director.
fn run(director: &Director, program: &str) -> Command {
    rvs(director, &["run", "--", program])
}

/// `rvs run --static -- PROGRAM` for this director.
fn run_static(director: &Director, program: &str) -> Command {
    rvs(director, &["run", "--static", "--", program])
}

fn rvs(director: &Director, words: &[&str]) -> Command {
    let mut command = Command::new(rvs_testkit::lab::binary("rvs").expect("a built rvs"));
    command.args(words).env("RVS_SOCKET", &director.socket);
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
    command
}

/// Runs a command to its end with a text as its input.
fn feed(command: &mut Command, input: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    // It may end without having read everything.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    child.wait_with_output().expect("a child")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A recording of the kernel's answers: JSON objects, one a line.
fn recording(path: &str) -> Option<Vec<serde_json::Value>> {
    let path: PathBuf = workspace().join(path);
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect())
}
