//! Many changes in one datagram: a restore of 100,000 destinations is not 100,000 round trips.

use std::io;

use rustix::net::{SendFlags, send};

use super::{Client, ClientError, outcome};
use crate::attr::Writer;
use crate::message::{ERROR, F_ACK, Messages};

/// Requests in a batch: few enough that all answers fit a netlink socket's receive buffer.
const MAX_REQUESTS: usize = 256;
/// Bytes in a batch.
const MAX_BYTES: usize = 32 * 1024;

/// Requests that wait to be sent together. They are carried out in order, each whatever becomes of
/// the others.
#[derive(Default)]
pub struct Batch {
    bytes: Vec<u8>,
    first: u32,
    len: usize,
}

impl Batch {
    /// Appends a change.
    pub fn push(&mut self, client: &mut Client, command: u8, attrs: &Writer) {
        self.bytes.extend(client.request(command, F_ACK, attrs));
        if self.len == 0 {
            self.first = client.sequence;
        }
        self.len += 1;
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether it is time to send.
    pub fn is_full(&self) -> bool {
        self.len >= MAX_REQUESTS || self.bytes.len() >= MAX_BYTES
    }

    /// Sends all of them and empties the batch: what became of each, in order.
    pub fn send(
        &mut self,
        client: &mut Client,
    ) -> Result<Vec<Result<(), ClientError>>, ClientError> {
        let batch = std::mem::take(self);
        let mut outcomes: Vec<Option<Result<(), ClientError>>> = Vec::new();
        outcomes.resize_with(batch.len, || None);
        if batch.len == 0 {
            return Ok(Vec::new());
        }
        send(&client.socket, &batch.bytes, SendFlags::NOSIGNAL).map_err(io::Error::from)?;
        let mut missing = batch.len;
        while missing > 0 {
            let len = client.receive()?;
            for message in Messages(client.buffer.get(..len).unwrap_or_default()) {
                let index = message.sequence.wrapping_sub(batch.first) as usize;
                if let (ERROR, Some(place @ None)) = (message.kind, outcomes.get_mut(index)) {
                    *place = Some(outcome(&message));
                    missing -= 1;
                }
            }
        }
        Ok(outcomes.into_iter().flatten().collect())
    }
}
