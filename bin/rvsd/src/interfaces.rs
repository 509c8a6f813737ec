//! Which interfaces the programs are attached to, and with which hook.

use std::collections::HashMap;

use anyhow::{Result, bail};
use rvs_datapath::attach::{self, Attached, Mode, Target};
use rvs_datapath::{Maps, Object};
use rvs_host::{Host, Interface};

use crate::args::Args;
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
}

impl Interfaces {
    /// Nothing is attached yet.
    pub fn new(object: Object, args: &Args) -> Self {
        let (attached, failed) = (HashMap::new(), HashMap::new());
        let wanted = args.interfaces.clone();
        Self { object, wanted, mode: args.mode, looked: false, attached, failed }
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
        let wanted: Vec<_> = found.iter().filter(|i| self.wants(i, &found)).collect();
        for interface in wanted {
            self.attach(interface, maps, first)?;
        }
        Ok(())
    }

    /// Whether to attach to the interface. With a wanted one come its VLANs, and theirs: their packets
    /// arrive by it, and a router has them arrive at the VLAN.
    fn wants(&self, interface: &Interface, found: &[Interface]) -> bool {
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
        let target = Target {
            index: interface.index,
            name: interface.name.clone(),
            kind: interface.kind.clone(),
            mac: interface.mac,
        };
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
