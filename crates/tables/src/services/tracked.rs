//! Connections that netfilter tracks: it is told of every destination, before packets are.

use std::collections::HashSet;

use rvs_core::app;
use rvs_core::control::DatapathError;
use rvs_core::layout::{CONFIG_COMES_BACK, CONFIG_OWN4, CONFIG_OWN6};
use rvs_core::sysctl::Sysctl;
use rvs_core::types::{DestConfig, DestKey, ForwardMethod, Protocol, ServiceKey};

use super::Services;
use super::adopt::dest_key;
use crate::memory::Memory;

/// What translates the packets of tracked connections.
pub trait Translator: Send {
    /// Begins, with these destinations, by place, and these services of masqueraded ones; the errno if the
    /// kernel cannot.
    fn start(&mut self, dests: Vec<(u32, DestKey)>, services: Vec<ServiceKey>) -> Result<(), i32>;
    /// A destination got this place.
    fn enter(&mut self, index: u32, dest: DestKey);
    /// The destination in this place is gone.
    fn leave(&mut self, index: u32);
    /// A service got a masqueraded destination.
    fn enter_service(&mut self, key: &ServiceKey);
    /// Nobody has connections of the service any more.
    fn leave_service(&mut self, key: &ServiceKey);
    /// Repairs what others broke.
    fn check(&mut self);
    /// Ends.
    fn stop(&mut self);
}

/// How long, in calls of [`Services::tick`], no connection has been tracked before the translator ends:
/// packets may be about to open one while the setting changes, and are counted every half a second.
const IDLE: u32 = 3;

/// Whether and by whom packets are translated.
#[derive(Default)]
pub(super) struct Tracking {
    translator: Option<Box<dyn Translator>>,
    /// Whether it has begun.
    begun: bool,
    /// Ticks for which nothing has been tracked.
    idle: u32,
    /// Services that the director's own clients may have tracked connections of: they are masqueraded, or
    /// were and are still there.
    services: HashSet<ServiceKey>,
}

/// Whether netfilter can know a packet for the service, and no helper reads what it says.
fn is_known_by_address(key: &ServiceKey) -> bool {
    match *key {
        ServiceKey::Address { protocol, port, .. } => (protocol, port) != (Protocol::Tcp, app::FTP),
        ServiceKey::Fwmark { .. } => false,
    }
}

impl<M: Memory> Services<M> {
    /// Has `translator` translate packets whenever connections are tracked, as they may be already: the
    /// error is about that. Without one nobody is told.
    pub fn translate_by(&mut self, translator: Box<dyn Translator>) -> Result<(), DatapathError> {
        self.tracking = Tracking { translator: Some(translator), ..Tracking::default() };
        let config = self.maps.config();
        if config.sysctl(Sysctl::Conntrack) != 0 || config.tracked.get() != 0 {
            self.begin_tracking()?;
        }
        Ok(())
    }

    /// Whether connections are, or may be, tracked.
    pub fn is_tracking(&self) -> bool {
        self.tracking.begun
    }

    /// From now on packets that netfilter only tracks come back to the programs, or do not.
    pub fn set_coming_back(&self, comes: bool) {
        let flags = &self.maps.config().flags;
        let others = flags.get() & !CONFIG_COMES_BACK;
        flags.set(others | if comes { CONFIG_COMES_BACK } else { 0 });
    }

    /// Whether packets that netfilter only tracks come back to the programs.
    pub fn comes_back(&self) -> bool {
        self.maps.config().flags.get() & CONFIG_COMES_BACK != 0
    }

    /// From now on connections of the director's own clients may be tracked, those of IPv4 and those of IPv6.
    pub fn set_own(&self, [v4, v6]: [bool; 2]) {
        let flags = &self.maps.config().flags;
        let others = flags.get() & !(CONFIG_OWN4 | CONFIG_OWN6);
        let own = if v4 { CONFIG_OWN4 } else { 0 } | if v6 { CONFIG_OWN6 } else { 0 };
        flags.set(others | own);
    }

    pub(super) fn begin_tracking(&mut self) -> Result<(), DatapathError> {
        let mut services: HashSet<ServiceKey> = self.ghosts.keys().copied().collect();
        let masqueraded = self.services.iter().filter(|service| {
            service.dests.iter().any(|dest| dest.config.forward == ForwardMethod::Masquerade)
        });
        services.extend(masqueraded.map(|service| service.key));
        services.retain(is_known_by_address);
        let dests = self.maps.dests().iter().zip(0..).skip(1);
        let dests = dests.filter_map(|(dest, index)| Some((index, dest_key(dest)?))).collect();
        let Tracking { translator, begun, idle, services: known } = &mut self.tracking;
        *idle = 0;
        if let Some(translator) = translator.as_mut().filter(|_| !*begun) {
            let all = services.iter().copied().collect();
            translator.start(dests, all).map_err(DatapathError::Netfilter)?;
            *known = services;
            *begun = true;
            self.marks_changed = true;
        }
        Ok(())
    }

    pub(super) fn track_dest(&mut self, index: u32, dest: DestKey) {
        if let Some(translator) = self.translator() {
            translator.enter(index, dest);
        }
    }

    pub(super) fn untrack_dest(&mut self, index: u32) {
        if let Some(translator) = self.translator() {
            translator.leave(index);
        }
    }

    /// To be called before packets find a service with these destinations.
    pub(super) fn track_service(&mut self, key: &ServiceKey, dests: &[DestConfig]) {
        let masqueraded = dests.iter().any(|dest| dest.forward == ForwardMethod::Masquerade);
        if self.tracking.begun
            && masqueraded
            && is_known_by_address(key)
            && self.tracking.services.insert(*key)
            && let Some(translator) = self.translator()
        {
            translator.enter_service(key);
        }
    }

    /// To be called when the last connection of a service that was removed has ended.
    pub(super) fn untrack_service(&mut self, key: &ServiceKey) {
        if self.tracking.services.remove(key)
            && let Some(translator) = self.translator()
        {
            translator.leave_service(key);
        }
    }

    /// Looks after the translator, and ends it once the setting is off and the last tracked connection has
    /// ended.
    pub(super) fn check_tracking(&mut self) {
        let config = self.maps.config();
        let idle = config.sysctl(Sysctl::Conntrack) == 0 && config.tracked.get() == 0;
        self.tracking.idle = if idle { self.tracking.idle + 1 } else { 0 };
        let ends = self.tracking.idle >= IDLE;
        let Some(translator) = self.translator() else { return };
        if ends {
            translator.stop();
            self.tracking.begun = false;
            self.tracking.services.clear();
            self.marks_changed = true;
        } else {
            translator.check();
        }
    }

    fn translator(&mut self) -> Option<&mut Box<dyn Translator>> {
        let Tracking { translator, begun, .. } = &mut self.tracking;
        translator.as_mut().filter(|_| *begun)
    }
}
