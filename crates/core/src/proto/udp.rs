//! UDP has one state. Follows `ip_vs_proto_udp.c`.

/// The state's number (`IP_VS_UDP_S_NORMAL`).
pub const NORMAL: u32 = 0;
/// Its name in `/proc/net/ip_vs_conn`.
pub const NAME: &str = "UDP";
/// Seconds without a packet after which a flow expires.
pub const DEFAULT_TIMEOUT: u32 = 5 * 60;
