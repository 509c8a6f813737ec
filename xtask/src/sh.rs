//! Running programs: quietly, with what they said when they fail; or in the open.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

pub use rvs_testkit::lab::{find_program, workspace};

/// Prints what is being done.
pub fn say(text: &str) {
    eprintln!("xtask: {text}");
}

/// Runs a command without its output; an error has the end of it.
pub fn quietly(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| start_error(command))?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    let last = lines[lines.len().saturating_sub(20)..].join("\n  ");
    bail!("{} failed ({}):\n  {last}", line(command), output.status)
}

/// Runs a command with its output shown.
pub fn openly(command: &mut Command) -> Result<()> {
    let status = command.stdin(Stdio::null()).status().with_context(|| start_error(command))?;
    if !status.success() {
        bail!("{} failed ({status})", line(command));
    }
    Ok(())
}

/// The stdout of a command that succeeds, without the white space around it.
pub fn stdout(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Whether a command can be run and succeeds.
pub fn succeeds(command: &mut Command) -> bool {
    stdout(command).is_some()
}

/// The cargo that runs this program.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    command
}

/// Where tools go that are built for this workspace.
pub fn tools() -> PathBuf {
    workspace().join(".tools")
}

/// A command line for people.
pub fn line(command: &Command) -> String {
    let name = Path::new(command.get_program()).file_name().unwrap_or_default();
    let mut words: Vec<OsString> = vec![name.into()];
    words.extend(command.get_args().map(Into::into));
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    format!("`{}`", words.join(" "))
}

fn start_error(command: &Command) -> String {
    format!("cannot run {}", line(command))
}
