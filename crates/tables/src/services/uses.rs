//! What packets can be for at all, in `CONFIG`: the ports of services, whether any are by mark, for
//! all ports or have an engine. Counted, so that a change costs the same however many services there are.

use std::collections::HashMap;

use rvs_core::layout::{CONFIG_ENGINE, CONFIG_FWMARK, CONFIG_PORT_ZERO};
use rvs_core::types::{Protocol, ServiceConfig, ServiceKey};

use super::Services;
use crate::memory::Memory;

/// What a service makes packets looked at for.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Use {
    Port(Protocol, u16),
    /// A bit of `Config::flags`.
    Flag(u32),
}

/// Uses, by the number of services that have each.
pub(super) type Uses = HashMap<Use, u32>;

/// What a service needs.
fn uses(key: &ServiceKey, config: &ServiceConfig) -> impl Iterator<Item = Use> {
    let (port, flag) = match *key {
        ServiceKey::Address { protocol, port, .. } => {
            (Some(Use::Port(protocol, port)), (port == 0).then_some(CONFIG_PORT_ZERO))
        }
        ServiceKey::Fwmark { .. } => (None, Some(CONFIG_FWMARK)),
    };
    let engine = config.engine.map(|_| CONFIG_ENGINE);
    port.into_iter().chain(flag.into_iter().chain(engine).map(Use::Flag))
}

impl<M: Memory> Services<M> {
    /// Before a service gets packets.
    pub(super) fn begin_uses(&mut self, key: &ServiceKey, config: &ServiceConfig) {
        self.marks_changed |= matches!(key, ServiceKey::Fwmark { .. });
        for used in uses(key, config) {
            let count = self.uses.entry(used).or_default();
            *count += 1;
            if *count == 1 {
                self.show(used, true);
            }
        }
    }

    /// Once a service gets no more packets.
    pub(super) fn end_uses(&mut self, key: &ServiceKey, config: &ServiceConfig) {
        self.marks_changed |= matches!(key, ServiceKey::Fwmark { .. });
        for used in uses(key, config) {
            let count = self.uses.get(&used).map_or(0, |count| count - 1);
            if count > 0 {
                self.uses.insert(used, count);
            } else {
                self.uses.remove(&used);
                self.show(used, false);
            }
        }
    }

    /// Counts the uses of all services and puts in order what the maps have of them.
    pub(super) fn adopt_uses(&mut self) {
        self.uses.clear();
        let services: Vec<_> = self.services.iter().map(|s| (s.key, s.config)).collect();
        for (key, config) in services {
            self.begin_uses(&key, &config);
        }
        for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Sctp] {
            for used in (0..=u16::MAX).map(|port| Use::Port(protocol, port)) {
                self.show(used, self.uses.contains_key(&used));
            }
        }
        for used in [CONFIG_PORT_ZERO, CONFIG_FWMARK, CONFIG_ENGINE].map(Use::Flag) {
            self.show(used, self.uses.contains_key(&used));
        }
    }

    /// Tells the data path.
    fn show(&self, used: Use, is_used: bool) {
        let config = self.maps.config();
        match used {
            Use::Port(protocol, port) => {
                let row = match protocol {
                    Protocol::Tcp => 0,
                    Protocol::Udp => 1,
                    Protocol::Sctp => 2,
                };
                let word = &config.ports[row][usize::from(port) >> 6];
                let others = word.get() & !(1 << (port & 63));
                word.set(others | u64::from(is_used) << (port & 63));
            }
            Use::Flag(flag) => {
                let others = config.flags.get() & !flag;
                config.flags.set(others | if is_used { flag } else { 0 });
            }
        }
    }
}
