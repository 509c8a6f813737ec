//! Sync daemons at work: the master looks at the connection table in a thread of its own, the backup
//! reads its sockets in the event loop, where destinations are known.

mod backup;
mod master;
mod socket;

use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use rvs_director::{Daemons, SyncDaemon};
use rvs_host::{Host, Interface};
use rvs_netlink::ipvs::Role;

use backup::Backup;
use master::Master;

/// An errno that says that something failed for a reason of its own (`EIO`).
const EIO: i32 = 5;

/// The daemons that run, for the director that starts and stops them and for the event loop.
#[derive(Clone)]
pub struct Sync(Arc<Mutex<Workers>>);

struct Workers {
    host: Host,
    pin: PathBuf,
    master: Option<Master>,
    backup: Option<Backup>,
}

impl Sync {
    /// None runs. The maps are below `pin`.
    pub fn new(host: Host, pin: &Path) -> Self {
        let (pin, master, backup) = (pin.to_owned(), None, None);
        Self(Arc::new(Mutex::new(Workers { host, pin, master, backup })))
    }

    fn workers(&self) -> MutexGuard<'_, Workers> {
        self.0.lock().expect("a panic aborts")
    }

    /// What to wait for: the backup's sockets.
    pub fn backup_sockets(&self) -> Arc<[UdpSocket]> {
        let workers = self.workers();
        workers.backup.as_ref().map_or_else(|| Arc::from([]), |backup| backup.sockets.clone())
    }

    /// Calls `f` with the backup, if one runs.
    pub fn with_backup<R>(&self, f: impl FnOnce(&mut Backup) -> R) -> Option<R> {
        self.workers().backup.as_mut().map(f)
    }
}

impl Workers {
    fn interface(&mut self, name: &str) -> Option<Interface> {
        let found = self.host.interfaces().unwrap_or_default();
        found.into_iter().find(|interface| interface.name == name)
    }
}

impl Daemons for Sync {
    fn mtu(&mut self, interface: &str) -> Option<u32> {
        self.workers().interface(interface).map(|interface| interface.mtu)
    }

    fn start(&mut self, daemon: &SyncDaemon, buffer: Option<usize>) -> Result<(), i32> {
        let mut workers = self.workers();
        let interface = workers.interface(&daemon.interface).ok_or(rvs_netlink::errno::ENODEV)?;
        let errno = |error: std::io::Error| error.raw_os_error().unwrap_or(EIO);
        match daemon.role {
            Role::Master => {
                let sockets = socket::senders(daemon, interface.index, buffer).map_err(errno)?;
                let pin = workers.pin.clone();
                workers.master = Some(Master::start(daemon, sockets, &pin).map_err(errno)?);
            }
            Role::Backup => {
                let sockets = socket::receivers(daemon, interface.index, buffer).map_err(errno)?;
                workers.backup = Some(Backup::new(daemon, sockets));
            }
        }
        let (role, interface) = (daemon.role.name(), &daemon.interface);
        tracing::info!(%interface, group = %daemon.group, "{role} sync daemon started");
        Ok(())
    }

    fn stop(&mut self, role: Role) {
        let mut workers = self.workers();
        match role {
            Role::Master => drop(workers.master.take()),
            Role::Backup => drop(workers.backup.take()),
        }
        tracing::info!("{} sync daemon stopped", role.name());
    }
}
