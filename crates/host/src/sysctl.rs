//! The kernel settings that RVS needs, all of the loopback interface of this network namespace.

use std::fs;

use rvs_core::types::Family;

use crate::HostError;

/// A setting: its file, the value that RVS needs, and whether a kernel may lack it.
struct Setting {
    path: &'static str,
    value: u32,
    optional: bool,
}

/// In the order of their places in what [`prepare_loopback`] returns.
///
/// `bpf_fib_lookup` answers only if the interface that it is told the packet came by forwards. RVS
/// looks routes up as from the loopback, as the host's own packets and IPVS's (by
/// `ip_route_output_key`) are, so no real interface has to become a router's for direct routing
/// and tunneling.
///
/// What is for a client or a real server on the director comes by the loopback without a route, its
/// source the virtual address or another of the host's own, its destination perhaps 127.0.0.1.
const SETTINGS: [Setting; 5] = [
    Setting { path: "/proc/sys/net/ipv4/conf/lo/forwarding", value: 1, optional: false },
    Setting { path: "/proc/sys/net/ipv6/conf/lo/forwarding", value: 1, optional: true },
    Setting { path: "/proc/sys/net/ipv4/conf/lo/accept_local", value: 1, optional: false },
    Setting { path: "/proc/sys/net/ipv4/conf/lo/route_localnet", value: 1, optional: false },
    // Loose, which is in force even if `all` says strict.
    Setting { path: "/proc/sys/net/ipv4/conf/lo/rp_filter", value: 2, optional: false },
];

/// Bits that a setting has in what [`prepare_loopback`] returns: 0 if it was not changed, else one
/// more than it was.
const BITS: u32 = 4;

/// Gives the loopback interface the settings that RVS needs, and no other anything. Returns what
/// they were before, for [`restore_loopback`]; `before` is what an earlier call returned, or 0.
pub fn prepare_loopback(before: u32) -> Result<u32, HostError> {
    let mut changed = before;
    for (setting, shift) in SETTINGS.iter().zip((0..).step_by(BITS as usize)) {
        let was = match fs::read_to_string(setting.path) {
            Ok(text) => text.trim().parse::<u32>().unwrap_or_default(),
            Err(_) if setting.optional => continue,
            Err(reason) => return Err(HostError::Sysctl { path: setting.path, reason }),
        };
        if was == setting.value {
            continue;
        }
        write(setting, setting.value)?;
        let place = ((1 << BITS) - 1) << shift;
        if changed & place == 0 {
            changed |= (was.min(2) + 1) << shift;
        }
    }
    Ok(changed)
}

/// Gives the loopback interface back what [`prepare_loopback`] changed, unless somebody else has
/// changed it since.
pub fn restore_loopback(changed: u32) -> Result<(), HostError> {
    for (setting, shift) in SETTINGS.iter().zip((0..).step_by(BITS as usize)) {
        let was = changed >> shift & ((1 << BITS) - 1);
        let now = fs::read_to_string(setting.path).unwrap_or_default();
        if was != 0 && now.trim() == setting.value.to_string() {
            write(setting, was - 1)?;
        }
    }
    Ok(())
}

/// Whether packets of this family that come in by an interface are routed on.
pub fn forwards(family: Family, interface: &str) -> bool {
    let path = match family {
        Family::V4 => format!("/proc/sys/net/ipv4/conf/{interface}/forwarding"),
        // What the interface has decides about routers' advertisements only.
        Family::V6 => "/proc/sys/net/ipv6/conf/all/forwarding".to_owned(),
    };
    fs::read_to_string(path).is_ok_and(|text| text.trim() != "0")
}

fn write(setting: &Setting, value: u32) -> Result<(), HostError> {
    let refused = |reason| HostError::Sysctl { path: setting.path, reason };
    fs::write(setting.path, value.to_string()).map_err(refused)
}
