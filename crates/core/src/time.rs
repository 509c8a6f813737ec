//! Time as the connection table keeps it.

use core::cell::Cell;

/// A moment in units of 2²⁷ ns (134 ms) of the monotonic clock; wraps after 18 years of uptime.
///
/// Coarse on purpose: the expiry of a connection is written at most 7.5 times a second, however
/// many packets arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick(pub u32);

/// Nanoseconds in a tick, as a power of two.
const SHIFT: u32 = 27;

impl Tick {
    /// The tick that contains this moment of `CLOCK_MONOTONIC_COARSE`.
    #[inline(always)]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self((nanos >> SHIFT) as u32)
    }

    /// `timeout` ticks later.
    #[inline(always)]
    pub const fn after(self, timeout: u32) -> Self {
        Self(self.0.wrapping_add(timeout))
    }

    /// Whether `self` is at or past `deadline`, across a wrap.
    #[inline(always)]
    pub const fn reached(self, deadline: Self) -> bool {
        self.0.wrapping_sub(deadline.0) as i32 >= 0
    }

    /// Whole seconds from now until `self`; 0 once it has passed.
    pub const fn seconds_from(self, now: Self) -> u32 {
        let ticks = self.0.wrapping_sub(now.0) as i32;
        if ticks <= 0 { 0 } else { (((ticks as u64) << SHIFT) / 1_000_000_000) as u32 }
    }
}

/// How jiffies become `CLOCK_MONOTONIC_COARSE`: reading them takes a program one instruction, reading the clock
/// three calls. Both stand still, and go on, in the same timer interrupt (`tick_do_update_jiffies64`).
#[derive(Debug, Default)]
#[repr(C)]
pub struct Clock {
    /// `jiffies_64` at some moment.
    pub jiffies: Cell<u64>,
    /// The clock at that moment, in nanoseconds.
    pub nanos: Cell<u64>,
    /// Nanoseconds of a jiffy (`TICK_NSEC`); 0 while that is not known.
    pub step: Cell<u64>,
}

impl Clock {
    /// The clock at `jiffies`, in nanoseconds; `None` while it is to be asked itself.
    #[inline(always)]
    pub fn at(&self, jiffies: u64) -> Option<u64> {
        let step = self.step.get();
        if step == 0 {
            return None;
        }
        let since = jiffies.wrapping_sub(self.jiffies.get());
        Some(self.nanos.get().wrapping_add(since.wrapping_mul(step)))
    }

    /// Finds out the length of a jiffy by an earlier moment, jiffies and nanoseconds, a fifth of a second ago
    /// or more. It stays unknown if `CONFIG_HZ` is none that x86 or arm64 can have.
    pub fn compare(&self, (jiffies, nanos): (u64, u64)) {
        const SECOND: u64 = 1_000_000_000;
        let passed = self.nanos.get().wrapping_sub(nanos);
        let counted = self.jiffies.get().wrapping_sub(jiffies);
        let is = |hz: &u64| (passed.saturating_mul(*hz) / SECOND).abs_diff(counted) <= 2;
        let mut fitting = [100, 250, 300, 1000].into_iter().filter(is);
        if let (Some(hz), None) = (fitting.next(), fitting.next()) {
            self.step.set((SECOND + hz / 2) / hz);
        }
    }
}

/// The number of ticks that last at least `seconds`.
pub const fn ticks(seconds: u32) -> u32 {
    ((seconds as u64 * 1_000_000_000).div_ceil(1 << SHIFT)) as u32
}

/// The seconds that `ticks` were made from.
pub const fn seconds(ticks: u32) -> u32 {
    (((ticks as u64) << SHIFT) / 1_000_000_000) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_round_up_and_seconds_give_them_back() {
        for s in [0, 1, 2, 10, 60, 900, 86_400, 2_147_483] {
            assert_eq!(seconds(ticks(s)), s);
        }
    }

    #[test]
    fn jiffies_tell_the_time() {
        for (hz, step) in [(100, 10_000_000), (250, 4_000_000), (300, 3_333_333), (1000, 1_000_000)]
        {
            let clock = Clock::default();
            let (jiffies, nanos) = (u64::from(u32::MAX) - 300 * hz, 77_000_000);
            // A jiffy of each reading may be about to end.
            for error in [0, 1, 2] {
                clock.step.set(0);
                clock.jiffies.set(jiffies + hz / 2 + error);
                clock.nanos.set(nanos + 500_000_000);
                assert_eq!(clock.at(0), None);
                clock.compare((jiffies, nanos));
                assert_eq!(clock.step.get(), step, "{hz} Hz, {error}");
            }
            let later = clock.jiffies.get() + hz * 86_400 * 365;
            let expected = clock.nanos.get() + 86_400 * 365 * 1_000_000_000;
            let off = clock.at(later).expect("it is known").abs_diff(expected);
            assert!(off <= expected / 1_000_000, "{hz} Hz: {off} ns");
        }
        let clock = Clock::default();
        clock.jiffies.set(400);
        clock.nanos.set(1_000_000_000);
        clock.compare((0, 0));
        assert_eq!(clock.step.get(), 0, "400 Hz is nobody's");
        clock.jiffies.set(1);
        clock.nanos.set(1_000_000);
        clock.compare((0, 0));
        assert_eq!(clock.step.get(), 0, "too early to tell");
    }

    #[test]
    fn deadlines_work_across_the_wrap() {
        let now = Tick(u32::MAX - 1);
        let deadline = now.after(ticks(60));
        assert!(!now.reached(deadline) && deadline.reached(deadline));
        assert_eq!(deadline.seconds_from(now), 60);
    }
}
