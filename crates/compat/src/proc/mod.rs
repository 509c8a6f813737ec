//! The files that ip_vs adds to `/proc/net`, byte for byte. Follows what Linux 6.1 printed
//! (`tests/oracle/recorded/proc.jsonl`); only the order of services and of connections is rvsd's,
//! where the kernel's is that of hash tables which are seeded anew at each start.

mod conns;
mod services;
mod stats;

use std::net::IpAddr;

use rvs_core::app::FTP;
use rvs_core::types::{ForwardMethod, Protocol};
use rvs_netlink::{Client, ClientError};

/// One of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// `ip_vs`: services and destinations.
    Services,
    /// `ip_vs_app`: application helpers: FTP's.
    Apps,
    /// `ip_vs_conn`: connections and templates.
    Conns,
    /// `ip_vs_conn_sync`: the same, with where they come from.
    ConnsSync,
    /// `ip_vs_stats`: counters and rates of everything.
    Stats,
    /// `ip_vs_stats_percpu`: the counters by CPU.
    StatsPercpu,
}

impl File {
    /// Every file.
    pub const ALL: [Self; 6] =
        [Self::Services, Self::Apps, Self::Conns, Self::ConnsSync, Self::Stats, Self::StatsPercpu];

    /// Its name in `/proc/net`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Services => "ip_vs",
            Self::Apps => "ip_vs_app",
            Self::Conns => "ip_vs_conn",
            Self::ConnsSync => "ip_vs_conn_sync",
            Self::Stats => "ip_vs_stats",
            Self::StatsPercpu => "ip_vs_stats_percpu",
        }
    }

    /// The file of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|file| file.name() == name)
    }

    /// Its text now.
    pub fn text(self, client: &mut Client) -> Result<Vec<u8>, ClientError> {
        let mut text = Vec::new();
        self.pieces(client, &mut |piece| {
            text.extend(piece);
            true
        })?;
        Ok(text)
    }

    /// Calls `piece` for its text, piece by piece, until it returns false. The connection table is
    /// never held as a whole, here or by rvsd. Bytes, as a persistence engine's data are any.
    pub fn pieces(
        self,
        client: &mut Client,
        piece: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<(), ClientError> {
        let text = match self {
            Self::Conns => return conns::pieces(client, conns::Form::Plain, piece),
            Self::ConnsSync => return conns::pieces(client, conns::Form::Sync, piece),
            Self::Services => services::text(client)?,
            Self::Apps => apps(client)?,
            Self::Stats => stats::text(client)?,
            Self::StatsPercpu => stats::percpu(client)?,
        };
        piece(text.as_bytes());
        Ok(())
    }
}

/// `ip_vs_app`, with how many connections have a helper.
fn apps(client: &mut Client) -> Result<String, ClientError> {
    let mut used = 0;
    client.conns(|conn| {
        let masqueraded = conn.forward.is_none_or(|way| way == ForwardMethod::Masquerade);
        let tcp = Protocol::from_number(conn.protocol) == Some(Protocol::Tcp);
        used += u32::from(tcp && masqueraded && conn.service.1 == FTP);
        true
    })?;
    Ok(format!("prot port    usecnt name\nTCP  {FTP:<7} {used:<6} {:<17}\n", "ftp"))
}

/// An address in hexadecimal: `0A090101`, or all eight groups of an IPv6 address.
fn hex(addr: IpAddr) -> String {
    match addr {
        IpAddr::V4(addr) => format!("{:08X}", addr.to_bits()),
        IpAddr::V6(addr) => {
            let groups = addr.segments().map(|group| format!("{group:04x}"));
            groups.join(":")
        }
    }
}

/// The name of a protocol, `IP` for that of a template of several.
fn protocol(number: u8) -> &'static str {
    match Protocol::from_number(number) {
        Some(Protocol::Tcp) => "TCP",
        Some(Protocol::Udp) => "UDP",
        Some(Protocol::Sctp) => "SCTP",
        None => "IP",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_the_kernel_writes_them() {
        assert_eq!(hex("10.9.1.1".parse().unwrap()), "0A090101");
        assert_eq!(hex("fd00::2".parse().unwrap()), "fd00:0000:0000:0000:0000:0000:0000:0002");
    }
}
