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

/// All flags of ipvsadm 1.31.
#[rustfmt::skip]
pub static FLAGS: &[Flag] = &[
    command(Some('A'), "add-service", No, Cmd::AddService, "add virtual service with options"),
    command(Some('E'), "edit-service", No, Cmd::EditService, "edit virtual service with options"),
    command(Some('D'), "delete-service", No, Cmd::DelService, "delete virtual service"),
    command(Some('C'), "clear", No, Cmd::Flush, "clear the whole table"),
    command(Some('R'), "restore", No, Cmd::Restore, "restore rules from stdin"),
    command(Some('S'), "save", No, Cmd::Save, "save rules to stdout"),
    command(Some('a'), "add-server", No, Cmd::AddDest, "add real server with options"),
    command(Some('e'), "edit-server", No, Cmd::EditDest, "edit real server with options"),
    command(Some('d'), "delete-server", No, Cmd::DelDest, "delete real server"),
    command(Some('L'), "list", No, Cmd::List, "list the table"),
    command(Some('l'), "list", No, Cmd::List, "list the table"),
    command(Some('Z'), "zero", No, Cmd::Zero, "zero counters in a service or all services"),
    command(None, "set", No, Cmd::SetTimeouts, "set connection timeout values: tcp tcpfin udp"),
    command(None, "start-daemon", Yes("{master|backup}"), Cmd::StartDaemon, "start connection sync daemon"),
    command(None, "stop-daemon", Yes("{master|backup}"), Cmd::StopDaemon, "stop connection sync daemon"),
    command(Some('h'), "help", No, Cmd::Help, "display this help message"),
    command(Some('v'), "version", No, Cmd::Version, "display the version"),
    option(Some('t'), "tcp-service", Yes("service-address"), Opt::Service, "service-address is host[:port]"),
    option(Some('u'), "udp-service", Yes("service-address"), Opt::Service, "service-address is host[:port]"),
    option(None, "sctp-service", Yes("service-address"), Opt::Service, "service-address is host[:port]"),
    option(Some('f'), "fwmark-service", Yes("fwmark"), Opt::Service, "fwmark is an integer greater than zero"),
    option(Some('6'), "ipv6", No, Opt::Plain, "fwmark entry uses IPv6"),
    option(Some('s'), "scheduler", Yes("scheduler"), Opt::Scheduler, "one of {schedulers}, the default is wlc; a kernel may have more"),
    option(None, "pe", Yes("engine"), Opt::Engine, "alternate persistence engine may be sip, not set by default"),
    option(Some('p'), "persistent", Optional("timeout"), Opt::Persistent, "persistent service, 360 seconds unless said"),
    option(Some('M'), "netmask", Yes("netmask"), Opt::Netmask, "persistent granularity mask"),
    option(Some('r'), "real-server", Yes("server-address"), Opt::Server, "server-address is host (and port)"),
    option(Some('g'), "gatewaying", No, Opt::Forward, "gatewaying (direct routing) (default)"),
    option(Some('i'), "ipip", No, Opt::Forward, "ipip encapsulation (tunneling)"),
    option(Some('m'), "masquerading", No, Opt::Forward, "masquerading (NAT)"),
    option(None, "tun-type", Yes("type"), Opt::TunType, "one of ipip|gue|gre, the default is ipip"),
    option(None, "tun-port", Yes("port"), Opt::TunPort, "tunnel destination port"),
    option(None, "tun-nocsum", No, Opt::TunNocsum, "tunnel encapsulation without checksum"),
    option(None, "tun-csum", No, Opt::TunCsum, "tunnel encapsulation with checksum"),
    option(None, "tun-remcsum", No, Opt::TunRemcsum, "tunnel encapsulation with remote checksum"),
    option(Some('w'), "weight", Yes("weight"), Opt::Weight, "capacity of real server"),
    option(Some('x'), "u-threshold", Yes("uthreshold"), Opt::UpperThreshold, "upper threshold of connections"),
    option(Some('y'), "l-threshold", Yes("lthreshold"), Opt::LowerThreshold, "lower threshold of connections"),
    option(None, "syncid", Yes("sid"), Opt::SyncId, "syncid for connection sync (default=0)"),
    option(None, "sync-maxlen", Yes("length"), Opt::SyncMaxlen, "max sync message length (default=1472)"),
    option(None, "mcast-interface", Yes("interface"), Opt::Mcast, "multicast interface for connection sync"),
    option(None, "mcast-group", Yes("address"), Opt::McastGroup, "IPv4/IPv6 group (default=224.0.0.81)"),
    option(None, "mcast-port", Yes("port"), Opt::McastPort, "UDP port (default=8848)"),
    option(None, "mcast-ttl", Yes("ttl"), Opt::McastTtl, "multicast TTL (default=1)"),
    option(Some('c'), "connection", No, Opt::Connection, "output of current IPVS connections"),
    option(None, "timeout", No, Opt::Timeout, "output of timeout (tcp tcpfin udp)"),
    option(None, "daemon", No, Opt::Daemon, "output of daemon information"),
    option(None, "stats", No, Opt::Stats, "output of statistics information"),
    option(None, "rate", No, Opt::Rate, "output of rate information"),
    option(None, "exact", No, Opt::Exact, "expand numbers (display exact values)"),
    option(None, "thresholds", No, Opt::Thresholds, "output of thresholds information"),
    option(None, "persistent-conn", No, Opt::PersistentConn, "output of persistent connection info"),
    option(None, "tun-info", No, Opt::TunInfo, "output of tunnel information"),
    option(None, "nosort", No, Opt::NoSort, "disable sorting output of service/server entries"),
    option(None, "sort", No, Opt::Plain, "does nothing, for backwards compatibility"),
    option(Some('o'), "ops", No, Opt::Ops, "one-packet scheduling"),
    option(Some('n'), "numeric", No, Opt::Numeric, "numeric output of addresses and ports"),
    option(None, "json", No, Opt::Json, "output as JSON, with everything that is known (new in RVS)"),
    option(Some('b'), "sched-flags", Yes("flags"), Opt::SchedFlags, "scheduler flags (comma-separated)"),
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
