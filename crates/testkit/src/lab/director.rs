//! The director of a lab: the real `rvsd`, `ipvsadm` and `rvs`, each lab with a socket and pins of
//! its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;
use std::time::Duration;

use super::{Host, LabError, Process, registry, workspace};

/// The time within which `rvsd` must serve.
const READY: Duration = Duration::from_secs(300);

/// A running `rvsd` in a host. Dropping it changes nothing; the lab ends it.
pub struct Director {
    host: Host,
    place: Place,
    args: Vec<String>,
    process: Mutex<Process>,
}

/// Where a director's socket and pins are.
#[derive(Clone)]
struct Place {
    socket: PathBuf,
    pin: PathBuf,
}

impl Director {
    /// Starts `rvsd` in the host with these arguments beside `--socket` and `--pin`, and returns when
    /// it serves.
    pub fn start(host: &Host, args: &[&str]) -> Result<Self, LabError> {
        registry::mount_bpffs()?;
        let pin = registry::pin(host.lab_name());
        Self::start_at(host, args, Place { socket: socket(host), pin })
    }

    /// The same for one more director of a lab, whose socket and pins have the host's name.
    pub fn start_beside(host: &Host, args: &[&str]) -> Result<Self, LabError> {
        registry::mount_bpffs()?;
        let name = host.name();
        let pin = registry::pin(host.lab_name()).join(name);
        let socket = host.lab_dir().join(format!("{name}.sock"));
        Self::start_at(host, args, Place { socket, pin })
    }

    fn start_at(host: &Host, args: &[&str], place: Place) -> Result<Self, LabError> {
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        let process = Mutex::new(launch(host, &place, &args)?);
        Ok(Self { host: host.clone(), place, args, process })
    }

    /// Starts `rvsd` again, after its end.
    pub fn restart(&self) -> Result<(), LabError> {
        let process = launch(&self.host, &self.place, &self.args)?;
        *self.process.lock().expect("no panic while locked") = process;
        Ok(())
    }

    /// The running `rvsd`, to be killed or terminated.
    pub fn process(&self) -> Process {
        self.process.lock().expect("no panic while locked").clone()
    }

    /// The host that it runs in.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.place.socket.clone()
    }

    /// The folder of its pins.
    pub fn pin(&self) -> PathBuf {
        self.place.pin.clone()
    }

    /// An `ipvsadm` command that talks to this director.
    pub fn ipvsadm_command(&self) -> Result<Command, LabError> {
        let mut command = self.host.command(binary("ipvsadm")?);
        command.env("RVS_SOCKET", self.socket());
        Ok(command)
    }

    /// Runs `ipvsadm WORDS` and returns what it printed; an error if it fails.
    pub fn ipvsadm(&self, words: &str) -> Result<String, LabError> {
        let output = self.try_ipvsadm(words)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(LabError::Failed {
            command: format!("ipvsadm {words}"),
            status: output.status.to_string(),
            stderr: String::from_utf8_lossy(&output.stderr).trim_end().into(),
        })
    }

    /// Runs `ipvsadm WORDS` and returns how it ended, whatever that is.
    pub fn try_ipvsadm(&self, words: &str) -> Result<Output, LabError> {
        let output = self.ipvsadm_command()?.args(words.split_whitespace()).output();
        output.map_err(|source| LabError::Start { program: "ipvsadm".into(), source })
    }

    /// An `rvs` command for this director.
    pub fn rvs_command(&self) -> Result<Command, LabError> {
        let mut command = self.host.command(binary("rvs")?);
        command.env("RVS_SOCKET", self.socket());
        Ok(command)
    }

    /// The rows of `ipvsadm -Ln` for the destinations of all services, in its order.
    pub fn dests(&self) -> Result<Vec<DestRow>, LabError> {
        let listing = self.ipvsadm("-Ln")?;
        Ok(listing.lines().filter_map(DestRow::parse).collect())
    }
}

/// A destination as `ipvsadm -Ln` lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DestRow {
    /// Its address and port.
    pub address: SocketAddr,
    /// `Masq`, `Route` or `Tunnel`.
    pub forward: String,
    /// Its weight.
    pub weight: u32,
    /// Active connections.
    pub active: u32,
    /// Inactive connections.
    pub inactive: u32,
}

impl DestRow {
    /// Reads a line of `ipvsadm -Ln`; nothing if it is not that of a destination.
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.trim_start().strip_prefix("-> ")?.split_whitespace();
        Some(Self {
            address: words.next()?.parse().ok()?,
            forward: words.next()?.into(),
            weight: words.next()?.parse().ok()?,
            active: words.next()?.parse().ok()?,
            inactive: words.next()?.parse().ok()?,
        })
    }
}

/// A program of this project: from the folder `$RVS_BIN_DIR`, else the release build.
pub fn binary(name: &str) -> Result<PathBuf, LabError> {
    let folder = std::env::var_os("RVS_BIN_DIR").map(PathBuf::from).unwrap_or_else(|| {
        let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
        target.unwrap_or_else(|| workspace().join("target")).join("release")
    });
    let path = folder.join(name);
    if path.is_file() { Ok(path) } else { Err(LabError::Missing(path.display().to_string())) }
}

fn socket(host: &Host) -> PathBuf {
    host.lab_dir().join("control.sock")
}

fn launch(host: &Host, place: &Place, args: &[String]) -> Result<Process, LabError> {
    let mut command = host.command(binary("rvsd")?);
    command.env("NO_COLOR", "1");
    command.arg("--socket").arg(&place.socket);
    command.arg("--pin").arg(&place.pin).args(args);
    let ready = |log: &str| log.lines().filter(|line| line.trim_end() == "rvsd: ready").count();
    let log = host.lab_dir().join(format!("{}-rvsd.log", host.name()));
    let before = ready(&read(&log));
    let process = host.spawn("rvsd", command)?;
    process.wait_for_line("rvsd: ready", before + 1, READY)?;
    Ok(process)
}

fn read(log: &Path) -> String {
    std::fs::read_to_string(log).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::DestRow;

    #[test]
    fn a_listing_has_one_row_for_each_destination() {
        let listing = "\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  192.168.122.30:80 wrr
  -> 192.168.122.45:80            Masq    2      1          67        \n";
        let rows: Vec<DestRow> = listing.lines().filter_map(DestRow::parse).collect();
        let address = "192.168.122.45:80".parse().unwrap();
        let row = DestRow { address, forward: "Masq".into(), weight: 2, active: 1, inactive: 67 };
        assert_eq!(rows, [row]);
    }
}
