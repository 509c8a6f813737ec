//! Datagrams in fragments, given to both hooks and the native data path, each with the slow path
//! behind it as rvsd has it.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use rvs_core::control::{Change, Datapath};
use rvs_core::fragment::{NoteKey, Notes, Ticket};
use rvs_core::reason::Reason;
use rvs_core::sysctl::Sysctl;
use rvs_core::types::{DestConfig, Scheduler, ServiceConfig, ServiceFlags, ServiceKey};
use rvs_sim::{Frame, Outcome, SimDatapath};
use rvs_slow::{Path, Slow};

use crate::{Bench, DIRECTOR, ETH0, Hook, Verdict};

/// Who plays the recording.
pub enum Player {
    /// The eBPF programs, first that of this hook.
    Programs(Box<Bench>, Hook),
    /// The native data path.
    Native(Box<SimDatapath>),
}

/// What became of one frame.
enum Became {
    Sent(Vec<u8>),
    Held(Vec<u8>),
    Passed,
    Dropped,
}

impl Player {
    /// Puts a service with one destination in force.
    pub fn put(&mut self, key: ServiceKey, dest: DestConfig) {
        let source = if dest.key.addr.is_ipv4() { "10.1.0.1" } else { "fd01::1" };
        let source = source.parse().expect("an address");
        match self {
            Self::Programs(bench, _) => bench.service(key, Scheduler::Rr, &[dest]),
            Self::Native(sim) => {
                let flags = ServiceFlags::empty();
                let scheduler = Scheduler::Rr;
                let config =
                    ServiceConfig { scheduler, flags, timeout: 0, netmask: u32::MAX, engine: None };
                sim.put_service(&key, &config, &[dest], Change::Service).expect("there is room");
                for (index, _) in sim.take_new() {
                    sim.set_source(index, source);
                }
            }
        }
    }

    /// Opens the slow path, as rvsd does.
    pub fn open(&mut self) {
        if let Self::Programs(bench, _) = self {
            bench.open_slow_path();
        }
    }

    /// Changes a setting.
    pub fn set_sysctl(&mut self, name: Sysctl, value: i32) {
        match self {
            Self::Programs(bench, _) => bench.datapath.set_sysctl(name, value),
            Self::Native(sim) => sim.set_sysctl(name, value),
        }
        .expect("it can be set");
    }

    /// Sends a piece of a tunnel's packet, as the program behind the slow path does.
    fn send(&mut self, piece: &[u8]) -> Vec<u8> {
        let Self::Programs(bench, _) = self else { panic!("nothing is too big there") };
        let outcome = bench.put_back(piece);
        assert_eq!(outcome.verdict, Verdict::Sent);
        outcome.frame
    }

    fn play(&mut self, frame: &[u8], again: bool) -> Became {
        match self {
            Self::Programs(bench, hook) => {
                let held = |bench: &Bench| {
                    bench.reason(Reason::SlowFragment) + bench.reason(Reason::SlowTooBig)
                };
                let before = held(bench);
                // What the slow path puts back only TC sees, as what XDP passes on.
                let first = if again { Hook::Tc } else { *hook };
                let mut outcome = bench.run(first, frame);
                if first == Hook::Xdp && outcome.verdict == Verdict::Pass {
                    assert_eq!(outcome.frame, frame, "passed on, yet changed");
                    outcome = bench.run(Hook::Tc, frame);
                }
                match outcome.verdict {
                    Verdict::Sent if held(bench) != before => Became::Held(outcome.frame),
                    Verdict::Sent => Became::Sent(outcome.frame),
                    Verdict::Drop => Became::Dropped,
                    Verdict::Pass => {
                        assert_eq!(outcome.frame, frame, "passed, yet changed");
                        Became::Passed
                    }
                    Verdict::Other(other) => panic!("{other}"),
                }
            }
            Self::Native(sim) => {
                let mut changed = Frame::new(frame);
                match sim.maps().run(&mut changed) {
                    Outcome::Sent => Became::Sent(changed.bytes().to_vec()),
                    Outcome::Held => {
                        let mut held = frame.to_vec();
                        let ticket = Ticket { ifindex: ETH0, mtu: 0 };
                        held[..6].copy_from_slice(&ticket.to_mac());
                        Became::Held(held)
                    }
                    Outcome::Pass(_) => Became::Passed,
                    Outcome::Drop(_) => Became::Dropped,
                }
            }
        }
    }
}

/// The slow path's view of a player.
struct Behind<'p> {
    player: &'p Player,
    back: VecDeque<Vec<u8>>,
    /// Pieces of a tunnel's packets.
    out: Vec<Vec<u8>>,
    given_up: BTreeMap<&'static str, u64>,
}

impl Path for Behind<'_> {
    fn has_passed(&mut self, key: &NoteKey) -> bool {
        match self.player {
            Player::Programs(bench, _) => bench.datapath.maps().note(key),
            Player::Native(sim) => sim.maps().note(key),
        }
        .is_some()
    }

    fn put_back(&mut self, frame: &[u8]) {
        let ticket = Ticket::from_mac(*frame.first_chunk().expect("a frame"));
        if ticket.ifindex == Ticket::OUT {
            return self.out.push(frame.to_vec());
        }
        assert_eq!(ticket.ifindex, ETH0, "where it came from");
        let mut frame = frame.to_vec();
        frame[..6].copy_from_slice(&DIRECTOR);
        self.back.push_back(frame);
    }

    fn inspect(&mut self, _: &mut [u8]) {
        unreachable!("these are fragments");
    }

    fn count(&mut self, reason: Reason, frames: u64) {
        *self.given_up.entry(reason.name()).or_default() += frames;
    }
}

/// What became of the frames of a case.
#[derive(Default)]
pub struct Played {
    /// Frames that left the director.
    pub sent: Vec<Vec<u8>>,
    /// How many the host has, untouched.
    pub passed: usize,
    /// What the slow path gave up, by its counters.
    pub given_up: BTreeMap<&'static str, u64>,
}

/// Plays frames one after the other, then lets time pass.
pub fn run(player: &mut Player, frames: &[Vec<u8>]) -> Played {
    let (mut slow, mut played, now) = (Slow::new(), Played::default(), Instant::now());
    for (index, frame) in frames.iter().enumerate() {
        let mut waiting = VecDeque::from([(frame.clone(), false)]);
        while let Some((frame, again)) = waiting.pop_front() {
            let became = player.play(&frame, again);
            let (back, out, given_up) = (VecDeque::new(), Vec::new(), BTreeMap::new());
            let mut behind = Behind { player, back, out, given_up };
            match became {
                Became::Sent(frame) => played.sent.push(frame),
                Became::Held(frame) => slow.take(now, &frame, &mut behind),
                Became::Passed => played.passed += 1,
                Became::Dropped => {}
            }
            slow.poll(now, &mut behind);
            if index + 1 == frames.len() && waiting.is_empty() && behind.back.is_empty() {
                slow.poll(now + Duration::from_secs(60), &mut behind);
                assert_eq!(slow.held(), 0, "held for ever");
            }
            for (reason, count) in behind.given_up {
                *played.given_up.entry(reason).or_default() += count;
            }
            waiting.extend(behind.back.into_iter().map(|frame| (frame, true)));
            for piece in behind.out {
                played.sent.push(player.send(&piece));
            }
        }
    }
    played
}
