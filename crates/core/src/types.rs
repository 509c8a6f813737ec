//! The nouns of IPVS as the control plane speaks of them: virtual services and destinations.
//! Follows `include/uapi/linux/ip_vs.h` and `struct ip_vs_service_user_kern`.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bitflags::bitflags;

/// Transport protocol of a virtual service, by its IP protocol number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Protocol {
    /// TCP.
    Tcp = 6,
    /// UDP.
    Udp = 17,
    /// SCTP.
    Sctp = 132,
}

impl Protocol {
    /// The protocol with this IP protocol number, if IPVS balances it.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            6 => Some(Self::Tcp),
            17 => Some(Self::Udp),
            132 => Some(Self::Sctp),
            _ => None,
        }
    }
}

/// Address family of a virtual service or a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family that `addr` belongs to.
    pub const fn of(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The unspecified address of this family.
    pub const fn unspecified(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Self::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        }
    }

    /// Length of an address in bits.
    pub const fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

/// What names a virtual service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ServiceKey {
    /// A protocol, a virtual address and a port; port 0 means every port (persistent services only).
    Address {
        /// The protocol.
        protocol: Protocol,
        /// The virtual address (VIP).
        addr: IpAddr,
        /// The virtual port in host order.
        port: u16,
    },
    /// All packets of one family that carry a firewall mark.
    Fwmark {
        /// The address family.
        family: Family,
        /// The mark; never 0.
        mark: u32,
    },
}

impl ServiceKey {
    /// The address family of the service's packets.
    pub const fn family(&self) -> Family {
        match self {
            Self::Address { addr, .. } => Family::of(*addr),
            Self::Fwmark { family, .. } => *family,
        }
    }
}

macro_rules! schedulers {
    ($(#[$doc:meta] $variant:ident = $number:literal, $name:literal;)*) => {
        /// Scheduling algorithms. The discriminants are part of the pinned map layout.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Scheduler {
            $(#[$doc] $variant = $number,)*
        }

        impl Scheduler {
            /// Every scheduler that the data path has.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name as in `ipvsadm -s`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// The scheduler with this name.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|scheduler| scheduler.name() == name)
            }

            /// The scheduler with this discriminant.
            #[inline(always)]
            pub const fn from_number(number: u32) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

schedulers! {
    /// No scheduler: every new connection is refused.
    None = 0, "none";
    /// Round robin.
    Rr = 1, "rr";
    /// Weighted round robin.
    Wrr = 2, "wrr";
    /// Least connection.
    Lc = 3, "lc";
    /// Weighted least connection, the default.
    Wlc = 4, "wlc";
    /// Source hashing.
    Sh = 5, "sh";
    /// Shortest expected delay.
    Sed = 6, "sed";
    /// Never queue.
    Nq = 7, "nq";
    /// Weighted fail-over.
    Fo = 8, "fo";
    /// Weighted overflow.
    Ovf = 9, "ovf";
    /// Destination hashing.
    Dh = 10, "dh";
    /// Maglev hashing.
    Mh = 11, "mh";
    /// Weighted random twos choice.
    Twos = 12, "twos";
    /// Locality-based least connection.
    Lblc = 13, "lblc";
    /// Locality-based least connection with replication.
    Lblcr = 14, "lblcr";
}

impl fmt::Display for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

bitflags! {
    /// `IP_VS_SVC_F_*` of the kernel's interface.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct ServiceFlags: u32 {
        /// Persistent port: connections of one client go to one destination.
        const PERSISTENT = 0x1;
        /// In the hash table; the kernel reports it for every service.
        const HASHED = 0x2;
        /// One-packet scheduling (UDP).
        const ONEPACKET = 0x4;
        /// Scheduler flag 1: sh-fallback, mh-fallback.
        const SCHED1 = 0x8;
        /// Scheduler flag 2: sh-port, mh-port.
        const SCHED2 = 0x10;
        /// Scheduler flag 3.
        const SCHED3 = 0x20;
    }
}

/// What `ipvsadm -A` and `-E` say of a virtual service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// The scheduler.
    pub scheduler: Scheduler,
    /// Flags; `HASHED` is the kernel's business and not kept here.
    pub flags: ServiceFlags,
    /// Persistence timeout in seconds; meaningful with `PERSISTENT`.
    pub timeout: u32,
    /// Persistence granularity: IPv4, the netmask in host order; IPv6, the prefix length.
    pub netmask: u32,
    /// The persistence engine.
    pub engine: Option<Engine>,
}

/// Persistence engines (`ipvsadm --pe`). The discriminants are part of the pinned map layout.
#[doc(alias = "ip_vs_pe")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Engine {
    /// By the Call-ID of SIP messages over UDP.
    Sip = 1,
}

impl Engine {
    /// The name as in `ipvsadm --pe`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sip => "sip",
        }
    }

    /// The engine with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        (name == Self::Sip.name()).then_some(Self::Sip)
    }

    /// The engine with this discriminant.
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Sip),
            _ => None,
        }
    }
}

/// How packets get to a destination: `IP_VS_CONN_F_FWD_MASK` of the kernel's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ForwardMethod {
    /// Masquerading (NAT).
    Masquerade = 0,
    /// The director itself is the destination.
    Local = 1,
    /// Tunneling.
    Tunnel = 2,
    /// Direct routing.
    DirectRoute = 3,
    /// Cache bypass.
    Bypass = 4,
}

impl ForwardMethod {
    /// The method with this number (the low three bits of the connection flags).
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Masquerade),
            1 => Some(Self::Local),
            2 => Some(Self::Tunnel),
            3 => Some(Self::DirectRoute),
            4 => Some(Self::Bypass),
            _ => None,
        }
    }
}

/// What names a destination within its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DestKey {
    /// Address of the real server.
    pub addr: IpAddr,
    /// Port in host order.
    pub port: u16,
}

/// What `ipvsadm -a` and `-e` say of a destination.
#[doc(alias = "ip_vs_dest_user_kern")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DestConfig {
    /// Which destination.
    pub key: DestKey,
    /// Forwarding method of its new connections.
    pub forward: ForwardMethod,
    /// Weight; 0 quiesces the destination. 0 ..= 2³¹ − 1.
    pub weight: u32,
    /// Upper connection threshold; 0 is none.
    pub upper_threshold: u32,
    /// Lower connection threshold; 0 is none.
    pub lower_threshold: u32,
    /// Tunnel type: 0 ipip, 1 gue, 2 gre.
    pub tunnel_type: u8,
    /// Destination port of a GUE tunnel, host order.
    pub tunnel_port: u16,
    /// `IP_VS_TUNNEL_ENCAP_FLAG_*`.
    pub tunnel_flags: u16,
}

/// The three timeouts that `ipvsadm --set` changes, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP connections in ESTABLISHED.
    pub tcp: u32,
    /// TCP connections in FIN_WAIT.
    pub tcp_fin: u32,
    /// UDP flows.
    pub udp: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { tcp: 900, tcp_fin: 120, udp: 300 }
    }
}
