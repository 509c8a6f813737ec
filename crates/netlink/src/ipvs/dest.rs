//! Destinations.

use rvs_core::control::{DestStatus, Rates};
use rvs_core::types::{DestConfig, DestKey, Family, ForwardMethod};

use super::addr::{addr, addr_bytes, af, family};
use super::policy::{self, misfit};
use super::{dest_attr, put_stats, stats};
use crate::attr::{Attrs, Writer};
use crate::errno;

/// Puts what names a destination.
pub fn put_dest_key(attrs: &mut Writer, key: &DestKey) {
    attrs
        .u16(dest_attr::ADDR_FAMILY, af(Family::of(key.addr)))
        .put(dest_attr::ADDR, &addr_bytes(key.addr))
        .be16(dest_attr::PORT, key.port);
}

/// Reads what names a destination; without a family it is the service's.
pub fn dest_key(attrs: &Attrs<'_>, default: Family) -> Result<DestKey, i32> {
    if misfit(attrs, policy::DEST).is_some() {
        return Err(errno::EINVAL);
    }
    let bytes = attrs.find(dest_attr::ADDR).ok_or(errno::EINVAL)?;
    let port = attrs.be16(dest_attr::PORT).ok_or(errno::EINVAL)?;
    let family = match attrs.u16(dest_attr::ADDR_FAMILY) {
        Some(0) | None => default,
        Some(number) => family(number).ok_or(errno::EAFNOSUPPORT)?,
    };
    Ok(DestKey { addr: addr(family, bytes), port })
}

/// Puts a whole destination.
pub fn put_dest(attrs: &mut Writer, dest: &DestConfig) {
    put_config(attrs, dest);
    attrs.u32(dest_attr::U_THRESH, dest.upper_threshold);
    attrs.u32(dest_attr::L_THRESH, dest.lower_threshold);
    attrs.u16(dest_attr::ADDR_FAMILY, af(Family::of(dest.key.addr)));
}

fn put_config(attrs: &mut Writer, dest: &DestConfig) {
    attrs
        .put(dest_attr::ADDR, &addr_bytes(dest.key.addr))
        .be16(dest_attr::PORT, dest.key.port)
        .u32(dest_attr::FWD_METHOD, dest.forward as u32)
        .u32(dest_attr::WEIGHT, dest.weight)
        .u8(dest_attr::TUN_TYPE, dest.tunnel_type)
        .be16(dest_attr::TUN_PORT, dest.tunnel_port)
        .u16(dest_attr::TUN_FLAGS, dest.tunnel_flags);
}

/// Reads a whole destination (`ip_vs_genl_parse_dest`). The weight is a signed number.
pub fn dest(attrs: &Attrs<'_>, default: Family) -> Result<(DestConfig, i32), i32> {
    let key = dest_key(attrs, default)?;
    let number = |kind| attrs.u32(kind).ok_or(errno::EINVAL);
    let method = number(dest_attr::FWD_METHOD)? & 7;
    let weight = number(dest_attr::WEIGHT)?.cast_signed();
    let config = DestConfig {
        key,
        forward: ForwardMethod::from_number(method as u8).ok_or(errno::EINVAL)?,
        weight: u32::try_from(weight).unwrap_or_default(),
        upper_threshold: number(dest_attr::U_THRESH)?,
        lower_threshold: number(dest_attr::L_THRESH)?,
        tunnel_type: attrs.u8(dest_attr::TUN_TYPE).unwrap_or_default(),
        tunnel_port: attrs.be16(dest_attr::TUN_PORT).unwrap_or_default(),
        tunnel_flags: attrs.u16(dest_attr::TUN_FLAGS).unwrap_or_default(),
    };
    Ok((config, weight))
}

/// Puts a destination with its live numbers, as a dump lists it.
pub fn put_dest_status(attrs: &mut Writer, dest: &DestConfig, status: &DestStatus, rates: &Rates) {
    put_config(attrs, dest);
    attrs
        .u32(dest_attr::U_THRESH, dest.upper_threshold)
        .u32(dest_attr::L_THRESH, dest.lower_threshold)
        .u32(dest_attr::ACTIVE_CONNS, status.active_conns)
        .u32(dest_attr::INACT_CONNS, status.inactive_conns)
        .u32(dest_attr::PERSIST_CONNS, status.persist_conns)
        .u16(dest_attr::ADDR_FAMILY, af(Family::of(dest.key.addr)));
    put_stats(attrs, dest_attr::STATS, dest_attr::STATS64, &status.stats, rates);
}

/// Reads the live numbers of a destination.
pub fn dest_status(attrs: &Attrs<'_>) -> (DestStatus, Rates) {
    let (stats, rates) = stats(attrs, dest_attr::STATS, dest_attr::STATS64);
    let number = |kind| attrs.u32(kind).unwrap_or_default();
    let status = DestStatus {
        active_conns: number(dest_attr::ACTIVE_CONNS),
        inactive_conns: number(dest_attr::INACT_CONNS),
        persist_conns: number(dest_attr::PERSIST_CONNS),
        stats,
    };
    (status, rates)
}
