//! Packets that netfilter marks for fwmark services: routed to a device of ours, where a program
//! takes them up, for TC ingress is before netfilter.

use std::collections::HashSet;

use rvs_core::types::Family;
use rvs_datapath::BpfDatapath;
use rvs_host::{Host, Mark, forwards};

use crate::interfaces::Interfaces;

/// Routes exactly the marks that services have. What fails is logged and tried again when those
/// services change: rules of `rvs mark` and marks given before TC work without it.
pub fn update(host: &mut Host, datapath: &mut BpfDatapath, interfaces: &mut Interfaces) {
    let Some(marks) = datapath.take_marks() else { return };
    if let Err(error) = route(host, &marks, interfaces) {
        tracing::warn!("marks that netfilter gives are not seen: {error:#}");
    } else {
        warn_of_hosts(&marks, interfaces);
    }
}

fn route(
    host: &mut Host,
    marks: &HashSet<Mark>,
    interfaces: &mut Interfaces,
) -> anyhow::Result<()> {
    if marks.is_empty() {
        return Ok(host.forget_marked()?);
    }
    let index = host.make_marked_device()?;
    interfaces.attach_marked(index)?;
    Ok(host.route_marked(index, marks)?)
}

/// The stack routes marked packets to the device only where it routes at all.
fn warn_of_hosts(marks: &HashSet<Mark>, interfaces: &Interfaces) {
    for family in [Family::V4, Family::V6] {
        if !marks.iter().any(|(other, _)| *other == family) {
            continue;
        }
        for interface in interfaces.names().filter(|name| !forwards(family, name)) {
            tracing::warn!(
                %interface,
                "it does not forward {family:?}: marks that netfilter gives there are not seen; \
                 those of `rvs mark` are"
            );
        }
    }
}
