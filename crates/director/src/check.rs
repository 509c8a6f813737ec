//! What makes a service or a destination valid: `ip_vs_add_service`, `ip_vs_edit_service`,
//! `ip_vs_add_dest` and their callers.

use std::net::IpAddr;

use rvs_core::control::Datapath;
use rvs_core::types::{
    DestConfig, Family, ForwardMethod, Scheduler, ServiceConfig, ServiceFlags, ServiceKey,
};
use rvs_netlink::errno::{EINVAL, ENOENT, EOPNOTSUPP, ERANGE};
use rvs_netlink::ipvs;

use crate::Refusal;

/// Longest persistence timeout, in seconds (`IP_VS_SVC_F_PERSISTENT` timeouts are kept in
/// jiffies in the kernel; ipvsadm has the same limit).
const MAX_TIMEOUT: u32 = (1 << 31) / 1000;

/// The configuration that a request asks for.
pub(crate) fn service_config(
    datapath: &impl Datapath,
    service: &ipvs::Service,
) -> Result<ServiceConfig, Refusal> {
    if let ServiceKey::Address { protocol, .. } = service.key
        && !datapath.supports(protocol)
    {
        return Err(Refusal::new(
            EOPNOTSUPP,
            format!("{protocol:?} services are not balanced yet"),
        ));
    }
    let Some(scheduler) = Scheduler::from_name(&service.scheduler) else {
        return Err(Refusal::new(ENOENT, format!("no scheduler {}", service.scheduler)));
    };
    if let Some(pe) = &service.pe {
        return Err(Refusal::new(ENOENT, format!("no persistence engine {pe}")));
    }
    if service.flags.contains(ServiceFlags::ONEPACKET) {
        return Err(Refusal::new(EOPNOTSUPP, "one-packet scheduling is not there yet"));
    }
    let full = match service.key.family() {
        // The kernel takes any mask.
        Family::V4 => true,
        Family::V6 => (1..=128).contains(&service.netmask) || service.netmask == u32::MAX,
    };
    if !full {
        return Err(Refusal::new(EINVAL, format!("bad netmask {:#x}", service.netmask)));
    }
    let netmask = match service.key.family() {
        Family::V6 if service.netmask == u32::MAX => 128,
        _ => service.netmask,
    };
    let mut flags = service.flags;
    flags.remove(ServiceFlags::HASHED);
    Ok(ServiceConfig { scheduler, flags, timeout: service.timeout.min(MAX_TIMEOUT), netmask })
}

/// Whether a destination can be one of `service`.
pub(crate) fn dest(
    key: &ServiceKey,
    service: &ServiceConfig,
    dest: &DestConfig,
    weight: i32,
) -> Result<(), Refusal> {
    if weight < 0 {
        return Err(Refusal::new(ERANGE, format!("negative weight {weight}")));
    }
    if dest.lower_threshold > dest.upper_threshold {
        let (lower, upper) = (dest.lower_threshold, dest.upper_threshold);
        return Err(Refusal::new(ERANGE, format!("lower threshold {lower} above upper {upper}")));
    }
    let same_family = Family::of(dest.key.addr) == key.family();
    if !same_family && dest.forward != ForwardMethod::Tunnel {
        return Err(Refusal::new(EINVAL, "only tunnels reach another address family"));
    }
    if !is_unicast(dest.key.addr) {
        return Err(Refusal::new(EINVAL, format!("{} is not a unicast address", dest.key.addr)));
    }
    if dest.tunnel_type != 0 && dest.forward == ForwardMethod::Tunnel {
        return Err(Refusal::new(EOPNOTSUPP, "only ipip tunnels are there yet"));
    }
    if matches!(dest.forward, ForwardMethod::Local | ForwardMethod::Bypass) {
        return Err(Refusal::new(EINVAL, "not a forwarding method to choose"));
    }
    let _ = service;
    Ok(())
}

fn is_unicast(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => !(addr.is_unspecified() || addr.is_multicast() || addr.is_broadcast()),
        IpAddr::V6(addr) => !(addr.is_unspecified() || addr.is_multicast()),
    }
}
