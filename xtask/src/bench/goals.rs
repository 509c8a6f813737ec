//! The goals of speed: each made of one or two measurements of the same run, and its limit.

use std::collections::BTreeMap;

/// What a run measured, by name. A name begins with the part that measures it and ends with the
/// number of live connections where that matters.
pub type Measured = BTreeMap<String, f64>;

/// How a goal's figure is made of measurements.
#[derive(Clone, Copy, Debug)]
pub enum Figure {
    /// The measurement itself, in this unit.
    Of(&'static str, &'static str),
    /// The first over the second.
    Ratio(&'static str, &'static str),
    /// The first less the second, in this unit.
    Less(&'static str, &'static str, &'static str),
}

/// What a figure may be.
#[derive(Clone, Copy, Debug)]
pub enum Limit {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    /// Its name, by which records are compared: never reused for another figure.
    pub name: &'static str,
    /// How its figure is made.
    pub figure: Figure,
    /// What it may be.
    pub limit: Limit,
}

/// How much worse than recorded a goal that was met may be.
const TOLERANCE: f64 = 1.1;

impl Figure {
    /// The figure, if this run measured all that it is made of.
    pub fn value(&self, measured: &Measured) -> Option<f64> {
        let get = |name: &str| measured.get(name).copied();
        match *self {
            Self::Of(name, _) => get(name),
            Self::Ratio(over, under) => Some(get(over)? / get(under)?),
            Self::Less(from, less, _) => Some(get(from)? - get(less)?),
        }
        .filter(|value| value.is_finite())
    }

    /// What it is made of.
    pub fn made_of(&self) -> String {
        match self {
            Self::Of(name, _) => format!("`{name}`"),
            Self::Ratio(over, under) => format!("`{over}` / `{under}`"),
            Self::Less(from, less, _) => format!("`{from}` − `{less}`"),
        }
    }

    /// The unit, with a space before it; a ratio has ×.
    pub fn unit(&self) -> String {
        match self {
            Self::Of(_, unit) | Self::Less(_, _, unit) if unit.is_empty() => String::new(),
            Self::Of(_, unit) | Self::Less(_, _, unit) => format!(" {unit}"),
            Self::Ratio(..) => " ×".into(),
        }
    }

    /// The part of the benchmark that measures it.
    pub fn part(&self) -> &'static str {
        let (Self::Of(name, _) | Self::Ratio(name, _) | Self::Less(name, ..)) = self;
        name.split('/').next().unwrap_or(name)
    }
}

impl Limit {
    /// Whether a figure keeps it.
    pub fn met(&self, value: f64) -> bool {
        match *self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
        }
    }

    /// Whether a figure is worse than another by more than the tolerance.
    pub fn fell_back(&self, value: f64, recorded: f64) -> bool {
        match self {
            Self::AtMost(_) => value > recorded.max(0.0) * TOLERANCE,
            Self::AtLeast(_) => value * TOLERANCE < recorded,
        }
    }

    /// In words.
    pub fn words(&self) -> String {
        match self {
            Self::AtMost(limit) => format!("at most {limit}"),
            Self::AtLeast(limit) => format!("at least {limit}"),
        }
    }
}

/// A goal of a ratio.
const fn ratio(name: &'static str, over: &'static str, under: &'static str, limit: Limit) -> Goal {
    Goal { name, figure: Figure::Ratio(over, under), limit }
}

/// A goal of a measurement.
const fn of(name: &'static str, from: &'static str, unit: &'static str, limit: Limit) -> Goal {
    Goal { name, figure: Figure::Of(from, unit), limit }
}

/// A goal of a difference in nanoseconds.
const fn over(name: &'static str, from: &'static str, less: &'static str, limit: Limit) -> Goal {
    Goal { name, figure: Figure::Less(from, less, "ns"), limit }
}

use Limit::{AtLeast, AtMost};

/// All goals, in the order in which they are shown.
pub const GOALS: &[Goal] = &[
    ratio(
        "established IPv4 TCP, DR, 1 flow, against parse + one hash look-up",
        "datapath/4/xdp/established, DR/1",
        "datapath/4/xdp/parse + one hash look-up/1",
        AtMost(2.2),
    ),
    over(
        "the same, over the bare program",
        "datapath/4/xdp/established, DR/1",
        "datapath/4/xdp/bare XDP_TX, or redirect/1",
        AtMost(60.0),
    ),
    ratio(
        "established IPv4 TCP, DR, 1 Mi flows, against parse + one hash look-up",
        "datapath/4/xdp/established, DR/1048576",
        "datapath/4/xdp/parse + one hash look-up/1048576",
        AtMost(1.6),
    ),
    ratio(
        "NAT in against DR, 1 flow",
        "datapath/4/xdp/established, NAT in/1",
        "datapath/4/xdp/established, DR/1",
        AtMost(1.25),
    ),
    ratio(
        "NAT in against DR, 1 Mi flows",
        "datapath/4/xdp/established, NAT in/1048576",
        "datapath/4/xdp/established, DR/1048576",
        AtMost(1.25),
    ),
    ratio(
        "NAT out against DR, 1 flow",
        "datapath/4/xdp/established, NAT out/1",
        "datapath/4/xdp/established, DR/1",
        AtMost(1.25),
    ),
    ratio(
        "NAT out against DR, 1 Mi flows",
        "datapath/4/xdp/established, NAT out/1048576",
        "datapath/4/xdp/established, DR/1048576",
        AtMost(1.25),
    ),
    ratio(
        "TUN against DR, 1 flow",
        "datapath/4/xdp/established, TUN/1",
        "datapath/4/xdp/established, DR/1",
        AtMost(1.25),
    ),
    ratio(
        "TUN against DR, 1 Mi flows",
        "datapath/4/xdp/established, TUN/1048576",
        "datapath/4/xdp/established, DR/1048576",
        AtMost(1.25),
    ),
    ratio(
        "IPv6 against IPv4, DR, 1 flow",
        "datapath/6/xdp/established, DR/1",
        "datapath/4/xdp/established, DR/1",
        AtMost(1.3),
    ),
    ratio(
        "IPv6 against IPv4, DR, 1 Mi flows",
        "datapath/6/xdp/established, DR/1048576",
        "datapath/4/xdp/established, DR/1048576",
        AtMost(1.3),
    ),
    ratio(
        "new connection (SYN, DR, wlc of 16), 1 Mi live, against a hash insert",
        "datapath/4/xdp/new, DR, wlc of 16/1048576",
        "datapath/4/xdp/parse + one hash insert/1048576",
        AtMost(2.0),
    ),
    of(
        "new connection, wlc of 1,000",
        "curves/destinations/new, DR, wlc/1000",
        "ns",
        AtMost(3000.0),
    ),
    of("new connection, lc of 1,000", "curves/destinations/new, DR, lc/1000", "ns", AtMost(3000.0)),
    ratio(
        "SYN flood, table full, against a new connection",
        "flood/full",
        "flood/new",
        AtMost(1.5),
    ),
    of("established connections that survive the flood", "flood/survived", "of 1", AtLeast(1.0)),
    of("clients who get in during the flood, by five SYNs", "flood/let in", "of 1", AtLeast(0.9)),
    over(
        "packets not ours, over the bare program, 1 flow",
        "datapath/4/xdp/not ours/1",
        "datapath/4/xdp/bare XDP_TX, or redirect/1",
        AtMost(15.0),
    ),
    ratio(
        "lab, XDP NAT, 1,024 flows, against nft",
        "lab/XDP NAT/1024",
        "lab/nft/1024",
        AtLeast(4.0),
    ),
    ratio(
        "lab, XDP NAT, 65,536 flows, against nft",
        "lab/XDP NAT/65536",
        "lab/nft/65536",
        AtLeast(4.0),
    ),
    ratio("lab, XDP DR, 1,024 flows, against nft", "lab/XDP DR/1024", "lab/nft/1024", AtLeast(4.0)),
    ratio(
        "lab, XDP DR, 65,536 flows, against nft",
        "lab/XDP DR/65536",
        "lab/nft/65536",
        AtLeast(4.0),
    ),
    ratio(
        "lab, XDP NAT, 1,024 flows, against a bare redirect",
        "lab/XDP NAT/1024",
        "lab/bare/1024",
        AtLeast(0.75),
    ),
    ratio(
        "lab, XDP NAT, 65,536 flows, against a bare redirect",
        "lab/XDP NAT/65536",
        "lab/bare/65536",
        AtLeast(0.75),
    ),
    ratio(
        "lab, XDP DR, 1,024 flows, against a bare redirect",
        "lab/XDP DR/1024",
        "lab/bare/1024",
        AtLeast(0.75),
    ),
    ratio(
        "lab, XDP DR, 65,536 flows, against a bare redirect",
        "lab/XDP DR/65536",
        "lab/bare/65536",
        AtLeast(0.75),
    ),
    ratio("lab, TC NAT, 1,024 flows, against nft", "lab/TC NAT/1024", "lab/nft/1024", AtLeast(2.0)),
    ratio(
        "lab, TC NAT, 65,536 flows, against nft",
        "lab/TC NAT/65536",
        "lab/nft/65536",
        AtLeast(2.0),
    ),
    ratio("lab, TC DR, 1,024 flows, against nft", "lab/TC DR/1024", "lab/nft/1024", AtLeast(2.0)),
    ratio(
        "lab, TC DR, 65,536 flows, against nft",
        "lab/TC DR/65536",
        "lab/nft/65536",
        AtLeast(2.0),
    ),
    ratio(
        "iperf3 through NAT by TC, throughput against nft",
        "stream/RVS/throughput",
        "stream/nft/throughput",
        AtLeast(1.0),
    ),
    ratio(
        "iperf3 through NAT by TC, CPU time a byte against nft",
        "stream/RVS/CPU a byte",
        "stream/nft/CPU a byte",
        AtMost(1.0),
    ),
    ratio("request through NAT, p50 against nft", "stream/RVS/p50", "stream/nft/p50", AtMost(1.0)),
    ratio("request through NAT, p99 against nft", "stream/RVS/p99", "stream/nft/p99", AtMost(1.0)),
    ratio("VM, DR, against the kernel's IPVS", "vm/XDP DR/1024", "vm/IPVS DR/1024", AtLeast(1.4)),
    ratio(
        "VM, NAT, against the kernel's IPVS",
        "vm/XDP NAT/1024",
        "vm/IPVS NAT/1024",
        AtLeast(1.4),
    ),
    ratio("VM, DR, against a bare redirect", "vm/XDP DR/1024", "vm/bare/1024", AtLeast(0.8)),
    ratio("VM, NAT, against a bare redirect", "vm/XDP NAT/1024", "vm/bare/1024", AtLeast(0.8)),
    of("kernel memory a connection at 1 Mi", "memory/connection", "bytes", AtMost(192.0)),
    of("10,000 services × 10 destinations loaded", "control/load", "s", AtMost(2.0)),
    of("one change at that size", "control/change", "ms", AtMost(1.0)),
    of("listing them", "control/list", "s", AtMost(1.0)),
    of("sweep of 1 Mi connections, CPU time", "sweep/CPU", "ms", AtMost(100.0)),
    of("a packet during a sweep, 99.99 of 100", "sweep/p99.99", "µs", AtMost(50.0)),
    ratio("two cores against one", "cores/two", "cores/one", AtLeast(1.8)),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(values: &[(&str, f64)]) -> Measured {
        values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
    }

    #[test]
    fn a_figure_needs_all_of_its_measurements() {
        let figure = Figure::Ratio("a", "b");
        assert_eq!(figure.value(&measured(&[("a", 6.0), ("b", 4.0)])), Some(1.5));
        assert_eq!(figure.value(&measured(&[("a", 6.0)])), None);
        assert_eq!(figure.value(&measured(&[("a", 6.0), ("b", 0.0)])), None);
        let less = Figure::Less("a", "b", "ns");
        assert_eq!(less.value(&measured(&[("a", 6.0), ("b", 4.0)])), Some(2.0));
    }

    #[test]
    fn a_tenth_is_tolerated_in_either_direction_and_no_more() {
        assert!(!AtMost(2.0).fell_back(1.09, 1.0));
        assert!(AtMost(2.0).fell_back(1.11, 1.0));
        assert!(!AtLeast(4.0).fell_back(4.6, 5.0));
        assert!(AtLeast(4.0).fell_back(4.5, 5.0));
        assert!(!AtLeast(4.0).fell_back(9.0, 5.0), "better is no fall");
    }

    #[test]
    fn names_of_goals_differ() {
        let names: std::collections::BTreeSet<&str> = GOALS.iter().map(|goal| goal.name).collect();
        assert_eq!(names.len(), GOALS.len());
    }
}
