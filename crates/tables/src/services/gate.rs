//! Which addresses' fragments may wait for their first: those of services, and those that
//! masqueraded destinations reply from. See `rvs_core::fragment`.

use rvs_core::addr::words;
use rvs_core::fragment::{Slow, gate};
use rvs_core::types::{DestConfig, ForwardMethod, ServiceKey};

use super::Services;
use crate::memory::Memory;

/// Lets a service's fragments, and those of its destinations' replies, through.
fn open<'d>(
    key: &ServiceKey,
    dests: impl Iterator<Item = &'d DestConfig>,
    mut set: impl FnMut(usize, u64),
) {
    if let ServiceKey::Address { addr, .. } = key {
        let (word, bit) = gate(words(*addr));
        set(word, bit);
    }
    for dest in dests.filter(|dest| dest.forward == ForwardMethod::Masquerade) {
        let (word, bit) = gate(words(dest.key.addr));
        set(word, bit);
    }
}

impl<M: Memory> Services<M> {
    /// Before a service or its destinations get packets.
    pub(super) fn open_gate(&self, key: &ServiceKey, dests: &[DestConfig]) {
        let Slow { gate, .. } = self.maps.slow();
        open(key, dests.iter(), |word, bit| {
            if let Some(cell) = gate.get(word) {
                cell.set(cell.get() | bit);
            }
        });
    }

    /// Computes the gate anew, so that it closes for what is gone.
    pub(super) fn update_gate(&mut self) {
        let Slow { gate: cells, .. } = self.maps.slow();
        let mut bits = vec![0u64; cells.len()];
        for service in &self.services {
            let dests = service.dests.iter().map(|placed| &placed.config);
            open(&service.key, dests, |word, bit| bits[word] |= bit);
        }
        // Their connections go on.
        for trash in &self.trash {
            let (word, bit) = gate(words(trash.key.addr));
            bits[word] |= bit;
        }
        for (cell, bits) in cells.iter().zip(bits) {
            if cell.get() != bits {
                cell.set(bits);
            }
        }
    }
}
