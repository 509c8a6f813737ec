//! `/proc/net/ip_vs_stats` and `ip_vs_stats_percpu`: `ip_vs_stats_show` of `ip_vs_ctl.c`.
//!
//! The director does not tell CPUs apart: all is shown as the first one's. And as the kernel's rows of
//! CPUs are never zeroed, `ipvsadm -Z` shows there in rvsd's case and does not in the kernel's.

use rvs_core::control::{Rates, Stats};
use rvs_netlink::{Client, ClientError};

use crate::tables;

pub(super) fn text(client: &mut Client) -> Result<String, ClientError> {
    let (stats, rates) = tables::totals(client)?;
    Ok(show(&stats, &rates))
}

pub(super) fn percpu(client: &mut Client) -> Result<String, ClientError> {
    let (stats, rates) = tables::totals(client)?;
    Ok(show_percpu(&stats, &rates))
}

fn show(stats: &Stats, rates: &Rates) -> String {
    format!(
        "   Total Incoming Outgoing         Incoming         Outgoing\n   \
         Conns  Packets  Packets            Bytes            Bytes\n\
         {}\n\n Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n{}\n",
        counters(stats),
        rates_row(rates),
    )
}

fn show_percpu(stats: &Stats, rates: &Rates) -> String {
    let row = counters(stats);
    format!(
        "       Total Incoming Outgoing         Incoming         Outgoing\n\
         CPU    Conns  Packets  Packets            Bytes            Bytes\n  \
         0 {row}\n  ~ {row}\n\n     \
         Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n    {}\n",
        rates_row(rates),
    )
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Every text of `tests/oracle/recorded/proc.jsonl`, printed from the numbers in it.
    #[test]
    fn texts_are_the_kernel_s() {
        let recorded = include_str!("../../../../tests/oracle/recorded/proc.jsonl");
        let (mut seen, mut seen_by_cpu) = (0, 0);
        for line in recorded.lines() {
            let row: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
            let Some(text) = row["files"]["ip_vs_stats"].as_str() else { continue };
            let lines: Vec<&str> = text.lines().collect();
            let [conns, in_pkts, out_pkts, in_bytes, out_bytes] = numbers(lines[2]);
            let stats = Stats { conns, in_pkts, out_pkts, in_bytes, out_bytes };
            let [cps, in_pps, out_pps, in_bps, out_bps] = numbers(lines[5]);
            let rates = Rates { cps, in_pps, out_pps, in_bps, out_bps };
            assert_eq!(show(&stats, &rates), text);
            seen += u32::from(stats.conns > 0);
            // The kernel adds its CPUs' counters up every two seconds, and zeroes the sums only.
            let by_cpu = row["files"]["ip_vs_stats_percpu"].as_str().expect("a text");
            let cpu = by_cpu.lines().nth(2).expect("a row of the first CPU");
            if numbers(&cpu[3..]) == numbers(lines[2]) {
                assert_eq!(show_percpu(&stats, &rates), by_cpu);
                seen_by_cpu += u32::from(stats.conns > 0);
            }
        }
        assert!(seen > 2 && seen_by_cpu > 2, "{seen} {seen_by_cpu}");
    }

    fn numbers(line: &str) -> [u64; 5] {
        let words = line.split_whitespace();
        let numbers: Vec<u64> =
            words.map(|word| u64::from_str_radix(word, 16).expect("hexadecimal")).collect();
        numbers.try_into().expect("five numbers")
    }
}
