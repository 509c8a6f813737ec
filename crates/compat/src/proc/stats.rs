//! `/proc/net/ip_vs_stats` and `ip_vs_stats_percpu`: `ip_vs_stats_show` of `ip_vs_ctl.c`.
//! Rows of CPUs are never zeroed.

use rvs_core::control::{Rates, Stats};
use rvs_netlink::{Client, ClientError};

use crate::tables::{self, Totals};

pub(super) fn text(client: &mut Client) -> Result<String, ClientError> {
    let totals = tables::totals(client)?;
    Ok(show(&totals.stats, &totals.rates))
}

pub(super) fn percpu(client: &mut Client) -> Result<String, ClientError> {
    Ok(show_percpu(&tables::totals(client)?))
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

fn show_percpu(Totals { stats, rates, by_cpu }: &Totals) -> String {
    let row = |(cpu, stats): (usize, &Stats)| format!("{cpu:3X} {}\n", counters(stats));
    let rows: String = by_cpu.iter().enumerate().map(row).collect();
    format!(
        "       Total Incoming Outgoing         Incoming         Outgoing\n\
         CPU    Conns  Packets  Packets            Bytes            Bytes\n\
         {rows}  ~ {}\n\n     \
         Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n    {}\n",
        counters(stats),
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
            let (stats, rates) = (counted(lines[2]), rated(lines[5]));
            assert_eq!(show(&stats, &rates), text);
            seen += u32::from(stats.conns > 0);
            let by_cpu = row["files"]["ip_vs_stats_percpu"].as_str().expect("a text");
            // The kernel adds its CPUs' counters up every two seconds, and zeroes the sums only.
            let cpus = by_cpu.lines().skip(2).take_while(|line| !line.starts_with("  ~"));
            let cpus: Vec<Stats> = cpus.map(|line| counted(&line[3..])).collect();
            let lines: Vec<&str> = by_cpu.lines().skip(2 + cpus.len()).collect();
            let (stats, rates) = (counted(&lines[0][3..]), rated(lines[3]));
            seen_by_cpu += u32::from(cpus.iter().any(|cpu| cpu.conns > 0));
            assert_eq!(show_percpu(&Totals { stats, rates, by_cpu: cpus }), by_cpu);
        }
        assert!(seen > 2 && seen_by_cpu > 2, "{seen} {seen_by_cpu}");
    }

    fn counted(line: &str) -> Stats {
        let [conns, in_pkts, out_pkts, in_bytes, out_bytes] = numbers(line);
        Stats { conns, in_pkts, out_pkts, in_bytes, out_bytes }
    }

    fn rated(line: &str) -> Rates {
        let [cps, in_pps, out_pps, in_bps, out_bps] = numbers(line);
        Rates { cps, in_pps, out_pps, in_bps, out_bps }
    }

    fn numbers(line: &str) -> [u64; 5] {
        let words = line.split_whitespace();
        let numbers: Vec<u64> =
            words.map(|word| u64::from_str_radix(word, 16).expect("hexadecimal")).collect();
        numbers.try_into().expect("five numbers")
    }
}
