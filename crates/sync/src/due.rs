//! Which connections are to be told of, and when: the kernel's rules (`ip_vs_sync_conn_needed`) as
//! far as they can be kept by looking at the table now and then instead of at every packet.

use rvs_core::time::{Tick, ticks};

/// The settings that decide (`net.ipv4.vs.sync_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Packets after which a connection is told of again (`sync_threshold`, second number). Here: 0
    /// or not.
    pub period: u32,
    /// Seconds by which the expiry must have moved (`sync_refresh_period`); 0: half the timeout.
    pub refresh: u32,
    /// How often one is told again within that time (`sync_retries`).
    pub retries: u8,
    /// Whether of persistent services only templates are told of (`sync_persist_mode`).
    pub templates_only: bool,
}

/// A connection or template as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// A number that another connection in the same place differs by.
    pub id: u32,
    /// Its protocol's state.
    pub state: u8,
    /// Whether its state is one to tell of.
    pub telling: bool,
    /// Whether a template controls it.
    pub controlled: bool,
    /// When it expires.
    pub expires: Tick,
    /// Ticks without a packet after which it does.
    pub timeout: u32,
}

/// What was told last of what is in a place of the table; nothing at first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    id: u32,
    expires: u32,
    at: u32,
    state: u8,
    retries: u8,
    told: bool,
}

/// Whether and why a connection is to be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// It is not.
    No,
    /// It is new.
    New,
    /// Its state changed.
    State,
    /// There were packets, and the others' copy would expire too early.
    Refresh,
    /// Once more, should the last message have been lost.
    Again,
}

/// Refreshing is not worth it for less than this many seconds.
const LEAST: u32 = 10;

impl Sent {
    /// Whether `seen` is to be told of at `now`. Whoever does then calls [`told`](Self::told).
    pub fn due(&self, settings: &Settings, seen: &Seen, now: Tick) -> Due {
        if !seen.telling || settings.templates_only && seen.controlled {
            return Due::No;
        }
        if !self.told || self.id != seen.id {
            return Due::New;
        }
        if self.state != seen.state {
            return Due::State;
        }
        let moved = seen.expires.0.wrapping_sub(self.expires) as i32;
        if moved <= 0 || settings.refresh == 0 && settings.period == 0 {
            return Due::No;
        }
        let half = (seen.timeout / 2).max(ticks(LEAST));
        let refresh = ticks(settings.refresh);
        let least = if refresh == 0 { half } else { half.min(refresh) };
        if moved as u32 >= least {
            return Due::Refresh;
        }
        let waited = now.reached(Tick(self.at).after(refresh / 8));
        let again = refresh != 0 && self.retries < settings.retries && waited;
        if again { Due::Again } else { Due::No }
    }

    /// Notes that `seen` was told of at `now`, because it was `due`.
    pub fn told(&mut self, seen: &Seen, now: Tick, due: Due) {
        let retries = if due == Due::Again { self.retries + 1 } else { 0 };
        // A repetition does not put off the next refreshment.
        let expires = if due == Due::Again { self.expires } else { seen.expires.0 };
        *self = Self { id: seen.id, expires, at: now.0, state: seen.state, retries, told: true };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL: Settings = Settings { period: 50, refresh: 0, retries: 0, templates_only: false };
    const SEEN: Seen = Seen {
        id: 7,
        state: 1,
        telling: true,
        controlled: false,
        expires: Tick(10_000),
        timeout: 6_000,
    };

    fn sent(seen: &Seen, now: u32) -> Sent {
        let mut sent = Sent::default();
        sent.told(seen, Tick(now), Due::New);
        sent
    }

    #[test]
    fn a_connection_is_told_of_once_while_nothing_happens() {
        assert_eq!(Sent::default().due(&KERNEL, &SEEN, Tick(4_000)), Due::New);
        assert_eq!(sent(&SEEN, 4_000).due(&KERNEL, &SEEN, Tick(9_000)), Due::No);
    }

    #[test]
    fn what_has_an_untold_state_waits() {
        let seen = Seen { telling: false, ..SEEN };
        assert_eq!(Sent::default().due(&KERNEL, &seen, Tick(0)), Due::No);
    }

    #[test]
    fn a_change_of_state_and_a_successor_in_the_same_place_are_told_of() {
        let sent = sent(&SEEN, 4_000);
        assert_eq!(sent.due(&KERNEL, &Seen { state: 4, ..SEEN }, Tick(4_001)), Due::State);
        assert_eq!(sent.due(&KERNEL, &Seen { id: 8, ..SEEN }, Tick(4_001)), Due::New);
    }

    #[test]
    fn packets_refresh_after_half_the_timeout() {
        let sent = sent(&SEEN, 4_000);
        let moved = |by| Seen { expires: Tick(10_000 + by), ..SEEN };
        assert_eq!(sent.due(&KERNEL, &moved(2_999), Tick(6_999)), Due::No);
        assert_eq!(sent.due(&KERNEL, &moved(3_000), Tick(7_000)), Due::Refresh);
        let once = Settings { period: 0, ..KERNEL };
        assert_eq!(sent.due(&once, &moved(5_000), Tick(9_000)), Due::No);
        let often = Settings { refresh: 20, ..once };
        assert_eq!(sent.due(&often, &moved(ticks(20) - 1), Tick(5_000)), Due::No);
        assert_eq!(sent.due(&often, &moved(ticks(20)), Tick(5_000)), Due::Refresh);
        let brief = Seen { timeout: 20, ..moved(ticks(LEAST) - 1) };
        assert_eq!(sent.due(&KERNEL, &brief, Tick(5_000)), Due::No);
    }

    #[test]
    fn repetitions_are_as_many_as_asked_for_and_an_eighth_apart() {
        let settings = Settings { refresh: 80, retries: 2, ..KERNEL };
        let (mut sent, eighth) = (sent(&SEEN, 4_000), ticks(80) / 8);
        let moved = Seen { expires: Tick(10_001), ..SEEN };
        assert_eq!(sent.due(&settings, &SEEN, Tick(4_000 + eighth)), Due::No);
        assert_eq!(sent.due(&settings, &moved, Tick(3_999 + eighth)), Due::No);
        for round in 1..=2 {
            assert_eq!(sent.due(&settings, &moved, Tick(4_000 + round * eighth)), Due::Again);
            sent.told(&moved, Tick(4_000 + round * eighth), Due::Again);
        }
        assert_eq!(sent.due(&settings, &moved, Tick(4_000 + 3 * eighth)), Due::No);
    }

    #[test]
    fn persistence_may_be_told_by_templates_only() {
        let settings = Settings { templates_only: true, ..KERNEL };
        let controlled = Seen { controlled: true, ..SEEN };
        assert_eq!(Sent::default().due(&settings, &controlled, Tick(0)), Due::No);
        assert_eq!(Sent::default().due(&settings, &SEEN, Tick(0)), Due::New);
    }
}
