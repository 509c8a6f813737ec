//! What makes a service or a destination valid: `ip_vs_add_service`, `ip_vs_edit_service`,
//! `ip_vs_add_dest` and their callers. What the data path lacks it refuses itself.

use std::net::IpAddr;

use rvs_core::types::{
    DestConfig, Engine, Family, ForwardMethod, Scheduler, ServiceConfig, ServiceFlags, ServiceKey,
};
use rvs_netlink::errno::{EINVAL, ENOENT, ERANGE};
use rvs_netlink::ipvs;

use crate::Refusal;

/// Longest persistence timeout, in seconds; longer ones are cut. As many as fit the kernel's
/// jiffies at 250 Hz in 32 bits.
const MAX_TIMEOUT: u32 = i32::MAX as u32 / 250 * 2;

/// The configuration that a request asks for.
pub(crate) fn service_config(service: &ipvs::Service) -> Result<ServiceConfig, Refusal> {
    let Some(scheduler) = Scheduler::from_name(&service.scheduler) else {
        return Err(Refusal::new(ENOENT, format!("no scheduler {}", service.scheduler)));
    };
    let engine = match service.pe.as_deref() {
        Some(name) => Some(
            Engine::from_name(name)
                .ok_or_else(|| Refusal::new(ENOENT, format!("no persistence engine {name}")))?,
        ),
        None => None,
    };
    // The kernel takes any IPv4 mask.
    if service.key.family() == Family::V6 && !(1..=128).contains(&service.netmask) {
        let text = format!("an IPv6 prefix has 1 to 128 bits, not {}", service.netmask);
        return Err(Refusal::new(EINVAL, text));
    }
    let mut flags = service.flags;
    flags.remove(ServiceFlags::HASHED);
    let timeout = service.timeout.min(MAX_TIMEOUT);
    Ok(ServiceConfig { scheduler, flags, timeout, netmask: service.netmask, engine })
}

/// What is wrong with a destination whichever others there are.
pub(crate) fn dest_numbers(
    key: &ServiceKey,
    dest: &DestConfig,
    weight: i32,
) -> Result<(), Refusal> {
    if Family::of(dest.key.addr) != key.family() && dest.forward != ForwardMethod::Tunnel {
        return Err(Refusal::new(EINVAL, "only tunnels reach another address family"));
    }
    if weight < 0 {
        return Err(Refusal::new(ERANGE, format!("negative weight {weight}")));
    }
    let (lower, upper) = (dest.lower_threshold, dest.upper_threshold);
    if lower > upper {
        return Err(Refusal::new(ERANGE, format!("lower threshold {lower} above upper {upper}")));
    }
    if upper > i32::MAX as u32 {
        return Err(Refusal::new(EINVAL, format!("threshold {upper} is too great")));
    }
    if dest.tunnel_type == GUE && dest.tunnel_port == 0 {
        return Err(Refusal::new(EINVAL, "a GUE tunnel needs a port"));
    }
    if matches!(dest.forward, ForwardMethod::Local | ForwardMethod::Bypass) {
        return Err(Refusal::new(EINVAL, "not a forwarding method to choose"));
    }
    Ok(())
}

/// `IP_VS_CONN_F_TUNNEL_TYPE_GUE`
const GUE: u8 = 1;

/// What is wrong with a destination's address.
pub(crate) fn dest_addr(dest: &DestConfig) -> Result<(), Refusal> {
    let addr = dest.key.addr;
    let is_unicast = match addr {
        IpAddr::V4(addr) => !(addr.is_unspecified() || addr.is_multicast() || addr.is_broadcast()),
        IpAddr::V6(addr) => !(addr.is_unspecified() || addr.is_multicast()),
    };
    if is_unicast {
        return Ok(());
    }
    Err(Refusal::new(EINVAL, format!("{addr} is not a unicast address")))
}
