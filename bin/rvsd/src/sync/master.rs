//! The master: looks at the connection table again and again and tells of what is new or changed.

use std::io;
use std::net::UdpSocket;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rvs_core::sysctl::Sysctl;
use rvs_core::time::Tick;
use rvs_datapath::{Maps, env};
use rvs_director::SyncDaemon;
use rvs_sync::{Batch, Due, Seen, Sent, Settings, Version};
use rvs_tables::sync;

/// Time between two looks: a look at a million places costs 10 ms.
const INTERVAL: Duration = Duration::from_millis(250);
/// How long a look waits for a socket that takes no more.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// Messages sent in a row before others have their turn: at the start all is new, and who receives
/// has a buffer of so much.
const BURST: u32 = 64;
/// That turn.
const PAUSE: Duration = Duration::from_millis(2);

/// A master sync daemon; it ends when it is dropped.
pub struct Master {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Master {
    /// Starts the thread, with its own view of the maps.
    pub fn start(daemon: &SyncDaemon, sockets: Vec<UdpSocket>, pin: &Path) -> io::Result<Self> {
        let (stop, stopped) = channel();
        let (ready, opened) = channel();
        let (daemon, pin) = (daemon.clone(), pin.to_owned());
        let thread = std::thread::Builder::new().name("sync-master".into()).spawn(move || {
            let maps = Maps::open(&pin);
            let failed = |error: &dyn std::fmt::Display| io::Error::other(error.to_string());
            let _ = ready.send(maps.as_ref().map(|_| ()).map_err(|error| failed(error)));
            if let Ok(maps) = maps {
                Look::new(&daemon, sockets, &maps).run(&maps, &stopped);
            }
        })?;
        let master = Self { stop: Some(stop), thread: Some(thread) };
        opened.recv().map_err(io::Error::other)??;
        Ok(master)
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What a port's next message holds.
struct Outgoing {
    socket: UdpSocket,
    batch: Batch,
    /// What is told of by the message that is being filled.
    told: Vec<(usize, Seen, Due)>,
}

/// The thread's memory.
struct Look {
    daemon: SyncDaemon,
    /// What was told of each place of the table.
    sent: Vec<Sent>,
    ports: Vec<Outgoing>,
    /// Messages in this look.
    messages: u32,
    /// Whether sending failed last time, so that it is said once.
    failing: bool,
}

impl Look {
    fn new(daemon: &SyncDaemon, sockets: Vec<UdpSocket>, maps: &Maps) -> Self {
        let outgoing = |socket| {
            let batch = batch(daemon, Version::V1);
            Outgoing { socket, batch, told: Vec::new() }
        };
        Self {
            daemon: daemon.clone(),
            sent: vec![Sent::default(); sync::place_count(maps)],
            ports: sockets.into_iter().map(outgoing).collect(),
            messages: 0,
            failing: false,
        }
    }

    /// Looks until it is told to stop.
    fn run(mut self, maps: &Maps, stopped: &Receiver<()>) {
        while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(INTERVAL) {
            self.once(maps);
        }
    }

    /// One look at the table.
    fn once(&mut self, maps: &Maps) {
        let config = maps.config();
        let value = |sysctl| config.sysctl(sysctl);
        let settings = Settings {
            period: value(Sysctl::SyncPeriod).unsigned_abs(),
            // A negative number is a very great one to the kernel.
            refresh: u32::try_from(value(Sysctl::SyncRefreshPeriod)).unwrap_or(i32::MAX as u32),
            retries: value(Sysctl::SyncRetries).clamp(0, 3) as u8,
            templates_only: value(Sysctl::SyncPersistMode) != 0,
        };
        let version = if value(Sysctl::SyncVersion) == 0 { Version::V0 } else { Version::V1 };
        for port in &mut self.ports {
            port.batch = batch(&self.daemon, version);
            port.told.clear();
        }
        self.messages = 0;
        let now = env::now();
        let mut result = Ok(());
        sync::each(maps, &mut |place, seen, tell| {
            if result.is_err() {
                return;
            }
            let due = self.sent.get(place).map_or(Due::No, |sent| sent.due(&settings, seen, now));
            if due == Due::No {
                return;
            }
            let Some(told) = tell() else { return };
            let index = seen.id as usize % self.ports.len().max(1);
            let Some(port) = self.ports.get_mut(index) else { return };
            if let Some(message) = port.batch.push(&told.entry()) {
                result = self.send(index, &message, now);
            }
            if let Some(port) = self.ports.get_mut(index) {
                port.told.push((place, *seen, due));
            }
        });
        for index in 0..self.ports.len() {
            let last = self.ports.get_mut(index).and_then(|port| port.batch.finish());
            if let (Ok(()), Some(message)) = (&result, last) {
                result = self.send(index, &message, now);
            }
        }
        match result {
            Err(error) if !self.failing => {
                self.failing = true;
                tracing::warn!("sync: cannot tell of connections: {error}");
            }
            Err(_) => {}
            Ok(()) => self.failing = false,
        }
    }

    /// Sends a message and notes what it tells of. What is not noted is due again next time.
    fn send(&mut self, index: usize, message: &[u8], now: Tick) -> io::Result<()> {
        let Some(port) = self.ports.get_mut(index) else { return Ok(()) };
        let told = std::mem::take(&mut port.told);
        if let Err(error) = port.socket.send(message) {
            if error.kind() != io::ErrorKind::WouldBlock {
                return Err(error);
            }
            let mut fds = [PollFd::new(&port.socket, PollFlags::OUT)];
            let _ = poll(&mut fds, Some(&PATIENCE));
            port.socket.send(message)?;
        }
        for (place, seen, due) in told {
            if let Some(sent) = self.sent.get_mut(place) {
                sent.told(&seen, now, due);
            }
        }
        self.messages += 1;
        if self.messages.is_multiple_of(BURST) {
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }
}

fn batch(daemon: &SyncDaemon, version: Version) -> Batch {
    Batch::new(version, daemon.sync_id as u8, daemon.max_len)
}
