//! The settings below `/proc/sys/net/ipv4/vs`: every file that Linux 6.1 has there, with its default,
//! which is also how the director behaves. None can be changed yet, so writing is refused.

/// Names and texts. `sync_qlen_max` is left out: its default comes from the machine's memory, and
/// there is no sync daemon whose queue it would limit.
const SETTINGS: [(&str, &str); 28] = [
    ("am_droprate", "10\n"),
    ("amemthresh", "1024\n"),
    ("backup_only", "0\n"),
    ("cache_bypass", "0\n"),
    ("conn_reuse_mode", "1\n"),
    ("conntrack", "0\n"),
    ("drop_entry", "0\n"),
    ("drop_packet", "0\n"),
    ("expire_nodest_conn", "0\n"),
    ("expire_quiescent_template", "0\n"),
    ("ignore_tunneled", "0\n"),
    ("lblc_expiration", "86400\n"),
    ("lblcr_expiration", "86400\n"),
    ("nat_icmp_send", "0\n"),
    ("pmtu_disc", "1\n"),
    ("run_estimation", "1\n"),
    ("schedule_icmp", "0\n"),
    ("secure_tcp", "0\n"),
    ("sloppy_sctp", "0\n"),
    ("sloppy_tcp", "0\n"),
    ("snat_reroute", "1\n"),
    ("sync_persist_mode", "0\n"),
    ("sync_ports", "1\n"),
    ("sync_refresh_period", "0\n"),
    ("sync_retries", "0\n"),
    ("sync_sock_size", "0\n"),
    ("sync_threshold", "3\t50\n"),
    ("sync_version", "1\n"),
];

/// The names of all settings.
pub fn names() -> impl Iterator<Item = &'static str> {
    SETTINGS.iter().map(|(name, _)| *name)
}

/// What the file of a setting says; nothing if there is no such setting.
pub fn text(name: &str) -> Option<&'static str> {
    SETTINGS.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}
