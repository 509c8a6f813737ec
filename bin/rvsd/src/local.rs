//! What of the director's own traffic has to pass the programs: they are attached to the loopback
//! and to the interfaces' egress only while a service needs it there.

use std::collections::HashMap;
use std::net::IpAddr;

use rvs_core::types::{ForwardMethod, ServiceKey};
use rvs_datapath::BpfDatapath;
use rvs_host::Host;

/// Where the director's own packets have to be seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Need {
    /// On the loopback: clients of addresses that the director has.
    pub loopback: bool,
    /// On their way out: clients of addresses that it has not, packets that are marked on the way
    /// out, and replies of masqueraded real servers that are the director itself.
    pub egress: bool,
    /// On their way out, replies of real servers that netfilter translates: see [`crate::tracked`].
    pub replies: bool,
}

impl Need {
    /// Whether egress is to be seen.
    pub fn egress(&self) -> bool {
        self.egress || self.replies
    }

    /// Whether nothing more can be needed by a service.
    fn is_all(&self) -> bool {
        self.loopback && self.egress
    }
}

/// What the services need.
#[derive(Default)]
pub struct Local {
    need: Need,
    /// Whether an address is the director's own.
    known: HashMap<IpAddr, bool>,
}

impl Local {
    /// What is needed now that these services changed. What others do not need any more is found
    /// by [`refresh`](Self::refresh).
    pub fn enter(&mut self, host: &mut Host, datapath: &mut BpfDatapath) -> Need {
        for key in datapath.take_changed() {
            self.add(host, datapath, &key);
        }
        self.need.replies = datapath.is_tracking();
        self.need
    }

    /// What all services together need.
    pub fn refresh(&mut self, host: &mut Host, datapath: &BpfDatapath) -> Need {
        *self = Self::default();
        for key in datapath.keys() {
            self.add(host, datapath, key);
        }
        self.need.replies = datapath.is_tracking();
        self.need
    }

    fn add(&mut self, host: &mut Host, datapath: &BpfDatapath, key: &ServiceKey) {
        if self.need.is_all() {
            return;
        }
        let mut masqueraded = Vec::new();
        for dest in datapath.dests_of(key) {
            self.need.loopback = true;
            if dest.forward == ForwardMethod::Masquerade {
                masqueraded.push(dest.key.addr);
            }
        }
        if !self.need.loopback {
            return;
        }
        // What the host does not tell is looked up again with the next refresh; until then packets
        // are seen in vain rather than missed.
        self.need.egress |= match *key {
            ServiceKey::Address { addr, .. } => self.is_own(host, addr) != Some(true),
            ServiceKey::Fwmark { .. } => true,
        };
        for addr in masqueraded {
            self.need.egress |= self.is_own(host, addr) != Some(false);
        }
    }

    /// `None` if the host does not tell.
    fn is_own(&mut self, host: &mut Host, addr: IpAddr) -> Option<bool> {
        if let Some(own) = self.known.get(&addr) {
            return Some(*own);
        }
        match host.route(addr) {
            Ok(hop) => {
                let own = hop.is_some_and(|hop| hop.local);
                self.known.insert(addr, own);
                Some(own)
            }
            Err(error) => {
                tracing::warn!(%addr, "{error}");
                None
            }
        }
    }
}
