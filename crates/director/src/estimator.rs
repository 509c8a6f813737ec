//! Rates, as the kernel's estimator takes them: every two seconds a moving average with weight
//! 1/4 for the newest sample, in fixed point. Follows `ip_vs_est.c`.

use std::collections::HashMap;

use rvs_core::control::{Rates, Stats};
use rvs_core::types::{DestKey, Family, ServiceKey};

/// A service, or one of its destinations.
pub(crate) type Subject = (ServiceKey, Option<DestKey>);

/// What rates of everything are kept under: no service has the mark 0.
pub(crate) const EVERYTHING: Subject = (ServiceKey::Fwmark { family: Family::V4, mark: 0 }, None);

/// One moving average: the last count and the average in the kernel's fixed point.
#[derive(Clone, Copy, Debug, Default)]
struct Average {
    last: u64,
    scaled: i64,
}

impl Average {
    /// `shift` gives the fixed point: 10 bits for connections and packets, 5 for bytes.
    fn sample(&mut self, count: u64, shift: u32) {
        // Over two seconds, hence one bit less.
        let rate = (count.wrapping_sub(self.last) << (shift - 1)) as i64;
        self.last = count;
        self.scaled += (rate - self.scaled) >> 2;
    }

    fn get(self, shift: u32) -> u64 {
        // The kernel rounds up half of the fixed point's last place.
        (self.scaled.max(0) as u64 + (1 << (shift - 1)) - 1) >> shift
    }
}

/// Fixed point of connection and packet rates, in bits.
const PACKETS: u32 = 10;
/// Fixed point of byte rates, in bits.
const BYTES: u32 = 5;

#[derive(Clone, Copy, Debug, Default)]
struct Estimator {
    averages: [Average; 5],
    seen: bool,
}

impl Estimator {
    fn starting(stats: &Stats) -> Self {
        Self { averages: counts(stats).map(|(last, _)| Average { last, scaled: 0 }), seen: true }
    }
}

/// The estimators of all services and destinations.
#[derive(Debug, Default)]
pub(crate) struct Estimators(HashMap<Subject, Estimator>);

impl Estimators {
    /// Starts a round of samples.
    pub fn begin(&mut self) {
        for estimator in self.0.values_mut() {
            estimator.seen = false;
        }
    }

    /// Takes in the present counters.
    pub fn sample(&mut self, subject: Subject, stats: &Stats) {
        let counts = counts(stats);
        let estimator = self.0.entry(subject).or_insert_with(|| Estimator::starting(stats));
        estimator.seen = true;
        for (average, (count, shift)) in estimator.averages.iter_mut().zip(counts) {
            // A zeroed counter starts over.
            if count < average.last {
                average.last = count;
            }
            average.sample(count, shift);
        }
    }

    /// Ends a round: what was not sampled is gone.
    pub fn end(&mut self) {
        self.0.retain(|_, estimator| estimator.seen);
    }

    /// Starts a subject over, whose counters are these now: what is added or zeroed counts from then
    /// on, not from the next round.
    pub fn start(&mut self, subject: Subject, stats: &Stats) {
        self.0.insert(subject, Estimator::starting(stats));
    }

    /// The rates of a subject.
    pub fn rates(&self, subject: &Subject) -> Rates {
        let Some(estimator) = self.0.get(subject) else { return Rates::default() };
        let [conns, in_pkts, out_pkts, in_bytes, out_bytes] = estimator.averages;
        Rates {
            cps: conns.get(PACKETS),
            in_pps: in_pkts.get(PACKETS),
            out_pps: out_pkts.get(PACKETS),
            in_bps: in_bytes.get(BYTES),
            out_bps: out_bytes.get(BYTES),
        }
    }
}

fn counts(stats: &Stats) -> [(u64, u32); 5] {
    [
        (stats.conns, PACKETS),
        (stats.in_pkts, PACKETS),
        (stats.out_pkts, PACKETS),
        (stats.in_bytes, BYTES),
        (stats.out_bytes, BYTES),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_rate_is_reached_and_a_stop_decays() {
        let subject = (ServiceKey::Fwmark { family: Family::V4, mark: 1 }, None);
        let mut estimators = Estimators::default();
        let mut stats = Stats::default();
        let round = |estimators: &mut Estimators, stats: &Stats| {
            estimators.begin();
            estimators.sample(subject, stats);
            estimators.end();
        };
        round(&mut estimators, &stats);
        for _ in 0..60 {
            stats.conns += 200;
            stats.in_bytes += 2_000_000;
            round(&mut estimators, &stats);
        }
        let rates = estimators.rates(&subject);
        assert_eq!((rates.cps, rates.in_bps), (100, 1_000_000));
        for _ in 0..60 {
            round(&mut estimators, &stats);
        }
        assert_eq!(estimators.rates(&subject), Rates::default());
    }

    /// Counters of Linux 6.1 at each tick of its estimator, and what it made of them.
    #[test]
    fn rates_are_the_kernel_s_number_by_number() {
        let recorded = include_str!("../../../tests/oracle/recorded/rates.jsonl");
        let mut estimators = Estimators::default();
        estimators.start(EVERYTHING, &Stats::default());
        let (mut rows, mut busy) = (0, 0);
        for line in recorded.lines() {
            let row: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
            let numbers = |name: &str| -> [u64; 5] {
                let array = row[name].as_array().expect("numbers");
                std::array::from_fn(|at| array[at].as_u64().expect("a number"))
            };
            let [conns, in_pkts, out_pkts, in_bytes, out_bytes] = numbers("stats");
            let stats = Stats { conns, in_pkts, out_pkts, in_bytes, out_bytes };
            let [cps, in_pps, out_pps, in_bps, out_bps] = numbers("rates");
            estimators.sample(EVERYTHING, &stats);
            let expected = Rates { cps, in_pps, out_pps, in_bps, out_bps };
            assert_eq!(estimators.rates(&EVERYTHING), expected, "at {}", row["at"]);
            rows += 1;
            busy += u32::from(expected.cps > 1 && expected.out_bps > 1000);
        }
        assert!(rows > 15 && busy > 8, "{rows} {busy}");
    }
}
