//! Counters and rates, in both widths.

use rvs_core::control::{Rates, Stats};

use crate::attr::{Attrs, Writer};

/// The ten numbers, in the order of `IPVS_STATS_ATTR_*`.
fn numbers(stats: &Stats, rates: &Rates) -> [u64; 10] {
    [
        stats.conns,
        stats.in_pkts,
        stats.out_pkts,
        stats.in_bytes,
        stats.out_bytes,
        rates.cps,
        rates.in_pps,
        rates.out_pps,
        rates.in_bps,
        rates.out_bps,
    ]
}

/// Puts counters in both forms: 32 bits wide where the first form is, and 64 bits wide.
pub fn put_stats(attrs: &mut Writer, narrow: u16, wide: u16, stats: &Stats, rates: &Rates) {
    let (mut old, mut new) = (Writer::new(), Writer::new());
    for (number, kind) in numbers(stats, rates).into_iter().zip(1..) {
        if matches!(kind, 4 | 5) {
            old.u64(kind, number);
        } else {
            old.u32(kind, number as u32);
        }
        new.u64(kind, number);
    }
    attrs.nest(narrow, &old).nest(wide, &new);
}

/// Reads counters, the wide form if it is there.
pub fn stats(attrs: &Attrs<'_>, narrow: u16, wide: u16) -> (Stats, Rates) {
    read(&attrs.nested(wide).or_else(|| attrs.nested(narrow)).unwrap_or(Attrs(&[])))
}

/// Counters and rates, in whatever form they are.
fn read(inner: &Attrs<'_>) -> (Stats, Rates) {
    let get = |kind| inner.u64(kind).or_else(|| inner.u32(kind).map(u64::from)).unwrap_or_default();
    let stats = Stats {
        conns: get(1),
        in_pkts: get(2),
        out_pkts: get(3),
        in_bytes: get(4),
        out_bytes: get(5),
    };
    let rates =
        Rates { cps: get(6), in_pps: get(7), out_pps: get(8), in_bps: get(9), out_bps: get(10) };
    (stats, rates)
}

/// Puts counters alone, 64 bits wide.
pub fn put_counters(attrs: &mut Writer, kind: u16, stats: &Stats) {
    let mut inner = Writer::new();
    for (number, kind) in numbers(stats, &Rates::default()).into_iter().take(5).zip(1..) {
        inner.u64(kind, number);
    }
    attrs.nest(kind, &inner);
}

/// Reads every set of counters of this kind, in order.
pub fn counters(attrs: &Attrs<'_>, kind: u16) -> Vec<Stats> {
    let sets = attrs.clone().filter(|(found, _)| *found == kind);
    sets.map(|(_, value)| read(&Attrs(value)).0).collect()
}
