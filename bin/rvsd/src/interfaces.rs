//! Which interfaces the programs are attached to, and with which hook.

use std::collections::HashMap;

use anyhow::{Result, bail};
use rvs_core::sysctl::Sysctl;
use rvs_core::types::Family;
use rvs_datapath::attach::{self, Attached, Hook, Mode, Target};
use rvs_datapath::{Maps, Object};
use rvs_host::{Host, Interface, MARKED, forwards};

use crate::args::Args;
use crate::local::Need;
use crate::slow;

/// The attached interfaces.
pub struct Interfaces {
    object: Object,
    /// Names asked for; all if empty.
    wanted: Vec<String>,
    mode: Mode,
    /// Whether it was looked for interfaces before.
    looked: bool,
    attached: HashMap<u32, (Target, Attached)>,
    /// Interfaces that could not be attached to, so that it is said once.
    failed: HashMap<u32, String>,
    /// What was found last of the loopback.
    loopback: Option<Target>,
    /// Where the director's own packets are to be seen.
    need: Need,
    /// Interfaces with a program for it, whether at their egress, and its hook: the loopback, and others at their
    /// egress.
    local: HashMap<(u32, bool), Hook>,
    /// Whether decapsulated packets are the host's (`ignore_tunneled`).
    ignores_tunneled: bool,
}

impl Interfaces {
    /// Nothing is attached yet.
    pub fn new(object: Object, args: &Args) -> Self {
        Self {
            object,
            wanted: args.interfaces.clone(),
            mode: args.mode,
            looked: false,
            attached: HashMap::new(),
            failed: HashMap::new(),
            loopback: None,
            need: Need::default(),
            local: HashMap::new(),
            ignores_tunneled: false,
        }
    }

    /// Attaches to what came up, forgets what is gone. An interface that was asked for by name
    /// and is not there at the first call is an error.
    pub fn refresh(&mut self, host: &mut Host, maps: &Maps) -> Result<()> {
        let found = host.interfaces()?;
        let first = !std::mem::replace(&mut self.looked, true);
        for name in &self.wanted {
            if first && !found.iter().any(|i| i.name == *name) {
                bail!("there is no interface {name}");
            }
        }
        let is_gone = |index: u32| !found.iter().any(|i| i.index == index);
        attach::forget(&self.object.pin, maps, is_gone);
        self.attached.retain(|index, _| !is_gone(*index));
        self.failed.retain(|index, _| !is_gone(*index));
        self.ignores_tunneled = ignores_tunneled(maps);
        let (ignored, found_here): (Vec<_>, Vec<_>) =
            found.iter().partition(|i| i.decapsulates && self.ignores_tunneled);
        for interface in ignored {
            self.leave(interface);
        }
        let wanted: Vec<_> = found_here.into_iter().filter(|i| self.wants(i, &found)).collect();
        for interface in wanted {
            self.attach(interface, maps, first)?;
        }
        self.local.retain(|(index, _), _| !is_gone(*index));
        self.loopback = found.iter().find(|i| i.loopback).map(target);
        // The slow path gives back what it had from there, too.
        self.loopback.iter().for_each(|target| attach::publish(maps, target, Hook::Tc));
        if !first {
            self.attach_local();
        }
        Ok(())
    }

    /// Whether the setting about decapsulated packets is another than at the last look.
    pub fn is_outdated(&self, maps: &Maps) -> bool {
        self.looked && self.ignores_tunneled != ignores_tunneled(maps)
    }

    /// Leaves all packets of an interface to the host, whoever attached to it.
    fn leave(&mut self, interface: &Interface) {
        let target = target(interface);
        attach::detach_all(&self.object, &target);
        self.local.remove(&(target.index, true));
        if self.attached.remove(&target.index).is_some() {
            tracing::info!(interface = %target.name, "detached: tunneled packets are ignored");
        }
    }

    /// Attaches for the director's own packets where that is needed, and nowhere else.
    pub fn need(&mut self, need: Need) {
        if need != self.need {
            if need.replies && !self.need.replies {
                self.warn_of_hosts();
            }
            self.need = need;
            self.attach_local();
        }
    }

    /// Netfilter's packets get on only where the stack forwards.
    fn warn_of_hosts(&self) {
        for (family, interface) in self.not_forwarding() {
            tracing::warn!(
                %interface,
                "it does not forward {family:?}: tracked connections do not get on from there"
            );
        }
    }

    /// Attaches to the device that marked packets are routed to.
    pub fn attach_marked(&mut self, index: u32) -> Result<()> {
        let target = Target { index, name: MARKED.to_owned(), kind: None, mac: None, bare: false };
        Ok(attach::attach_marked(&mut self.object, &target)?)
    }

    /// The names of the attached interfaces from which the stack does not forward, by family.
    pub fn not_forwarding(&self) -> impl Iterator<Item = (Family, &str)> {
        [Family::V4, Family::V6].into_iter().flat_map(|family| {
            let names = self.attached.values().map(|(target, _)| target.name.as_str());
            names.filter(move |name| !forwards(family, name)).map(move |name| (family, name))
        })
    }

    /// [`Self::need`] at the start: programs that a former rvsd attached are exchanged, or detached if
    /// they are not needed any more.
    pub fn need_first(&mut self, need: Need) {
        self.need = need;
        let egress = self.attached.values();
        let egress = egress.map(|(target, _)| (target, Hook::Egress, need.egress()));
        for (target, hook, needed) in egress.chain(on_loopback(&self.loopback, need)) {
            if !needed {
                attach::detach(&self.object, target.index, &target.name, hook);
            }
        }
        self.attach_local();
    }

    fn attach_local(&mut self) {
        let need = self.need;
        // What has no MAC address has no Ethernet header that the programs could read.
        let egress = self.attached.values().map(|(target, _)| target).filter(|t| t.mac.is_some());
        let outgoing = if need.replies { Hook::Replies } else { Hook::Egress };
        let egress = egress.map(|target| (target, outgoing, need.egress()));
        for (target, hook, needed) in egress.chain(on_loopback(&self.loopback, need)) {
            let place = (target.index, hook != Hook::Tc);
            if self.local.get(&place).copied() == needed.then_some(hook) {
                continue;
            }
            let interface = &target.name;
            if !needed {
                self.local.remove(&place);
                attach::detach(&self.object, target.index, interface, hook);
                tracing::info!(%interface, %hook, "detached: no service needs it");
                continue;
            }
            let attached = match hook {
                Hook::Tc => attach::attach_loopback(&mut self.object, target),
                _ => attach::attach_egress(&mut self.object, target, hook),
            };
            match attached {
                Ok(()) => tracing::info!(%interface, %hook, why = "own packets", "attached"),
                Err(error) => tracing::error!(%interface, "{error}"),
            }
            self.local.insert(place, hook);
        }
    }

    /// Whether to attach to the interface. With a wanted one come its VLANs, and theirs: their packets
    /// arrive by it, and a router has them arrive at the VLAN.
    fn wants(&self, interface: &Interface, found: &[Interface]) -> bool {
        if interface.name == MARKED {
            return false;
        }
        if !self.wanted.is_empty() {
            let parent = found.iter().find(|i| Some(i.index) == interface.parent);
            return self.wanted.contains(&interface.name)
                || parent.is_some_and(|parent| self.wants(parent, found));
        }
        // Ports of a bridge or bond are left to the bridge or bond; ours and another rvsd's device
        // of the slow path are no way in.
        let slow = interface.name.starts_with(slow::PREFIX);
        interface.up && !slow && !interface.loopback && interface.master.is_none()
    }

    fn attach(&mut self, interface: &Interface, maps: &Maps, first: bool) -> Result<()> {
        let target = target(interface);
        if let Some((known, attached)) = self.attached.get_mut(&target.index) {
            if *known != target {
                attach::publish(maps, &target, attached.hook);
                *known = target;
            }
            return Ok(());
        }
        match attach::attach(&mut self.object, maps, &target, self.mode) {
            Ok(attached) => {
                let (interface, hook) = (&target.name, attached.hook);
                tracing::info!(%interface, %hook, why = %attached.why, "attached");
                self.attached.insert(target.index, (target, attached));
            }
            Err(error) if first && !self.wanted.is_empty() => return Err(error.into()),
            Err(error) => {
                let text = error.to_string();
                if self.failed.get(&target.index) != Some(&text) {
                    tracing::error!(interface = %target.name, "{text}");
                    self.failed.insert(target.index, text);
                }
            }
        }
        Ok(())
    }
}

/// The loopback's hooks, and whether they are needed.
fn on_loopback(
    loopback: &Option<Target>,
    need: Need,
) -> impl Iterator<Item = (&Target, Hook, bool)> {
    let hooks = [(Hook::Tc, need.loopback), (Hook::Replies, need.replies)];
    loopback.iter().flat_map(move |target| hooks.map(|(hook, needed)| (target, hook, needed)))
}

fn ignores_tunneled(maps: &Maps) -> bool {
    maps.config().sysctl(Sysctl::IgnoreTunneled) != 0
}

fn target(interface: &Interface) -> Target {
    Target {
        index: interface.index,
        name: interface.name.clone(),
        kind: interface.kind.clone(),
        mac: interface.mac,
        bare: interface.bare,
    }
}
