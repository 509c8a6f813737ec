//! Shows commands and their results, and notes what is not as it should be.

use std::fmt::Debug;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use rvs_testkit::lab::{self, DestRow, Director, Lab, Process};

/// The output of a command that was shown.
pub struct Shown {
    /// What it wrote to stdout.
    pub stdout: String,
    /// Its exit status; -1 if a signal ended it.
    pub code: i32,
}

impl Shown {
    /// The lines of its stdout without white space around them.
    pub fn lines(&self) -> Vec<&str> {
        self.stdout.lines().map(str::trim).collect()
    }
}

/// The lab, the commands shown in it, and the faults found.
pub struct Stage<'a> {
    lab: &'a Lab,
    socket: Option<PathBuf>,
    faults: Vec<String>,
    scene: String,
}

impl<'a> Stage<'a> {
    /// Nothing shown yet.
    pub fn new(lab: &'a Lab) -> Self {
        Self { lab, socket: None, faults: Vec::new(), scene: String::new() }
    }

    /// The director that `ipvsadm` talks to from now on.
    pub fn set_director(&mut self, director: &Director) {
        self.socket = Some(director.socket());
    }

    /// The lab.
    pub fn lab(&self) -> &'a Lab {
        self.lab
    }

    /// Begins a scene.
    pub fn title(&mut self, text: &str) {
        self.scene = text.into();
        println!("\n== {text}");
    }

    /// Prints a line that is no command's output.
    pub fn remark(&self, text: &str) {
        println!("{text}");
    }

    /// Prints lines that some program wrote.
    pub fn note(&self, text: &str) {
        for line in text.lines() {
            println!("  {}", line.trim_end());
        }
    }

    /// Prints a shell command, runs it in the host, and prints what it wrote.
    pub fn sh(&mut self, host: &str, text: &str) -> Result<Shown> {
        println!("{}{text}", prompt(host));
        let output = self.command(host, text)?.output().context("cannot run sh")?;
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        self.note(&stdout);
        self.note(&String::from_utf8_lossy(&output.stderr));
        Ok(Shown { stdout, code: output.status.code().unwrap_or(-1) })
    }

    /// Like [`sh`](Self::sh), for a command without which the rest makes no sense.
    pub fn must(&mut self, host: &str, text: &str) -> Result<Shown> {
        let shown = self.sh(host, text)?;
        if shown.code != 0 {
            bail!("`{text}` failed in {host} with status {}", shown.code);
        }
        Ok(shown)
    }

    /// Prints a shell command and starts it in the background.
    pub fn start(&mut self, host: &str, label: &str, text: &str) -> Result<Process> {
        println!("{}{text} &", prompt(host));
        let command = self.command(host, &format!("exec {text}"))?;
        Ok(self.lab.host(host).spawn(label, command)?)
    }

    /// Shows the table, and returns its destinations.
    pub fn table(&mut self) -> Result<Vec<DestRow>> {
        let shown = self.must("director", "ipvsadm -Ln")?;
        Ok(shown.stdout.lines().filter_map(DestRow::parse).collect())
    }

    /// The destinations, without showing the table.
    pub fn peek(&self) -> Result<Vec<DestRow>> {
        let output = self.command("director", "ipvsadm -Ln")?.output().context("cannot run sh")?;
        let listing = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(listing.lines().filter_map(DestRow::parse).collect())
    }

    /// Compares, and notes a fault if the two differ.
    pub fn check<T: PartialEq + Debug>(&mut self, what: &str, is: &T, should: &T) {
        if is == should {
            return;
        }
        let fault = format!("{}: {what} should be {should:?}, is {is:?}", self.scene);
        println!("  OFF: {what} should be {should:?}, is {is:?}");
        self.faults.push(fault);
    }

    /// The faults so far.
    pub fn faults(&self) -> &[String] {
        &self.faults
    }

    fn command(&self, host: &str, text: &str) -> Result<std::process::Command> {
        let programs = lab::binary("ipvsadm")?;
        let folder = programs.parent().context("a program is in a folder")?;
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = self.lab.host(host).command("sh");
        command.env("PATH", format!("{}:{path}:/usr/sbin:/sbin", folder.display()));
        if let Some(socket) = &self.socket {
            command.env("RVS_SOCKET", socket);
        }
        command.current_dir(self.lab.dir()).args(["-c", text]);
        Ok(command)
    }
}

/// The real servers and the director are administered, the client is a user.
fn prompt(host: &str) -> String {
    let sign = if host == "client" { '$' } else { '#' };
    format!("{host}{sign} ")
}
