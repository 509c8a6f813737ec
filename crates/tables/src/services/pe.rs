//! What persistence engines need of the configuration: whether there are any.

use rvs_core::layout::CONFIG_ENGINE;
use rvs_core::types::ServiceConfig;

use super::Services;
use crate::memory::Memory;

impl<M: Memory> Services<M> {
    /// To be called before a version with an engine is in force, so that its packets are given to it.
    pub(super) fn expect_engine(&self, config: &ServiceConfig) {
        if config.engine.is_some() {
            let flags = &self.maps.config().flags;
            flags.set(flags.get() | CONFIG_ENGINE);
        }
    }
}
