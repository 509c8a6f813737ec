//! The one kernel setting that RVS needs.

use std::fs;

use crate::HostError;

/// Switches forwarding on for the loopback interface of this network namespace, and for nothing
/// else.
///
/// `bpf_fib_lookup` answers only if the interface that it is told the packet came by forwards. RVS
/// looks routes up as from the loopback, as the host's own packets and IPVS's (by
/// `ip_route_output_key`) are, so no real interface has to become a router's for direct routing
/// and tunneling. Without IPv6 there is nothing to switch on for it.
pub fn forward_from_loopback() -> Result<(), HostError> {
    for path in ["/proc/sys/net/ipv4/conf/lo/forwarding", "/proc/sys/net/ipv6/conf/lo/forwarding"] {
        match fs::read_to_string(path) {
            Ok(value) if value.trim() == "1" => continue,
            Err(_) if path.contains("ipv6") => continue,
            _ => {}
        }
        fs::write(path, "1").map_err(|reason| HostError::Sysctl { path, reason })?;
    }
    Ok(())
}
