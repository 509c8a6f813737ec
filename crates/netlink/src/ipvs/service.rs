//! Services.

use std::net::IpAddr;

use rvs_core::types::{Family, Protocol, ServiceFlags, ServiceKey};

use super::addr::{addr, addr_bytes, af, family};
use super::policy::{self, misfit};
use super::svc_attr;
use crate::attr::{Attrs, Writer};
use crate::errno;

/// A service as the protocol speaks of it. Names are text: who receives it decides what it knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Which.
    pub key: ServiceKey,
    /// Scheduler's name.
    pub scheduler: String,
    /// Flags.
    pub flags: ServiceFlags,
    /// Persistence timeout in seconds.
    pub timeout: u32,
    /// Persistence granularity: see `ServiceConfig::netmask`.
    pub netmask: u32,
    /// Persistence engine's name.
    pub pe: Option<String>,
}

/// Puts what names a service.
pub fn put_service_key(attrs: &mut Writer, key: &ServiceKey) {
    attrs.u16(svc_attr::AF, af(key.family()));
    match key {
        ServiceKey::Fwmark { mark, .. } => {
            attrs.u32(svc_attr::FWMARK, *mark);
        }
        ServiceKey::Address { protocol, addr, port } => {
            attrs
                .u16(svc_attr::PROTOCOL, *protocol as u16)
                .put(svc_attr::ADDR, &addr_bytes(*addr))
                .be16(svc_attr::PORT, *port);
        }
    }
}

/// Reads what names a service (`ip_vs_genl_parse_service`). The kernel takes mark 0 for no mark,
/// and no address then for the unspecified one.
pub fn service_key(attrs: &Attrs<'_>) -> Result<ServiceKey, i32> {
    if misfit(attrs, policy::SERVICE).is_some() {
        return Err(errno::EINVAL);
    }
    let number = attrs.u16(svc_attr::AF).ok_or(errno::EINVAL)?;
    let mark = attrs.u32(svc_attr::FWMARK);
    let address =
        (attrs.u16(svc_attr::PROTOCOL), attrs.find(svc_attr::ADDR), attrs.be16(svc_attr::PORT));
    if mark.is_none() && !matches!(address, (Some(_), Some(_), Some(_))) {
        return Err(errno::EINVAL);
    }
    let family = family(number).ok_or(errno::EAFNOSUPPORT)?;
    if let Some(mark) = mark {
        return Ok(match mark {
            0 => {
                let addr: IpAddr = family.unspecified();
                ServiceKey::Address { protocol: Protocol::Tcp, addr, port: 0 }
            }
            mark => ServiceKey::Fwmark { family, mark },
        });
    }
    let (Some(protocol), Some(bytes), Some(port)) = address else { return Err(errno::EINVAL) };
    let protocol = u8::try_from(protocol).ok().and_then(Protocol::from_number);
    let protocol = protocol.ok_or(errno::EPROTONOSUPPORT)?;
    Ok(ServiceKey::Address { protocol, addr: addr(family, bytes), port })
}

/// Puts a whole service.
pub fn put_service(attrs: &mut Writer, service: &Service) {
    put_service_key(attrs, &service.key);
    attrs.text(svc_attr::SCHED_NAME, &service.scheduler);
    if let Some(pe) = &service.pe {
        attrs.text(svc_attr::PE_NAME, pe);
    }
    let words = [service.flags.bits(), u32::MAX].map(u32::to_ne_bytes);
    attrs.put(svc_attr::FLAGS, words.as_flattened());
    attrs.u32(svc_attr::TIMEOUT, service.timeout);
    attrs.u32(svc_attr::NETMASK, wire_netmask(service.key.family(), service.netmask));
}

/// IPv4 netmasks travel in network byte order, IPv6 prefix lengths as numbers.
fn wire_netmask(family: Family, netmask: u32) -> u32 {
    match family {
        Family::V4 => netmask.to_be(),
        Family::V6 => netmask,
    }
}

/// Reads a whole service. Its flags are those that the request sets; [`flags_mask`] says which
/// others it clears.
pub fn service(attrs: &Attrs<'_>) -> Result<Service, i32> {
    let key = service_key(attrs)?;
    let scheduler = attrs.text(svc_attr::SCHED_NAME).ok_or(errno::EINVAL)?;
    let flags = flags(attrs)? & flags_mask(attrs)?;
    let timeout = attrs.u32(svc_attr::TIMEOUT).ok_or(errno::EINVAL)?;
    let netmask = attrs.u32(svc_attr::NETMASK).ok_or(errno::EINVAL)?;
    Ok(Service {
        key,
        scheduler: scheduler.to_owned(),
        flags: ServiceFlags::from_bits_retain(flags),
        timeout,
        netmask: wire_netmask(key.family(), netmask),
        pe: attrs.text(svc_attr::PE_NAME).filter(|pe| !pe.is_empty()).map(str::to_owned),
    })
}

fn flags(attrs: &Attrs<'_>) -> Result<u32, i32> {
    attrs.u32(svc_attr::FLAGS).ok_or(errno::EINVAL)
}

/// The flags that a request says something about (`struct ip_vs_flags`); all, if it has no mask.
pub fn flags_mask(attrs: &Attrs<'_>) -> Result<u32, i32> {
    let bytes = attrs.find(svc_attr::FLAGS).ok_or(errno::EINVAL)?;
    let mask = bytes.get(4..).and_then(|mask| mask.first_chunk());
    Ok(mask.map_or(u32::MAX, |mask| u32::from_ne_bytes(*mask)))
}
