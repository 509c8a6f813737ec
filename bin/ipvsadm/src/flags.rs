//! The one table of ipvsadm's commands and options: the parser, the checks, `--help`, the manual
//! pages and the completions are made from it. Follows the tables of ipvsadm 1.31 (`ipvsadm.c`) and its manual page.

use rvs_core::types::Scheduler;

/// A command; exactly one starts the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Cmd {
    AddService,
    EditService,
    DelService,
    Flush,
    AddDest,
    EditDest,
    DelDest,
    List,
    Save,
    Restore,
    Zero,
    SetTimeouts,
    StartDaemon,
    StopDaemon,
    Help,
    Version,
}

/// What the program checks options by: several flags can set the same option. The order is that
/// of ipvsadm's checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Opt {
    Numeric,
    Connection,
    Service,
    Scheduler,
    Persistent,
    Netmask,
    Server,
    Forward,
    Weight,
    UpperThreshold,
    LowerThreshold,
    Mcast,
    Timeout,
    Daemon,
    Stats,
    Rate,
    Thresholds,
    PersistentConn,
    NoSort,
    SyncId,
    Exact,
    Ops,
    Engine,
    SchedFlags,
    McastGroup,
    McastPort,
    McastTtl,
    SyncMaxlen,
    TunInfo,
    TunType,
    TunPort,
    TunNocsum,
    TunCsum,
    TunRemcsum,
    Json,
    /// `-6`, `--sort`: never refused or demanded.
    Plain,
}

impl Opt {
    /// The name in error messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Numeric => "numeric",
            Self::Connection => "connection",
            Self::Service => "service-address",
            Self::Scheduler => "scheduler",
            Self::Persistent => "persistent",
            Self::Netmask => "netmask",
            Self::Server => "real-server",
            Self::Forward => "forwarding-method",
            Self::Weight => "weight",
            Self::UpperThreshold => "u-threshold",
            Self::LowerThreshold => "l-threshold",
            Self::Mcast => "mcast-interface",
            Self::Timeout => "timeout",
            Self::Daemon => "daemon",
            Self::Stats => "stats",
            Self::Rate => "rate",
            Self::Thresholds => "thresholds",
            Self::PersistentConn => "persistent-conn",
            Self::NoSort => "nosort",
            Self::SyncId => "syncid",
            Self::Exact => "exact",
            Self::Ops => "ops",
            Self::Engine => "pe",
            Self::SchedFlags => "sched-flags",
            Self::McastGroup => "mcast-group",
            Self::McastPort => "mcast-port",
            Self::McastTtl => "mcast-ttl",
            Self::SyncMaxlen => "sync-maxlen",
            Self::TunInfo => "tun-info",
            Self::TunType => "tun-type",
            Self::TunPort => "tun-port",
            Self::TunNocsum => "tun-nocsum",
            Self::TunCsum => "tun-csum",
            Self::TunRemcsum => "tun-remcsum",
            Self::Json => "json",
            Self::Plain => "",
        }
    }
}

/// Whether a flag takes a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// None.
    No,
    /// Always; the word for it in `--help`.
    Yes(&'static str),
    /// If the next word is none of the options.
    Optional(&'static str),
}

/// What a flag is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A command.
    Command(Cmd),
    /// An option; the last part tells flags with the same option apart.
    Option(Opt),
}

/// One flag.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Short form.
    pub short: Option<char>,
    /// Long form.
    pub long: &'static str,
    /// Value.
    pub value: Value,
    /// What it is.
    pub kind: Kind,
    /// For `--help`.
    pub help: &'static str,
}

impl Flag {
    /// What it is, in a few words.
    pub fn text(&self) -> String {
        let names: Vec<&str> = Scheduler::ALL.iter().map(|scheduler| scheduler.name()).collect();
        self.help.replace("{schedulers}", &names.join("|"))
    }

    /// Its value as it is shown after its name.
    pub fn usage(&self) -> String {
        match self.value {
            Value::No => String::new(),
            Value::Yes(name) => format!(" {name}"),
            Value::Optional(name) => format!(" [{name}]"),
        }
    }
}

const fn command(
    short: Option<char>,
    long: &'static str,
    value: Value,
    cmd: Cmd,
    help: &'static str,
) -> Flag {
    Flag { short, long, value, kind: Kind::Command(cmd), help }
}

const fn option(
    short: Option<char>,
    long: &'static str,
    value: Value,
    opt: Opt,
    help: &'static str,
) -> Flag {
    Flag { short, long, value, kind: Kind::Option(opt), help }
}

use Value::{No, Optional, Yes};

/// All flags of ipvsadm 1.31, and what is new.
#[rustfmt::skip]
pub static FLAGS: &[Flag] = &[
    command(Some('A'), "add-service", No, Cmd::AddService, "adds a virtual service"),
    command(Some('E'), "edit-service", No, Cmd::EditService, "changes a virtual service; what is not said becomes the default"),
    command(Some('D'), "delete-service", No, Cmd::DelService, "deletes a virtual service with its destinations"),
    command(Some('C'), "clear", No, Cmd::Flush, "deletes all virtual services"),
    command(Some('R'), "restore", No, Cmd::Restore, "carries out the commands on standard input, one a line"),
    command(Some('S'), "save", No, Cmd::Save, "prints the table as commands that -R reads"),
    command(Some('a'), "add-server", No, Cmd::AddDest, "adds a destination (real server) to a service"),
    command(Some('e'), "edit-server", No, Cmd::EditDest, "changes a destination; what is not said becomes the default"),
    command(Some('d'), "delete-server", No, Cmd::DelDest, "deletes a destination; its connections go on"),
    command(Some('L'), "list", No, Cmd::List, "lists services and destinations, or what an option asks for"),
    command(Some('l'), "list", No, Cmd::List, "the same as -L"),
    command(Some('Z'), "zero", No, Cmd::Zero, "sets the counters of one service, or of all, to zero"),
    command(None, "set", No, Cmd::SetTimeouts, "sets three timeouts in seconds: TCP, TCP after a FIN, UDP; 0 keeps one as it is"),
    command(None, "start-daemon", Yes("{master|backup}"), Cmd::StartDaemon, "starts a daemon that sends (master) or receives (backup) connections"),
    command(None, "stop-daemon", Yes("{master|backup}"), Cmd::StopDaemon, "stops a sync daemon"),
    command(Some('h'), "help", No, Cmd::Help, "prints this help"),
    command(Some('v'), "version", No, Cmd::Version, "prints the version"),
    option(Some('t'), "tcp-service", Yes("service"), Opt::Service, "a TCP service: host[:port], IPv6 as [host]:port"),
    option(Some('u'), "udp-service", Yes("service"), Opt::Service, "a UDP service"),
    option(None, "sctp-service", Yes("service"), Opt::Service, "an SCTP service"),
    option(Some('f'), "fwmark-service", Yes("mark"), Opt::Service, "the service of all packets with this firewall mark, 1 to 4294967295"),
    option(Some('6'), "ipv6", No, Opt::Plain, "after -f: of the IPv6 packets with the mark"),
    option(Some('s'), "scheduler", Yes("scheduler"), Opt::Scheduler, "how destinations are chosen: {schedulers} (a kernel may have others) [wlc]"),
    option(None, "pe", Yes("engine"), Opt::Engine, "persistence engine: sip"),
    option(Some('p'), "persistent", Optional("seconds"), Opt::Persistent, "sends a client to the same destination until so long after its last connection [360]"),
    option(Some('M'), "netmask", Yes("mask"), Opt::Netmask, "which clients count as one: a dotted mask, for IPv6 a prefix length"),
    option(Some('r'), "real-server", Yes("server"), Opt::Server, "the destination: host[:port], IPv6 as [host]:port"),
    option(Some('g'), "gatewaying", No, Opt::Forward, "direct routing [this is the default]"),
    option(Some('i'), "ipip", No, Opt::Forward, "tunneling"),
    option(Some('m'), "masquerading", No, Opt::Forward, "masquerading (NAT)"),
    option(None, "tun-type", Yes("type"), Opt::TunType, "with -i, the kind of tunnel: ipip|gue|gre [ipip]"),
    option(None, "tun-port", Yes("port"), Opt::TunPort, "the destination port of a gue tunnel"),
    option(None, "tun-nocsum", No, Opt::TunNocsum, "gue, gre: no checksum in the outer header [this is the default]"),
    option(None, "tun-csum", No, Opt::TunCsum, "gue, gre: a checksum in the outer header"),
    option(None, "tun-remcsum", No, Opt::TunRemcsum, "gue: remote checksum offload"),
    option(Some('w'), "weight", Yes("weight"), Opt::Weight, "share of new connections, 0 to 2147483647; 0 gets none [1]"),
    option(Some('x'), "u-threshold", Yes("count"), Opt::UpperThreshold, "connections from which on a destination gets no more; 0 is no limit [0]"),
    option(Some('y'), "l-threshold", Yes("count"), Opt::LowerThreshold, "connections below which an overloaded destination gets new ones again [3/4 of -x]"),
    option(None, "syncid", Yes("id"), Opt::SyncId, "which sync daemons listen to each other, 0 to 255 [0]"),
    option(None, "sync-maxlen", Yes("bytes"), Opt::SyncMaxlen, "the longest sync message [1472]"),
    option(None, "mcast-interface", Yes("interface"), Opt::Mcast, "where sync messages are sent or received"),
    option(None, "mcast-group", Yes("address"), Opt::McastGroup, "multicast group of sync messages [224.0.0.81]"),
    option(None, "mcast-port", Yes("port"), Opt::McastPort, "UDP port of sync messages [8848]"),
    option(None, "mcast-ttl", Yes("ttl"), Opt::McastTtl, "TTL of sync messages [1]"),
    option(Some('c'), "connection", No, Opt::Connection, "lists the connections"),
    option(None, "timeout", No, Opt::Timeout, "lists the timeouts that --set sets"),
    option(None, "daemon", No, Opt::Daemon, "lists the sync daemons"),
    option(None, "stats", No, Opt::Stats, "shows counters: connections, packets and bytes, in and out"),
    option(None, "rate", No, Opt::Rate, "shows rates: connections, packets and bytes a second"),
    option(None, "exact", No, Opt::Exact, "does not shorten large counters to K, M, G and T"),
    option(None, "thresholds", No, Opt::Thresholds, "shows thresholds"),
    option(None, "persistent-conn", No, Opt::PersistentConn, "shows how many clients persist; with -c, persistence engines"),
    option(None, "tun-info", No, Opt::TunInfo, "shows tunnels"),
    option(None, "nosort", No, Opt::NoSort, "lists in the director's order"),
    option(None, "sort", No, Opt::Plain, "lists in order; it is what -L does anyway"),
    option(Some('o'), "ops", No, Opt::Ops, "schedules every UDP datagram by itself (one-packet scheduling)"),
    option(Some('n'), "numeric", No, Opt::Numeric, "prints addresses and ports as numbers"),
    option(None, "json", No, Opt::Json, "prints JSON, with everything that is known and all as numbers (new in RVS)"),
    option(Some('b'), "sched-flags", Yes("flags"), Opt::SchedFlags, "with -s sh: sh-port, sh-fallback; with -s mh: mh-port, mh-fallback; any: flag-1, flag-2, flag-3; comma-separated"),
];

/// What a command demands, and what it allows beside that.
pub const fn rules(cmd: Cmd) -> (&'static [Opt], &'static [Opt]) {
    use Opt::*;
    const SERVICE: &[Opt] = &[Scheduler, Persistent, Netmask, Ops, Engine, SchedFlags];
    const DEST: &[Opt] = &[
        Forward,
        Weight,
        UpperThreshold,
        LowerThreshold,
        TunType,
        TunPort,
        TunNocsum,
        TunCsum,
        TunRemcsum,
    ];
    match cmd {
        Cmd::AddService | Cmd::EditService => (&[Service], SERVICE),
        Cmd::DelService => (&[Service], &[]),
        Cmd::AddDest | Cmd::EditDest => (&[Service, Server], DEST),
        Cmd::DelDest => (&[Service, Server], &[]),
        Cmd::List => (
            &[],
            &[
                Numeric,
                Connection,
                Service,
                Timeout,
                Daemon,
                Stats,
                Rate,
                Thresholds,
                PersistentConn,
                NoSort,
                SyncId,
                Exact,
                TunInfo,
                Json,
            ],
        ),
        Cmd::Save => (&[], &[Numeric]),
        Cmd::Zero => (&[], &[Service]),
        Cmd::StartDaemon => (&[], &[Mcast, SyncId, McastGroup, McastPort, McastTtl, SyncMaxlen]),
        Cmd::StopDaemon => (&[], &[SyncId]),
        Cmd::Flush | Cmd::Restore | Cmd::SetTimeouts | Cmd::Help | Cmd::Version => (&[], &[]),
    }
}

/// Whether a command does anything with an option that it takes: 1.31 takes some for nothing.
pub fn is_useful(cmd: Cmd, opt: Opt) -> bool {
    !(cmd == Cmd::List && opt == Opt::SyncId)
}

/// The name of a command in error messages.
pub fn name(cmd: Cmd) -> &'static str {
    match cmd {
        // popt's tables call it by another name than its option.
        Cmd::Flush => "flush",
        Cmd::SetTimeouts => "set",
        _ => FLAGS.iter().find(|f| f.kind == Kind::Command(cmd)).map_or("", |f| f.long),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_flags_share_a_name() {
        for (index, flag) in FLAGS.iter().enumerate() {
            for other in FLAGS.iter().skip(index + 1) {
                assert!(flag.short.is_none() || flag.short != other.short, "-{:?}", flag.short);
                assert!(flag.long != other.long || flag.kind == other.kind, "--{}", flag.long);
            }
        }
    }
}
