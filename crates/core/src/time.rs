//! Time as the connection table keeps it.

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
    fn deadlines_work_across_the_wrap() {
        let now = Tick(u32::MAX - 1);
        let deadline = now.after(ticks(60));
        assert!(!now.reached(deadline) && deadline.reached(deadline));
        assert_eq!(deadline.seconds_from(now), 60);
    }
}
