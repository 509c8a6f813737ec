//! Connections: what they are, how long they live, and what their end does.

use std::net::SocketAddr;

use rvs_core::types::{ForwardMethod, Protocol};

use crate::packet::Packet;
use crate::state::{Sender, State};
use crate::{Id, Jiffies, Model, jiffies};

/// Seconds for which a template lives on that expired while it had connections.
const PROLONGED: u32 = 60;

/// A connection.
#[derive(Clone, Debug)]
pub(crate) struct Conn {
    pub(crate) protocol: Protocol,
    pub(crate) client: SocketAddr,
    /// Where the client sends to.
    pub(crate) virt: SocketAddr,
    pub(crate) dest: Id,
    /// Address and port that the destination serves it at.
    pub(crate) target: SocketAddr,
    pub(crate) forward: ForwardMethod,
    pub(crate) state: State,
    /// When it ends if nothing more is seen.
    pub(crate) deadline: Jiffies,
    /// The template that it came about by, which may be gone.
    pub(crate) template: Option<Id>,
}

/// A template and the last of its connections end at one moment: whether the template lives on
/// depends on which is looked at first, in the kernel, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tie;

impl Model {
    /// Connections of a destination: those that are active, the others, and templates.
    pub(crate) fn counts(&self, dest: Id) -> [usize; 3] {
        let own = || self.conns.values().filter(|conn| conn.dest == dest);
        let active = own().filter(|conn| conn.state.is_active()).count();
        let templates = self.templates.values().filter(|template| template.dest == dest);
        [active, own().count() - active, templates.count()]
    }

    /// Connections of a destination of either kind, which thresholds are about.
    fn total(&self, dest: Id) -> usize {
        let [active, inactive, _] = self.counts(dest);
        active + inactive
    }

    /// A destination got a connection or template: perhaps that was the last for now.
    pub(crate) fn bound(&mut self, id: Id) {
        let total = self.total(id);
        let dest = self.dest_mut(id);
        let upper = dest.config.upper_threshold as usize;
        if upper != 0 && total >= upper {
            dest.overloaded = true;
        }
    }

    /// A destination lost a connection or template: perhaps it takes new ones again. It does below
    /// its lower threshold, or three quarters of the upper one if there is no lower one.
    pub(crate) fn unbound(&mut self, id: Id) {
        let total = self.total(id);
        let dest = self.dest_mut(id);
        let [upper, lower] =
            [dest.config.upper_threshold, dest.config.lower_threshold].map(|n| n as usize);
        let enough = if lower != 0 { total < lower } else { upper == 0 || total * 4 < upper * 3 };
        if enough {
            dest.overloaded = false;
        }
    }

    /// A connection ends.
    pub(crate) fn end(&mut self, id: Id) {
        let conn = self.conns.remove(&id).expect("it lived");
        self.unbound(conn.dest);
    }

    /// A template ends.
    pub(crate) fn end_template(&mut self, id: Id) {
        let template = self.templates.remove(&id).expect("it lived");
        self.unbound(template.dest);
    }

    /// A packet of a connection: its state, and how long it lives from now on.
    pub(crate) fn follow(&mut self, id: Id, sender: Sender, packet: &Packet) {
        let (now, timeouts) = (self.now, self.timeouts);
        let conn = self.conns.get_mut(&id).expect("it lives");
        let before = conn.state;
        if conn.protocol == Protocol::Tcp {
            conn.state = before.after(sender, packet.flags);
        }
        conn.deadline = now + jiffies(conn.state.timeout(&timeouts));
        // It has come about.
        let opened = conn.state == State::Established && before != State::Established;
        if opened || (conn.protocol == Protocol::Udp && sender == Sender::Server) {
            let template = conn.template.and_then(|id| self.templates.get_mut(&id));
            template.into_iter().for_each(|template| template.assured = true);
        }
    }

    /// When something ends next.
    pub fn due(&self) -> Option<Jiffies> {
        let conns = self.conns.values().map(|conn| conn.deadline);
        conns.chain(self.templates.values().map(|template| template.deadline)).min()
    }

    /// Time goes on to this moment, before which nothing was due.
    pub fn go_to(&mut self, now: Jiffies) {
        assert!(self.now <= now && self.due().is_none_or(|due| now <= due));
        self.now = now;
    }

    /// What is due ends.
    pub fn expire(&mut self) -> Result<(), Tie> {
        let now = self.now;
        let conns = self.conns.iter().filter(|(_, conn)| conn.deadline == now);
        let conns: Vec<Id> = conns.map(|(id, _)| *id).collect();
        let templates = self.templates.iter().filter(|(_, template)| template.deadline == now);
        let templates: Vec<Id> = templates.map(|(id, _)| *id).collect();
        let used = |model: &Self, template| {
            model.conns.values().any(|conn| conn.template == Some(template))
        };
        let used_before: Vec<Id> =
            templates.iter().copied().filter(|template| used(self, *template)).collect();
        conns.into_iter().for_each(|conn| self.end(conn));
        for id in templates {
            if !used_before.contains(&id) {
                self.end_template(id);
            } else if used(self, id) {
                let template = self.templates.get_mut(&id).expect("it lived");
                template.timeout = jiffies(PROLONGED);
                template.deadline = now + template.timeout;
            } else {
                return Err(Tie);
            }
        }
        Ok(())
    }
}
