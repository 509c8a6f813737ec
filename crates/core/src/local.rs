//! Packets that the director itself sends, as they leave: those of a client on the director, and
//! the replies of a real server on it. Follows `ip_vs_local_request4` and `ip_vs_local_reply4`.

use crate::addr::Addr;
use crate::answer;
use crate::conn::{REPLY, Word};
use crate::env::Tables;
use crate::flow::Flow;
use crate::layout::CONFIG_BACKUP_ONLY;
use crate::pipeline::{Forward, Verdict, of_entry, opens};
use crate::table;

/// What an outgoing packet is.
pub enum Outgoing<'e, A: Copy> {
    /// Nothing of ours.
    Other,
    /// A client's packet, or one to be answered, to be treated like one that came in.
    Request,
    /// A masqueraded real server's packet to a client elsewhere.
    Reply(Forward<'e, A>),
}

/// Finds out. Nothing is scheduled or counted here.
#[inline(always)]
pub fn outgoing<'e, A: Addr, E: Tables<A>>(env: &'e E, flow: &mut Flow<A>) -> Outgoing<'e, A> {
    if let Some(entry) = table::entry(env, env.find(&flow.key)) {
        return match of_entry(env, entry) {
            Verdict::Forward(forward) if forward.reply => Outgoing::Reply(forward),
            Verdict::Pass(_) if Word(entry.word.get()).has(REPLY) => Outgoing::Other,
            // Who only takes connections from another director does not balance its own either.
            _ if env.config().is_some_and(|c| c.flags.get() & CONFIG_BACKUP_ONLY != 0) => {
                Outgoing::Other
            }
            _ => Outgoing::Request,
        };
    }
    // A real server's packet of no connection is answered like one from elsewhere.
    if opens(env, flow) || env.config().is_some_and(|config| answer::is_due(env, config, flow)) {
        return Outgoing::Request;
    }
    Outgoing::Other
}
