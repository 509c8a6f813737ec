//! Connections that netfilter tracks: it is told of every destination, before packets are.

use rvs_core::control::DatapathError;
use rvs_core::layout::CONFIG_COMES_BACK;
use rvs_core::sysctl::Sysctl;
use rvs_core::types::DestKey;

use super::Services;
use super::adopt::dest_key;
use crate::memory::Memory;

/// What translates the packets of tracked connections.
pub trait Translator: Send {
    /// Begins, with these destinations, by place; the errno if the kernel cannot.
    fn start(&mut self, dests: Vec<(u32, DestKey)>) -> Result<(), i32>;
    /// A destination got this place.
    fn enter(&mut self, index: u32, dest: DestKey);
    /// The destination in this place is gone.
    fn leave(&mut self, index: u32);
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

    pub(super) fn begin_tracking(&mut self) -> Result<(), DatapathError> {
        let dests = self.maps.dests().iter().zip(0..).skip(1);
        let dests = dests.filter_map(|(dest, index)| Some((index, dest_key(dest)?))).collect();
        let Tracking { translator, begun, idle } = &mut self.tracking;
        *idle = 0;
        if let Some(translator) = translator.as_mut().filter(|_| !*begun) {
            translator.start(dests).map_err(DatapathError::Netfilter)?;
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
