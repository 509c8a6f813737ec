//! A lab of network namespaces: hosts with addresses, joined by bridges in a namespace of their
//! own. Nothing outside the namespaces made here is touched, and all of it goes away when the
//! [`Lab`] is dropped, on Ctrl-C, and at the latest when the next lab is made.
//!
//! ```text
//!   host "client"      host "director"     host "rs1"        namespaces <lab>-client, ...
//!      eth0                 eth0              eth0
//!       |                    |                 |             veth pairs
//!      p0 ------ br-lan ---- p1 ------------- p2             namespace <lab>-switch
//! ```
//!
//! ```no_run
//! use rvs_testkit::lab::{Director, LabError, Topology};
//!
//! # fn main() -> Result<(), LabError> {
//! let lab = Topology::new()
//!     .host("client", &["10.0.0.70/24", "fd00::70/64"])
//!     .host("director", &["10.0.0.30/24", "fd00::30/64"])
//!     .host("rs1", &["10.0.0.45/24", "fd00::45/64"])
//!     .build()?;
//! lab.host("rs1").ip("route add 10.0.0.70 via 10.0.0.30")?;
//! lab.host("rs1").serve_http(80)?;
//! let director = Director::start(&lab.host("director"), &["--mode", "tc"])?;
//! director.ipvsadm("-A -t 10.0.0.30:80 -s rr")?;
//! director.ipvsadm("-a -t 10.0.0.30:80 -r 10.0.0.45:80 -m")?;
//! assert_eq!(lab.host("client").run("curl -s --max-time 5 http://10.0.0.30/")?, "rs1\n");
//! # Ok(())
//! # }
//! ```

mod decap;
mod director;
mod echo;
mod error;
mod host;
mod http;
mod process;
mod registry;
mod service;
mod topology;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

pub use decap::{Checksums, GUE_PORT, decapsulate};
pub use director::{DestRow, Director, binary};
pub use error::LabError;
pub use host::Host;
pub use http::{builtin_http, nginx};
pub use process::{Process, wait_until};
pub use registry::{clean, clean_kept, mount_bpffs};
pub use service::{Service, Stop};
pub use topology::Topology;

/// A set of hosts made by [`Topology::build`].
pub struct Lab {
    inner: Arc<Inner>,
}

/// What the hosts of a lab share.
struct Inner {
    name: String,
    /// Host names, without the lab's prefix; the switch is the last.
    hosts: Vec<String>,
    /// Port names in the switch, one for each interface of the hosts.
    ports: Vec<(String, String, String)>,
    processes: Mutex<Vec<Process>>,
    services: Mutex<Vec<Service>>,
    kept: Mutex<bool>,
}

impl Lab {
    /// The host of that name.
    ///
    /// # Panics
    /// If the topology has no such host.
    pub fn host(&self, name: &str) -> Host {
        assert!(self.inner.hosts.iter().any(|host| host == name), "no host {name} in the lab");
        Host::new(self.inner.clone(), name)
    }

    /// The names of the hosts, in the topology's order, without the switch.
    pub fn host_names(&self) -> impl Iterator<Item = &str> {
        self.inner.hosts.iter().map(String::as_str).filter(|name| *name != SWITCH)
    }

    /// The namespace in which the bridges `br-SEGMENT` and the hosts' ports live.
    pub fn switch(&self) -> Host {
        Host::new(self.inner.clone(), SWITCH)
    }

    /// The switch's port at the other end of a host's interface.
    pub fn port(&self, host: &str, interface: &str) -> Option<&str> {
        let mut ports = self.inner.ports.iter();
        ports.find(|(h, i, _)| h == host && i == interface).map(|(_, _, port)| port.as_str())
    }

    /// The lab's name: the prefix of its namespaces.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The lab's folder: logs, the servers' files, the control socket. Removed with the lab.
    pub fn dir(&self) -> PathBuf {
        self.inner.dir()
    }

    /// Prepares the hosts for native XDP on veth, which loses the metadata of the senders' offloads:
    /// checksums computed by the hosts, and NAPI (GRO) at the receiving ends.
    pub fn prepare_for_xdp(&self) -> Result<(), LabError> {
        for (host, interface, port) in &self.inner.ports {
            self.host(host).run(&format!("ethtool -K {interface} tx off gro on"))?;
            self.switch().run(&format!("ethtool -K {port} gro on"))?;
        }
        Ok(())
    }

    /// Makes the file that all HTTP servers of this lab serve as `/NAME`, and with 4 MB a second as
    /// `/slow/NAME`: `size` bytes that do not repeat. Returns its path.
    pub fn web_file(&self, name: &str, size: usize) -> Result<PathBuf, LabError> {
        let path = self.inner.www().join(name);
        std::fs::write(&path, http::noise(size)).map_err(LabError::file(&path))?;
        Ok(path)
    }

    /// Leaves the lab standing when this value is dropped: its namespaces and its processes, but not
    /// the servers that run as threads of this process. [`clean_kept`] removes it.
    pub fn keep(&self) -> Result<(), LabError> {
        registry::mark_kept(&self.inner.name)?;
        *self.inner.kept.lock().expect("no panic while locked") = true;
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for service in self.inner.services.lock().expect("no panic while locked").drain(..) {
            service.stop();
        }
        if !*self.inner.kept.lock().expect("no panic while locked") {
            for process in self.inner.processes.lock().expect("no panic while locked").drain(..) {
                process.kill();
            }
            registry::clean(&self.inner.name);
        }
    }
}

/// The name of the host with the bridges.
const SWITCH: &str = "switch";

impl Inner {
    fn namespace(&self, host: &str) -> String {
        format!("{}-{host}", self.name)
    }

    fn dir(&self) -> PathBuf {
        registry::dir(&self.name)
    }

    fn www(&self) -> PathBuf {
        self.dir().join("www")
    }
}

/// Why no lab can be made here, if so.
pub fn unavailable() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("network namespaces need root".into());
    }
    for tool in ["ip", "bridge", "nsenter", "ethtool"] {
        if find_program(tool).is_none() {
            return Some(format!("no `{tool}` on this machine; `cargo xtask setup` installs it"));
        }
    }
    None
}

/// Finds a program as a shell would, in the administrator's folders too, and among the tools that
/// `cargo xtask setup` put into the workspace.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let tools = workspace().join(".tools");
    let more = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(more)
        .chain([tools.join("bin"), tools.join("debian/usr/sbin"), tools.join("debian/usr/bin")])
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// The root of the workspace.
pub fn workspace() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.ancestors().nth(2).expect("crates/testkit is two levels down")
}
