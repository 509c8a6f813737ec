//! `-A`, `-E`: a whole service.

use std::net::{IpAddr, Ipv4Addr};

use rvs_core::types::{Family, Protocol, ServiceFlags, ServiceKey};
use rvs_netlink::ipvs;

use super::options::Options;
use crate::Failure;
use crate::address::{self, HostPort};
use crate::flags::Opt;

impl Options {
    /// The service that the options describe.
    pub(super) fn full_service(&mut self) -> Result<ipvs::Service, Failure> {
        let key = self.key()?;
        let persistent = self.timeout.is_some();
        if let ServiceKey::Address { port: 0, .. } = key
            && !persistent
        {
            return Err(Failure::usage("Zero port specified for non-persistent service"));
        }
        let udp = !matches!(key, ServiceKey::Address { protocol, .. } if protocol != Protocol::Udp);
        if self.ops && !udp {
            return Err(Failure::usage("One-Packet Scheduling is only for UDP virtual services"));
        }
        let scheduler = self.scheduler.clone().unwrap_or_else(|| "wlc".to_owned());
        let mut flags = ServiceFlags::empty();
        flags.set(ServiceFlags::PERSISTENT, persistent);
        flags.set(ServiceFlags::ONEPACKET, self.ops);
        if let Some(list) = &self.sched_flags {
            flags |= sched_flags(list, &scheduler)?;
        }
        let netmask = self.netmask(key.family())?;
        if self.has(Opt::Netmask) && !persistent {
            self.warn("-M has no effect without -p".to_owned());
        }
        let (timeout, pe) = (self.timeout.unwrap_or_default(), self.engine.clone());
        Ok(ipvs::Service { key, scheduler, flags, timeout, netmask, pe })
    }

    /// The netmask, as the family of the service has it.
    fn netmask(&mut self, family: Family) -> Result<u32, Failure> {
        let Some(text) = self.netmask.clone() else {
            return Ok(if family == Family::V4 { u32::MAX } else { 128 });
        };
        if family == Family::V6 {
            // It was checked where it stands; before the service that was as an IPv4 mask.
            return Ok(netmask(family, &text).unwrap_or_else(|_| {
                self.warn(format!("-M {text} is ignored: it is no IPv6 prefix length"));
                128
            }));
        }
        let bits = netmask(family, &text)?;
        let mask = Ipv4Addr::from_bits(bits);
        if let Some(length) = text.parse::<u32>().ok().filter(|length| (1..=32).contains(length)) {
            let meant = Ipv4Addr::from_bits(u32::MAX << (32 - length));
            self.warn(format!("-M {text} is the mask {mask}; a prefix of {text} bits is {meant}"));
        } else if bits.leading_ones() + bits.trailing_zeros() < 32 {
            self.warn(format!("netmask {mask} has holes"));
        }
        Ok(bits)
    }
}

/// A netmask. IPv4: an address, its bits. IPv6: a prefix length.
pub(super) fn netmask(family: Family, text: &str) -> Result<u32, Failure> {
    if family == Family::V6 {
        let length = text.parse().ok().filter(|length| (1..=128).contains(length));
        return length.ok_or_else(|| Failure::usage("illegal ipv6 netmask specified"));
    }
    match address::parse(text, Protocol::Tcp) {
        Some(HostPort { addr: IpAddr::V4(mask), .. }) => Ok(mask.to_bits()),
        _ => Err(Failure::usage("illegal virtual server persistent mask specified")),
    }
}

/// A netmask as it is shown.
pub fn show_netmask(family: Family, netmask: u32) -> Option<String> {
    match family {
        Family::V4 if netmask != u32::MAX => Some(Ipv4Addr::from(netmask).to_string()),
        Family::V6 if netmask != 128 => Some(netmask.to_string()),
        _ => None,
    }
}

/// Names of scheduler flags 1 to 3, by scheduler.
const SCHED_FLAGS: [(&str, &str, ServiceFlags); 4] = [
    ("sh", "sh-fallback", ServiceFlags::SCHED1),
    ("sh", "sh-port", ServiceFlags::SCHED2),
    ("mh", "mh-fallback", ServiceFlags::SCHED1),
    ("mh", "mh-port", ServiceFlags::SCHED2),
];

/// Numbered names, for schedulers that ipvsadm does not know.
const NUMBERED: [(&str, ServiceFlags); 3] = [
    ("flag-1", ServiceFlags::SCHED1),
    ("flag-2", ServiceFlags::SCHED2),
    ("flag-3", ServiceFlags::SCHED3),
];

/// The flags of a comma-separated list, in which an empty name is none.
fn sched_flags(list: &str, scheduler: &str) -> Result<ServiceFlags, Failure> {
    let mut flags = ServiceFlags::empty();
    for name in list.split(',').filter(|name| !name.is_empty()) {
        if let Some((_, flag)) = NUMBERED.iter().find(|(n, _)| *n == name) {
            flags |= *flag;
            continue;
        }
        let Some((owner, _, flag)) = SCHED_FLAGS.iter().find(|(_, n, _)| *n == name) else {
            return Err(Failure::usage(format!("invalid scheduler flag `{name}'")));
        };
        if *owner != scheduler {
            return Err(Failure::usage(format!("incompatible scheduler flag `{name}'")));
        }
        flags |= *flag;
    }
    Ok(flags)
}

/// The scheduler flags that are set, by name, comma-separated.
pub fn show_sched_flags(scheduler: &str, flags: ServiceFlags) -> Option<String> {
    let mut names = Vec::new();
    for (numbered, flag) in NUMBERED {
        if !flags.contains(flag) {
            continue;
        }
        let named = SCHED_FLAGS.iter().find(|(owner, _, f)| *owner == scheduler && *f == flag);
        names.push(named.map_or(numbered, |(_, name, _)| name));
    }
    (!names.is_empty()).then(|| names.join(","))
}

#[cfg(test)]
mod tests {
    use crate::command::{Command, parse};

    fn warnings(line: &str) -> Vec<String> {
        let words: Vec<&str> = line.split(' ').collect();
        parse(&words).expect("a command").warnings
    }

    #[test]
    fn what_cannot_be_meant_is_told() {
        let [about] = &warnings("-A -t 1.2.3.4:1 -p 5 -M 24")[..] else { panic!("one warning") };
        assert!(about.contains("0.0.0.24") && about.contains("255.255.255.0"), "{about}");
        assert_eq!(warnings("-A -t 1.2.3.4:1 -p 5 -M 255.0.255.0").len(), 1);
        assert_eq!(warnings("-A -t 1.2.3.4:1 -M 255.255.255.0"), ["-M has no effect without -p"]);
        let [about] = &warnings("-A -t fd09::2:80 -p")[..] else { panic!("one warning") };
        assert!(about.contains("[fd09::2]:80"), "{about}");
    }

    #[test]
    fn what_can_be_meant_is_not_warned_of() {
        for line in [
            "-A -t 1.2.3.4:1 -p 5 -M 255.255.255.0",
            "-A -t 1.2.3.4:1 -p 5 -M 0.0.0.0",
            "-A -t 1.2.3.4:1 -p 5 -M 255.255.255.255",
            "-A -u [fd09::2]:80 -p 5 -M 64",
            "-A -t fd09::a -p 5",
            "-A -u 1.2.3.4:1 -p --pe sip",
            "-A -u 1.2.3.4:1 --pe sip",
        ] {
            assert_eq!(warnings(line), Vec::<String>::new(), "{line}");
        }
    }

    #[test]
    fn an_empty_scheduler_is_the_default() {
        let words = ["-A", "-t", "1.2.3.4:1", "-s", ""];
        let Ok(parsed) = parse(&words) else { panic!("a command") };
        assert!(matches!(parsed.command, Command::AddService(s) if s.scheduler == "wlc"));
    }
}
