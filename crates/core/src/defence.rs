//! Defence against floods: which measures are in force, by their settings and the memory that is
//! left, and which new connections are dropped. Follows `update_defense_level` and `ip_vs_todrop`.

use crate::layout::{CONFIG_SECURE_TCP, Config};
use crate::sysctl::Sysctl;

/// A setting of this kind, and whether what it stands for is in force: 1 becomes 2 while memory is
/// short, and 1 again after that.
const fn level(mode: i32, short: bool) -> (i32, bool) {
    match (mode, short) {
        (1 | 2, true) => (2, true),
        (1 | 2, false) => (1, false),
        (3, _) => (3, true),
        (mode, _) => (mode, false),
    }
}

/// Brings the measures up to date. To be called once a second and after a setting changed, with the
/// pages of memory that are free or hold buffers.
pub fn update(config: &Config, available: u64) {
    let threshold = config.sysctl(Sysctl::Amemthresh);
    let available = i64::try_from(available).unwrap_or(i64::MAX);
    let short = available < threshold as i64;

    let (mode, drops) = level(config.sysctl(Sysctl::DropPacket), short);
    config.set_sysctl(Sysctl::DropPacket, mode);
    let rate = if mode == 3 {
        // The kernel counts down from a negative rate as from 1.
        match config.sysctl(Sysctl::AmDroprate) {
            0 => 0,
            rate => rate.max(1),
        }
    } else if drops {
        let rate = threshold as i64 / (threshold as i64 - available).max(1);
        let rate = rate.clamp(1, i32::MAX as i64) as i32;
        config.drop_counter.set(rate);
        rate
    } else {
        0
    };
    config.drop_rate.set(rate);

    let (mode, secure) = level(config.sysctl(Sysctl::SecureTcp), short);
    config.set_sysctl(Sysctl::SecureTcp, mode);
    let others = config.flags.get() & !CONFIG_SECURE_TCP;
    config.flags.set(others | if secure { CONFIG_SECURE_TCP } else { 0 });
}

/// Whether a new connection is to be dropped: every so many-th is, counted by all CPUs together and
/// not exactly.
#[inline(always)]
pub fn drops(config: &Config) -> bool {
    let rate = config.drop_rate.get();
    if rate == 0 {
        return false;
    }
    let left = config.drop_counter.get().wrapping_sub(1);
    config.drop_counter.set(if left > 0 { left } else { rate });
    left <= 0
}
