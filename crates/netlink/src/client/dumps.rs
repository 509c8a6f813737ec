//! Several dumps in one datagram: a listing of 10,000 services is not 10,000 round trips.

use std::io;

use rustix::net::{SendFlags, send};

use super::{Client, ClientError, outcome};
use crate::attr::{Attrs, Writer};
use crate::message::{DONE, ERROR, F_DUMP, Messages};

impl Client {
    /// Asks for the dumps of as many requests, of which there are few enough for one datagram (a
    /// hundred of services' keys are): every entry goes to `answer` with the number of its request.
    /// The first refusal ends it, once all are answered. A kernel is asked one by one: a
    /// netlink socket carries one dump at a time.
    pub fn dumps(
        &mut self,
        command: u8,
        requests: &[Writer],
        mut answer: impl FnMut(usize, &Attrs<'_>),
    ) -> Result<(), ClientError> {
        if self.is_kernel {
            return requests.iter().enumerate().try_for_each(|(number, attrs)| {
                self.dump(command, attrs, |_, attrs| answer(number, attrs))
            });
        }
        let first = self.sequence.wrapping_add(1);
        let request = |attrs| self.request(command, F_DUMP, attrs);
        let datagram = requests.iter().flat_map(request).collect::<Vec<u8>>();
        if datagram.is_empty() {
            return Ok(());
        }
        send(&self.socket, &datagram, SendFlags::NOSIGNAL).map_err(io::Error::from)?;
        let (mut ended, mut result) = (vec![false; requests.len()], Ok(()));
        while ended.contains(&false) {
            let len = self.receive()?;
            for message in Messages(self.buffer.get(..len).unwrap_or_default()) {
                let number = message.sequence.wrapping_sub(first) as usize;
                let Some(ended @ false) = ended.get_mut(number) else { continue };
                match message.kind {
                    ERROR | DONE => {
                        *ended = true;
                        result = result.and(outcome(&message));
                    }
                    _ => answer(number, &message.attrs()),
                }
            }
        }
        result
    }
}
