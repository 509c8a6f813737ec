//! `ipvsadm -S` and `ipvsadm-save`: the table as commands that `-R` reads.

use std::io::Write;

use rvs_core::types::{DestConfig, Family, ForwardMethod, Protocol, ServiceFlags, ServiceKey};
use rvs_netlink::{Client, ipvs};

use crate::Failure;
use crate::address::Names;
use crate::command::{Command, Format, show_netmask, show_sched_flags};
use crate::execute::{execute, written};
use crate::listing::{services, tunnel, with_dests};
use crate::sort::{dest_before, service_before, sort};

/// What `ipvsadm-save` says to an option that it does not have.
const USAGE: &str = "ipvsadm-save: prints the IPVS table as rules for ipvsadm-restore\n   \
                     With the -n option, prints addresses and ports as numbers.";

/// `ipvsadm-save`: `-n` is its only option, other words mean nothing.
pub fn program(args: &[String], out: &mut dyn Write) -> Result<(), Failure> {
    let mut format = Format::default();
    for arg in args {
        match arg.as_str() {
            "-n" => format.numeric = true,
            option if option.starts_with('-') => return Err(Failure::new(1, USAGE)),
            word => eprintln!("warning: {word} is ignored"),
        }
    }
    execute(&Command::Save(format), out, &mut None)
}

/// Writes all rules.
pub fn save(client: &mut Client, out: &mut dyn Write, format: Format) -> Result<(), Failure> {
    let names = Names { numeric: format.numeric };
    let rows = services(client, None)?;
    let rows = sort(rows, &|a, b| service_before(&a.service.key, &b.service.key));
    for row in with_dests(client, rows) {
        let (row, dests) = row?;
        let key = row.service.key;
        let named = named(&key, names);
        written(writeln!(out, "-A {named}{}", service(&row.service)))?;
        for row in sort(dests, &|a, b| dest_before(&a.dest.key, &b.dest.key)) {
            written(writeln!(out, "-a {named} {}", dest(&key, &row.dest, names)))?;
        }
    }
    Ok(())
}

fn named(key: &ServiceKey, names: Names) -> String {
    match key {
        ServiceKey::Fwmark { family, mark } => {
            let ipv6 = if *family == Family::V6 { " -6" } else { "" };
            format!("-f {mark}{ipv6}")
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
    if let Some(flags) = show_sched_flags(&service.scheduler, service.flags) {
        text += &format!(" -b {flags}");
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
    for (flag, threshold) in [("-x", dest.upper_threshold), ("-y", dest.lower_threshold)] {
        if threshold != 0 {
            text += &format!(" {flag} {threshold}");
        }
    }
    if let Some(tunnel) = tunnel(dest) {
        text += &format!(" --tun-type {}", tunnel.kind);
        if let Some(port) = tunnel.port {
            text += &format!(" --tun-port {port}");
        }
        if let Some(checksum) = tunnel.checksum {
            text += &format!(" --tun-{checksum}");
        }
    }
    text
}
