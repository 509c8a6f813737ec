//! Packets that the director itself sends, as they leave: those of a client on the director, and
//! the replies of a real server on it. Follows `ip_vs_local_request4` and `ip_vs_local_reply4`.

use crate::addr::Addr;
use crate::env::Tables;
use crate::flow::Flow;
use crate::layout::CONFIG_BACKUP_ONLY;
use crate::pipeline::{Forward, Verdict, of_entry, opens};
use crate::table;

/// What an outgoing packet is.
pub enum Outgoing<'e, A: Copy> {
    /// Nothing of ours.
    Other,
    /// A client's packet, to be treated like one that came in.
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
            // Who only takes connections from another director does not balance its own either.
            _ if env.config().is_some_and(|c| c.flags.get() & CONFIG_BACKUP_ONLY != 0) => {
                Outgoing::Other
            }
            _ => Outgoing::Request,
        };
    }
    if opens(env, flow) { Outgoing::Request } else { Outgoing::Other }
}
