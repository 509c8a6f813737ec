//! `ipvsadm -S`: the table as commands that `-R` reads.

use std::io::Write;

use rvs_core::types::{DestConfig, Family, ForwardMethod, Protocol, ServiceFlags, ServiceKey};
use rvs_netlink::{Client, ipvs};

use crate::Failure;
use crate::address::Names;
use crate::command::{Format, show_netmask, show_sched_flags};
use crate::execute::written;
use crate::listing::{dests, services};
use crate::sort::{dest_before, service_before, sort};

/// Writes all rules.
pub fn save(client: &mut Client, out: &mut dyn Write, format: Format) -> Result<(), Failure> {
    let names = Names { numeric: format.numeric };
    let rows = services(client, None)?;
    for row in sort(rows, &|a, b| service_before(&a.service.key, &b.service.key)) {
        let key = row.service.key;
        let named = named(&key, names);
        written(writeln!(out, "-A {named}{}", service(&row.service)))?;
        let rows = dests(client, &key)?;
        for row in sort(rows, &|a, b| dest_before(&a.dest.key, &b.dest.key)) {
            written(writeln!(out, "-a {named} {}", dest(&key, &row.dest, names)))?;
        }
    }
    Ok(())
}

fn named(key: &ServiceKey, names: Names) -> String {
    match key {
        ServiceKey::Fwmark { family, mark } => {
            let ipv6 = if *family == Family::V6 { " -6" } else { "" };
            format!("-f {}{ipv6}", mark.cast_signed())
        }
        ServiceKey::Address { protocol, addr, port } => {
            let flag = match protocol {
                Protocol::Tcp => "-t",
                Protocol::Udp => "-u",
                Protocol::Sctp => "--sctp-service",
            };
            format!("{flag} {}", names.show(*addr, *port, *protocol))
        }
    }
}

fn service(service: &ipvs::Service) -> String {
    let mut text = format!(" -s {}", service.scheduler);
    if let Some(flags) = show_sched_flags(&service.scheduler, service.flags) {
        text += &format!(" -b {flags}");
    }
    if service.flags.contains(ServiceFlags::PERSISTENT) {
        text += &format!(" -p {}", service.timeout);
        if let Some(mask) = show_netmask(service.key.family(), service.netmask) {
            text += &format!(" -M {mask}");
        }
    }
    if let Some(pe) = &service.pe {
        text += &format!(" --pe {pe}");
    }
    if service.flags.contains(ServiceFlags::ONEPACKET) {
        text += " -o";
    }
    text
}

fn dest(key: &ServiceKey, dest: &DestConfig, names: Names) -> String {
    let (names, protocol) = match key {
        ServiceKey::Address { protocol, .. } => (names, *protocol),
        ServiceKey::Fwmark { .. } => (Names { numeric: true }, Protocol::Tcp),
    };
    let method = match dest.forward {
        ForwardMethod::Masquerade => "-m",
        ForwardMethod::Tunnel => "-i",
        _ => "-g",
    };
    let server = names.show(dest.key.addr, dest.key.port, protocol);
    let mut text = format!("-r {server} {method} -w {}", dest.weight);
    if dest.forward == ForwardMethod::Tunnel {
        text += match dest.tunnel_type {
            0 => " --tun-type ipip",
            1 => " --tun-type gue",
            _ => " --tun-type gre",
        };
        if dest.tunnel_type == 1 {
            text += &format!(" --tun-port {}", dest.tunnel_port);
        }
        if dest.tunnel_type != 0 {
            text += match dest.tunnel_flags & 3 {
                0 => " --tun-nocsum",
                1 => " --tun-csum",
                _ => " --tun-remcsum",
            };
        }
    }
    text
}
