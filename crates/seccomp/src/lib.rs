//! Seccomp user notification (seccomp_unotify(2)): a program's system calls, chosen by a filter, are
//! answered by another process. Part of the client shim, for programs into which no library can be
//! preloaded; here because no library that is well kept has it.

mod about;
mod filter;
mod listener;

pub use about::ASKING;
pub use filter::{Condition, Rule, install};
pub use listener::{Call, Listener, Reply, cap_ack};
