//! A long-running program in a lab, and waiting for what it does.

use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::LabError;

/// How often a state is looked at that is waited for.
const POLL: Duration = Duration::from_millis(2);

/// A program started by [`Host::spawn`](super::Host::spawn). The lab ends it when it is dropped.
#[derive(Clone)]
pub struct Process {
    label: String,
    pid: u32,
    child: Arc<Mutex<Child>>,
    log: PathBuf,
}

impl Process {
    pub(super) fn new(label: String, child: Child, log: PathBuf) -> Self {
        Self { label, pid: child.id(), child: Arc::new(Mutex::new(child)), log }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What it has of a kind of memory, in KiB: a field of proc(5)'s `status`, such as `VmRSS`. Panics if it
    /// has ended.
    pub fn memory(&self, kind: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid));
        let status = status.expect("it runs");
        let mut fields = status.lines().filter_map(|line| line.split_once(':'));
        let size = fields.find_map(|(name, size)| (name == kind).then_some(size));
        let kib = size.and_then(|size| size.trim().strip_suffix(" kB")?.parse().ok());
        kib.expect("a size")
    }

    /// All that it, and earlier programs with its label, wrote to stdout and stderr.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// How it ended, if it has.
    pub fn status(&self) -> Option<ExitStatus> {
        // A child that cannot be waited for is not there any more.
        self.child.lock().expect("no panic while locked").try_wait().unwrap_or_default()
    }

    /// Waits until its log has `count` lines that are `line`; an error if it ends before.
    pub fn wait_for_line(&self, line: &str, count: usize, limit: Duration) -> Result<(), LabError> {
        wait_until(&format!("`{line}` from {}", self.label), limit, || {
            let seen = self.log().lines().filter(|l| l.trim_end() == line).count();
            if seen >= count {
                return Ok(true);
            }
            match self.status() {
                None => Ok(false),
                Some(status) => Err(self.ended(status)),
            }
        })
    }

    /// Waits for its end.
    pub fn wait(&self, limit: Duration) -> Result<ExitStatus, LabError> {
        let mut status = None;
        wait_until(&format!("the end of {}", self.label), limit, || {
            status = self.status();
            Ok(status.is_some())
        })?;
        Ok(status.expect("set when the wait succeeds"))
    }

    /// Ends it at once, as `kill -9` does.
    pub fn kill(&self) {
        let mut child = self.child.lock().expect("no panic while locked");
        // An error means that it has ended already.
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Asks it to end (SIGTERM) and waits for that.
    pub fn terminate(&self, limit: Duration) -> Result<ExitStatus, LabError> {
        if self.status().is_none()
            && let Some(pid) = Pid::from_raw(self.pid.cast_signed())
        {
            let _ = kill_process(pid, Signal::TERM);
        }
        self.wait(limit)
    }

    fn ended(&self, status: ExitStatus) -> LabError {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(8)..].join("\n  ");
        LabError::Ended { name: self.label.clone(), status: status.to_string(), log: last }
    }
}

/// Looks at a state again and again until it is reached.
pub fn wait_until(
    what: &str,
    limit: Duration,
    mut reached: impl FnMut() -> Result<bool, LabError>,
) -> Result<(), LabError> {
    let start = Instant::now();
    while !reached()? {
        if start.elapsed() > limit {
            return Err(LabError::Timeout { what: what.into(), after: limit });
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}
