//! One host of a lab: commands, code and settings in its namespace.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{Inner, LabError, Process, Service, Stop, find_program, registry};

/// A host of a [`Lab`](super::Lab). Cheap to clone; of no use once the lab is gone.
#[derive(Clone)]
pub struct Host {
    pub(super) lab: Arc<Inner>,
    name: String,
}

impl Host {
    pub(super) fn new(lab: Arc<Inner>, name: &str) -> Self {
        Self { lab, name: name.into() }
    }

    /// The host's name in the topology.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of its network namespace, as `ip netns` knows it.
    pub fn namespace(&self) -> String {
        self.lab.namespace(&self.name)
    }

    /// The lab's folder.
    pub fn lab_dir(&self) -> PathBuf {
        self.lab.dir()
    }

    /// The lab's name.
    pub fn lab_name(&self) -> &str {
        &self.lab.name
    }

    /// A command that will run in the host's network namespace, with the mounts of this process
    /// (`/sys/fs/bpf` among them), and without standard input.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let program = program.as_ref();
        let found = program.to_str().filter(|name| !name.contains('/')).and_then(find_program);
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.namespace_file().display()));
        command.arg("--").arg(found.as_deref().unwrap_or(program));
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command line, words separated by blanks, to its end, and returns what it wrote to
    /// stdout; an error if it ends with another status than 0.
    pub fn run(&self, line: &str) -> Result<String, LabError> {
        let mut words = line.split_whitespace();
        let program = words.next().unwrap_or_default();
        let mut command = self.command(program);
        let output = command.args(words).output();
        let output =
            output.map_err(|source| LabError::Start { program: program.into(), source })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(LabError::Failed {
            command: line.into(),
            status: output.status.to_string(),
            stderr: String::from_utf8_lossy(&output.stderr).trim_end().into(),
        })
    }

    /// Runs `ip WORDS` in the host.
    pub fn ip(&self, words: &str) -> Result<String, LabError> {
        self.run(&format!("ip {words}"))
    }

    /// Starts a command made by [`command`](Self::command) that runs until the [`Process`] is killed
    /// or the lab is dropped. Its output goes to `LAB_DIR/HOST-LABEL.log`.
    pub fn spawn(&self, label: &str, mut command: Command) -> Result<Process, LabError> {
        let label = format!("{}-{label}", self.name);
        let log = self.lab.dir().join(format!("{label}.log"));
        let file = File::options().create(true).append(true).open(&log);
        let file = file.map_err(LabError::file(&log))?;
        let errors = file.try_clone().map_err(LabError::file(&log))?;
        command.stdin(Stdio::null()).stdout(file).stderr(errors);
        let start = |source| LabError::Start { program: label.clone(), source };
        let child = command.spawn().map_err(start)?;
        registry::add_process(&self.lab.name, child.id())?;
        let process = Process::new(label, child, log);
        self.lab.processes.lock().expect("no panic while locked").push(process.clone());
        Ok(process)
    }

    /// Runs code on a thread in the host's network namespace, so that the sockets it opens are the
    /// host's, and returns what it returns.
    pub fn enter<T: Send>(&self, code: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        let file = self.open_namespace()?;
        let result = std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
                Ok::<T, std::io::Error>(code())
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        result.map_err(|source| self.failed("setns", source))
    }

    /// Starts a server thread with what `open` made in the host's namespace: sockets, devices. It
    /// runs until the [`Service`] is stopped or the lab is dropped, and has to look at [`Stop`].
    pub fn serve<S: Send + 'static>(
        &self,
        open: impl FnOnce() -> std::io::Result<S> + Send,
        run: impl FnOnce(S, &Stop) + Send + 'static,
    ) -> Result<Service, LabError> {
        let state = self.enter(open)?.map_err(|source| self.failed("open a server", source))?;
        let service = Service::start(move |stop| run(state, stop));
        self.lab.services.lock().expect("no panic while locked").push(service.clone());
        Ok(service)
    }

    /// Sets a sysctl of the host, by its dotted name. A dot in an interface's name is written `/`.
    pub fn sysctl(&self, name: &str, value: &str) -> Result<(), LabError> {
        self.sysctls(&[(name, value)])
    }

    /// Sets several sysctls.
    pub fn sysctls(&self, settings: &[(&str, &str)]) -> Result<(), LabError> {
        self.enter(|| {
            for (name, value) in settings {
                let path = Path::new("/proc/sys").join(sysctl_path(name));
                std::fs::write(&path, value).map_err(LabError::file(&path))?;
            }
            Ok(())
        })?
    }

    /// Reads a sysctl of the host.
    pub fn sysctl_value(&self, name: &str) -> Result<String, LabError> {
        let path = Path::new("/proc/sys").join(sysctl_path(name));
        let value = self.enter(|| std::fs::read_to_string(&path))?;
        value.map(|text| text.trim_end().to_owned()).map_err(LabError::file(&path))
    }

    pub(super) fn failed(&self, what: &'static str, source: std::io::Error) -> LabError {
        LabError::Namespace { what, namespace: self.namespace(), source }
    }

    fn namespace_file(&self) -> PathBuf {
        Path::new("/run/netns").join(self.namespace())
    }

    fn open_namespace(&self) -> Result<File, LabError> {
        let path = self.namespace_file();
        File::open(&path).map_err(LabError::file(&path))
    }
}

/// The file below `/proc/sys` of a sysctl's dotted name.
fn sysctl_path(name: &str) -> String {
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    name.chars().map(swap).collect()
}

#[cfg(test)]
mod tests {
    use super::sysctl_path;

    #[test]
    fn a_sysctl_of_a_vlan_keeps_the_dot_of_the_interface() {
        assert_eq!(sysctl_path("net.ipv4.conf.eth0/7.rp_filter"), "net/ipv4/conf/eth0.7/rp_filter");
    }
}
