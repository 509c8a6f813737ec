//! Random cases, played on the model and on a data path, which must agree after each step.

mod case;
mod frame;
mod run;

use rvs_core::control::{Change, Datapath};
use rvs_core::types::{DestConfig, ServiceConfig, ServiceKey};

pub use case::{Case, Flow, Persistence, Place, Server, Spec, Step, cases};
pub use run::{Played, play};

use crate::Jiffies;

/// What a data path did with a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It left it to the host.
    Left,
    /// It found no destination.
    Refused,
    /// It dropped it.
    Dropped,
    /// It sent this frame on.
    On(Vec<u8>),
}

/// A data path to compare with the model.
pub trait Target {
    /// Whether it forgets deleted destinations by the case's clock; else not while a case lasts.
    const FORGETS: bool;

    /// Nothing configured, no connections, at moment 0.
    fn reset(&mut self);

    /// Its tables.
    fn datapath(&mut self) -> &mut dyn Datapath;

    /// Puts a service in force, in place of what it was.
    fn put(
        &mut self,
        key: &ServiceKey,
        config: &ServiceConfig,
        dests: &[DestConfig],
        change: Change,
    );

    /// A frame with a mark arrives.
    fn send(&mut self, frame: &[u8], mark: u32) -> Sent;

    /// Time goes on to this moment.
    fn go_to(&mut self, now: Jiffies);

    /// What has expired ends.
    fn sweep(&mut self);

    /// What nothing has used for long is free for new use.
    fn tidy(&mut self);

    /// Entries of the connection tables that are in use.
    fn entries(&mut self) -> usize;
}
