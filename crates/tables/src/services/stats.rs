//! Counters of services and of everything, as the kernel has them: what is not in force is not counted
//! (`IP_VS_DEST_F_AVAILABLE`), and a destination that comes back counts on, unless it is to another
//! service (`tests/oracle/recorded/readd.jsonl`).
//!
//! Packets only ever add to `DEST_STATS`. In its first element, by CPU, is what destinations counted
//! whose places were given back; in the first element of `DESTS`, `base` is what everything had
//! counted when all was zeroed; in the first of `SLOTS`, `adjust` is what was forwarded and counts for
//! nobody. So nothing is lost with rvsd.

use rvs_core::control::Stats;
use rvs_core::layout::DestStats;
use rvs_core::types::DestKey;

use super::{Service, Services, Trash};
use crate::memory::Memory;

/// The element that is no destination's.
const GONE: u32 = 0;

type Counters = [u64; 5];

fn fields(stats: Stats) -> Counters {
    [stats.conns, stats.in_pkts, stats.out_pkts, stats.in_bytes, stats.out_bytes]
}

fn from_fields([conns, in_pkts, out_pkts, in_bytes, out_bytes]: Counters) -> Stats {
    Stats { conns, in_pkts, out_pkts, in_bytes, out_bytes }
}

fn combine(a: Stats, b: Stats, with: impl Fn(u64, u64) -> u64) -> Stats {
    let (mut a, b) = (fields(a), fields(b));
    a.iter_mut().zip(b).for_each(|(a, b)| *a = with(*a, b));
    from_fields(a)
}

fn add(a: Stats, b: Stats) -> Stats {
    combine(a, b, u64::wrapping_add)
}

fn subtract(a: Stats, b: Stats) -> Stats {
    combine(a, b, u64::wrapping_sub)
}

fn sum(stats: &[Stats]) -> Stats {
    stats.iter().copied().fold(Stats::default(), add)
}

impl<M: Memory> Services<M> {
    /// What a destination counted since its place was taken.
    fn raw_stats(&self, index: u32) -> Stats {
        self.maps.counters(index).map(DestStats::get).fold(Stats::default(), add)
    }

    fn stats_by_cpu(&self, index: u32) -> Vec<Stats> {
        self.maps.counters(index).map(DestStats::get).collect()
    }

    pub(super) fn service_counters(&self, service: &Service) -> Stats {
        let listed = service.dests.iter().map(|dest| self.raw_stats(dest.index));
        let trash = self.trash.iter().filter(|trash| trash.slot == service.slot);
        let all = listed.chain(trash.map(|trash| sum(&trash.counted)));
        all.fold(self.adjustment(service.slot), add)
    }

    /// What a destination counted since it was zeroed.
    pub(super) fn dest_counters(&self, index: u32) -> Stats {
        let base = self.maps.dests().get(index as usize).map(|dest| dest.base.each_ref());
        let base = base.map_or(Counters::default(), |base| base.map(|cell| cell.get()));
        subtract(self.raw_stats(index), from_fields(base))
    }

    /// Zeroes a service and its destinations.
    pub(super) fn zero_counters(&self, service: &Service) {
        for dest in &service.dests {
            self.set_base(dest.index, self.raw_stats(dest.index));
        }
        let counted = subtract(self.service_counters(service), self.adjustment(service.slot));
        self.set_adjustment(service.slot, subtract(Stats::default(), counted));
    }

    /// Zeroes a service that was just added, whatever its destinations counted before.
    pub(super) fn zero_new(&self, slot: u32, dests: impl Iterator<Item = u32>) {
        let mut adjustment = Stats::default();
        for index in dests {
            let raw = self.raw_stats(index);
            self.set_base(index, raw);
            adjustment = subtract(adjustment, raw);
        }
        let trash = self.trash.iter().filter(|trash| trash.slot == slot);
        let trash = trash.map(|trash| sum(&trash.counted));
        self.set_adjustment(slot, trash.fold(adjustment, subtract));
    }

    /// Keeps for its service what a destination counted that is gone.
    pub(super) fn absorb(&self, trash: &Trash) {
        self.set_adjustment(trash.slot, add(self.adjustment(trash.slot), sum(&trash.counted)));
    }

    /// A destination as it leaves its service.
    pub(super) fn new_trash(&self, slot: u32, key: DestKey, index: u32) -> Trash {
        let counted = self.stats_by_cpu(index);
        Trash { slot, key, index, service: self.sequence_of(slot), counted, idle: None }
    }

    fn sequence_of(&self, slot: u32) -> u32 {
        self.maps.slots().get(slot as usize).map_or(0, |slot| slot.sequence.get())
    }

    /// Takes no account of what a destination counted while it was not in force: it is again.
    pub(super) fn revive(&mut self, trash: &Trash) {
        let raw = self.stats_by_cpu(trash.index);
        let counted = trash.counted.iter().copied();
        let away: Vec<Stats> = raw.into_iter().zip(counted).map(|(a, b)| subtract(a, b)).collect();
        let total = sum(&away);
        if total != Stats::default() {
            self.keep(&away, subtract);
            self.set_adjustment(GONE, add(self.adjustment(GONE), total));
            self.set_adjustment(trash.slot, subtract(self.adjustment(trash.slot), total));
        }
        let counted = match trash.service == self.sequence_of(trash.slot) {
            true => subtract(self.dest_counters(trash.index), total),
            false => Stats::default(),
        };
        self.set_base(trash.index, subtract(self.raw_stats(trash.index), counted));
    }

    /// Keeps what a destination counted whose place is given back, and empties the place.
    pub(super) fn retire(&mut self, index: u32, counted: &[Stats]) {
        let away = subtract(self.raw_stats(index), sum(counted));
        self.set_adjustment(GONE, add(self.adjustment(GONE), away));
        self.keep(counted, add);
        self.maps.counters(index).for_each(|counters| counters.set(Stats::default()));
    }

    fn keep(&mut self, more: &[Stats], with: fn(Stats, Stats) -> Stats) {
        let kept = self.maps.counters(GONE);
        kept.zip(more).for_each(|(kept, more)| kept.set(with(kept.get(), *more)));
    }

    /// Packets that were forwarded since the maps were made, counted for a service or not: to real
    /// servers and to clients.
    pub fn forwarded(&self) -> (u64, u64) {
        let all = self.dests_in_use().map(|index| self.raw_stats(index));
        let all = all.chain([self.raw_stats(GONE)]).fold(self.adjustment(GONE), add);
        (all.in_pkts, all.out_pkts)
    }

    fn dests_in_use(&self) -> impl Iterator<Item = u32> {
        let dests = self.maps.dests().iter().enumerate().skip(1);
        dests.filter(|(_, dest)| dest.family.get() != 0).map(|(index, _)| index as u32)
    }

    /// What everything counted since the maps were made, by CPU.
    pub(super) fn by_cpu(&self) -> Vec<Stats> {
        let mut total = self.stats_by_cpu(GONE);
        let mut more = |stats: &[Stats]| {
            total.iter_mut().zip(stats).for_each(|(total, more)| *total = add(*total, *more));
        };
        for dest in self.services.iter().flat_map(|service| &service.dests) {
            more(&self.stats_by_cpu(dest.index));
        }
        self.trash.iter().for_each(|trash| more(&trash.counted));
        total
    }

    /// The sum of [`by_cpu`](Self::by_cpu), less what was zeroed.
    pub(super) fn total_counters(&self, by_cpu: &[Stats]) -> Stats {
        let zeroed = self.maps.dests().first().map(|dest| dest.base.each_ref());
        let zeroed = zeroed.map_or(Counters::default(), |base| base.map(|cell| cell.get()));
        subtract(sum(by_cpu), from_fields(zeroed))
    }

    pub(super) fn zero_total(&self) {
        self.set_base(GONE, sum(&self.by_cpu()));
    }

    fn set_base(&self, index: u32, stats: Stats) {
        let Some(dest) = self.maps.dests().get(index as usize) else { return };
        dest.base.iter().zip(fields(stats)).for_each(|(base, value)| base.set(value));
    }

    /// What a service's counters are beside the sum of its destinations'.
    fn adjustment(&self, slot: u32) -> Stats {
        let slot = self.maps.slots().get(slot as usize);
        let adjust = slot.map(|slot| slot.adjust.each_ref().map(|cell| cell.get()));
        from_fields(adjust.unwrap_or_default())
    }

    fn set_adjustment(&self, slot: u32, stats: Stats) {
        let Some(slot) = self.maps.slots().get(slot as usize) else { return };
        slot.adjust.iter().zip(fields(stats)).for_each(|(adjust, value)| adjust.set(value));
    }
}
