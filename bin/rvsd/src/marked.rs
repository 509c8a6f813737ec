//! Packets that netfilter marks for fwmark services, and those that it tracks and does not translate: routed
//! to a device of ours, where a program takes them up, for TC ingress is before netfilter.

use std::collections::HashSet;

use rvs_core::tracked::{MARK, MARK_MASK};
use rvs_core::types::Family;
use rvs_datapath::BpfDatapath;
use rvs_host::{Host, Mark};

use crate::interfaces::Interfaces;

/// Routes exactly the marks that services have, and that of tracked connections. What fails is logged and
/// tried again when they change: rules of `rvs mark` and marks given before TC work without it, and no new
/// connection by direct routing or a tunnel, and of a client on the director, is tracked.
pub fn update(host: &mut Host, datapath: &mut BpfDatapath, interfaces: &mut Interfaces) {
    if !datapath.take_marks_changed() {
        return;
    }
    let services = datapath.marks().map(|(family, mark)| Mark { family, mark, mask: u32::MAX });
    let tracked = [Family::V4, Family::V6]
        .map(|family| Mark { family, mark: MARK, mask: MARK_MASK })
        .into_iter()
        .filter(|_| datapath.is_tracking());
    let marks: HashSet<Mark> = services.chain(tracked).collect();
    let routed = route(host, &marks, interfaces);
    datapath.set_coming_back(routed.is_ok() && datapath.is_tracking());
    if let Err(error) = routed {
        tracing::warn!("marks that netfilter gives are not seen: {error:#}");
    } else {
        warn_of_hosts(&marks, interfaces);
    }
    offer(datapath, interfaces);
}

/// Has netfilter translate what clients on the director send and get where the host forwards: elsewhere RVS
/// does, which asks for less.
pub fn offer(datapath: &BpfDatapath, interfaces: &Interfaces) {
    let forwards = |family| interfaces.not_forwarding().all(|(host, _)| host != family);
    let back = datapath.comes_back();
    datapath.set_own([Family::V4, Family::V6].map(|family| back && forwards(family)));
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
    let has_service =
        |family| marks.iter().any(|mark| mark.family == family && mark.mask == u32::MAX);
    for (family, interface) in
        interfaces.not_forwarding().filter(|(family, _)| has_service(*family))
    {
        tracing::warn!(
            %interface,
            "it does not forward {family:?}: marks that netfilter gives there are not seen; \
             those of `rvs mark` are"
        );
    }
}
