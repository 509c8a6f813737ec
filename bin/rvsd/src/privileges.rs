//! What rvsd gives up once it has started: capabilities(7), and the way back to them.

use anyhow::{Context, Result};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// What a running rvsd needs: CAP_NET_ADMIN, to attach to interfaces that come later, to enter
/// neighbours, and for netfilter. Maps are changed through descriptors and memory that are open by then, and pins
/// belong to the user that rvsd runs as.
const NEEDED: CapabilitySet = CapabilitySet::NET_ADMIN;
/// What mounting takes: with `--proc` it is kept, to mount and at the end to unmount.
const MOUNTS: CapabilitySet = CapabilitySet::SYS_ADMIN;

/// Gives up all other capabilities of this thread, and of the threads that it will start, for
/// good. To be called while there is no other thread.
pub fn give_up(mounts: bool) -> Result<()> {
    let needed = if mounts { NEEDED.union(MOUNTS) } else { NEEDED };
    set_no_new_privs(true).context("cannot set no_new_privs")?;
    // First, because it needs CAP_SETPCAP. The kernel knows less than 64 and names the end.
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        match capability_is_in_bounding_set(capability) {
            Ok(false) => continue,
            Ok(true) => {}
            Err(_) => break,
        }
        if let Err(error) = remove_capability_from_bounding_set(capability) {
            // Who started rvsd kept CAP_SETPCAP from it; no_new_privs holds all the same.
            tracing::debug!("cannot empty the capability bounding set: {error}");
            break;
        }
    }
    let kept = capabilities(None).context("cannot read capabilities")?.permitted & needed;
    let sets =
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).context("cannot give up capabilities")
}
