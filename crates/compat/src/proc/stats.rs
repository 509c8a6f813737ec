//! `/proc/net/ip_vs_stats` and `ip_vs_stats_percpu`: `ip_vs_stats_show` of `ip_vs_ctl.c`.
//!
//! The director keeps no counters beyond those of its services, so the totals are the sums of the
//! services that are there, and all is told as the first CPU's.

use rvs_core::control::{Rates, Stats};
use rvs_netlink::{Client, ClientError};

use crate::tables;

pub(super) fn text(client: &mut Client) -> Result<String, ClientError> {
    let (stats, rates) = totals(client)?;
    Ok(format!(
        "   Total Incoming Outgoing         Incoming         Outgoing\n   \
         Conns  Packets  Packets            Bytes            Bytes\n\
         {}\n\n Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n{}\n",
        counters(&stats),
        rates_row(&rates),
    ))
}

pub(super) fn percpu(client: &mut Client) -> Result<String, ClientError> {
    let (stats, rates) = totals(client)?;
    let row = counters(&stats);
    Ok(format!(
        "       Total Incoming Outgoing         Incoming         Outgoing\n\
         CPU    Conns  Packets  Packets            Bytes            Bytes\n  \
         0 {row}\n  ~ {row}\n\n     \
         Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n    {}\n",
        rates_row(&rates),
    ))
}

fn counters(stats: &Stats) -> String {
    row([stats.conns, stats.in_pkts, stats.out_pkts, stats.in_bytes, stats.out_bytes])
}

fn rates_row(rates: &Rates) -> String {
    row([rates.cps, rates.in_pps, rates.out_pps, rates.in_bps, rates.out_bps])
}

/// Five numbers in hexadecimal.
fn row([conns, in_pkts, out_pkts, in_bytes, out_bytes]: [u64; 5]) -> String {
    format!("{conns:8X} {in_pkts:8X} {out_pkts:8X} {in_bytes:16X} {out_bytes:16X}")
}

fn totals(client: &mut Client) -> Result<(Stats, Rates), ClientError> {
    let (mut stats, mut rates) = (Stats::default(), Rates::default());
    for service in tables::services(client)? {
        stats.conns += service.stats.conns;
        stats.in_pkts += service.stats.in_pkts;
        stats.out_pkts += service.stats.out_pkts;
        stats.in_bytes += service.stats.in_bytes;
        stats.out_bytes += service.stats.out_bytes;
        rates.cps += service.rates.cps;
        rates.in_pps += service.rates.in_pps;
        rates.out_pps += service.rates.out_pps;
        rates.in_bps += service.rates.in_bps;
        rates.out_bps += service.rates.out_bps;
    }
    Ok((stats, rates))
}
