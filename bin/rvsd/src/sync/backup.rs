//! The backup: reads messages and takes what they tell into the connection table.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rvs_core::sync::Arrived;
use rvs_datapath::BpfDatapath;
use rvs_datapath::env::Shared;
use rvs_director::SyncDaemon;
use rvs_sync::Message;

/// Messages read at a time: then the event loop has its turn.
const AT_A_TIME: usize = 64;
/// Time between two words in the log about what could not be taken.
const QUIET: Duration = Duration::from_secs(10);

/// A backup sync daemon.
pub struct Backup {
    /// One a port, to wait for.
    pub sockets: Arc<[UdpSocket]>,
    sync_id: u32,
    buffer: Vec<u8>,
    dropped: u64,
    said: Option<Instant>,
}

impl Backup {
    /// Takes what arrives at these sockets.
    pub fn new(daemon: &SyncDaemon, sockets: Vec<UdpSocket>) -> Self {
        // One byte more, by which a message that is too long is known.
        let buffer = vec![0; usize::from(daemon.max_len) + 1];
        Self { sockets: sockets.into(), sync_id: daemon.sync_id, buffer, dropped: 0, said: None }
    }

    /// Reads what has arrived, up to a bound.
    pub fn receive(&mut self, datapath: &BpfDatapath) {
        for index in 0..self.sockets.len() {
            for _ in 0..AT_A_TIME {
                let Some(socket) = self.sockets.get(index) else { break };
                // An error here is the interface's, and over with the next message.
                let Ok(len) = socket.recv(&mut self.buffer) else { break };
                if let Some(reason) = self.take(len, datapath) {
                    self.complain(&reason);
                }
            }
        }
    }

    /// Takes a message; what is wrong with it.
    fn take(&self, len: usize, datapath: &BpfDatapath) -> Option<String> {
        let datagram = self.buffer.get(..len).filter(|_| len < self.buffer.len());
        let Some(datagram) = datagram else { return Some("a message is too long".into()) };
        let message = match Message::parse(datagram) {
            Ok(message) => message,
            Err(error) => return Some(error.to_string()),
        };
        if self.sync_id != 0 && u32::from(message.sync_id) != self.sync_id {
            return None;
        }
        let mut trouble = None;
        let env = Shared(datapath.maps());
        for entry in message.entries() {
            let taken = entry.map(|entry| datapath.take_in(env, &entry));
            match taken {
                Ok(Ok(Arrived::Full)) => trouble = Some("the connection table is full".into()),
                Ok(Ok(_)) => {}
                Ok(Err(refused)) => trouble = Some(refused.to_string()),
                Err(error) => trouble = Some(error.to_string()),
            }
        }
        trouble
    }

    /// Logs, but not each of a flood.
    fn complain(&mut self, reason: &str) {
        self.dropped += 1;
        if self.said.is_none_or(|said| said.elapsed() >= QUIET) {
            tracing::warn!(messages = self.dropped, "sync: not all was taken: {reason}");
            self.said = Some(Instant::now());
            self.dropped = 0;
        }
    }
}
