//! A director over a table in memory, on a socket.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept, bind,
    listen, recv, send, socket_with,
};

use crate::table::Table;

/// The loopback, on which sync daemons do nothing.
struct Loopback;

impl rvs_director::Daemons for Loopback {
    fn mtu(&mut self, interface: &str) -> Option<u32> {
        (interface == "lo").then_some(65_536)
    }

    fn start(&mut self, _: &rvs_director::SyncDaemon, _: Option<usize>) -> Result<(), i32> {
        Ok(())
    }

    fn stop(&mut self, _: rvs_netlink::ipvs::Role) {}
}

fn director(table: Table) -> rvs_director::Director<Table> {
    rvs_director::Director::new(table).with_daemons(Box::new(Loopback))
}

/// A director that serves until the test's process ends.
pub struct Director {
    /// Its control socket.
    pub socket: PathBuf,
}

impl Director {
    /// Starts one over an empty table.
    pub fn start() -> Self {
        Self::over(Table::default())
    }

    /// Starts one over this table.
    pub fn over(table: Table) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("rvs-unmodified-{}-{number}.sock", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_file(&path);
        let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
        let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None).expect("a socket");
        bind(&socket, &SocketAddrUnix::new(&path).expect("a short path")).expect("a free name");
        listen(&socket, 8).expect("a bound socket");
        let director = Arc::new(Mutex::new(director(table)));
        std::thread::spawn(move || {
            while let Ok(client) = accept(&socket) {
                let director = director.clone();
                // Programs keep connections open while others ask.
                std::thread::spawn(move || converse(&director, &client));
            }
        });
        Self { socket: path }
    }
}

impl Drop for Director {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.socket);
    }
}

fn converse(director: &Mutex<rvs_director::Director<Table>>, client: &OwnedFd) {
    let mut buffer = vec![0; 65_536];
    while let Ok((len, _)) = recv(client, &mut *buffer, RecvFlags::empty()) {
        if len == 0 {
            return;
        }
        let replies = director.lock().expect("no panic while locked").handle(&buffer[..len]);
        for reply in replies {
            if send(client, &reply, SendFlags::NOSIGNAL).is_err() {
                return;
            }
        }
    }
}
