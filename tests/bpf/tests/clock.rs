//! The programs' clock is the host's, by jiffies.

use std::time::Duration;

use rvs_core::conn::Word;
use rvs_core::time::Tick;
use rvs_core::types::{ForwardMethod, Protocol, Scheduler};
use rvs_tests_bpf::frame::{Flags, build};
use rvs_tests_bpf::{Bench, Hook, Verdict, dest, in_namespace, service};

/// Far more than two jiffies, far less than a tick.
const LAG: Duration = Duration::from_millis(25);

fn now() -> Tick {
    rvs_datapath::env::now()
}

/// When the one live entry expires, and the configured timeout of UDP before that.
fn written(bench: &Bench) -> u32 {
    let maps = bench.datapath.maps();
    let entries = maps.conns4.iter().flat_map(|set| &set.ways);
    let mut live = entries.filter(|conn| Word(conn.word.get()).is_live());
    let conn = live.next().expect("the connection");
    assert!(live.next().is_none(), "by direct routing there is one entry");
    conn.expires.get().wrapping_sub(maps.config().udp_timeout.get())
}

#[test]
fn programs_tell_the_host_s_time_by_jiffies() {
    in_namespace("programs_tell_the_host_s_time_by_jiffies", || {
        for hook in [Hook::Xdp, Hook::Tc] {
            let mut bench = Bench::new();
            let clock = &bench.datapath.maps().config().clock;
            assert!((1_000_000..=10_000_000).contains(&clock.step.get()), "{clock:?}");
            let dests = [dest("10.0.0.11", 53, ForwardMethod::DirectRoute, 1)];
            bench.service(service(Protocol::Udp, "10.9.0.1", 53), Scheduler::Rr, &dests);
            let (src, dst) = ("10.0.0.2:4000", "10.9.0.1:53");
            let (src, dst) = (src.parse().expect("a literal"), dst.parse().expect("a literal"));
            let frame = build(Protocol::Udp, src, dst, Flags::default(), b"?");
            let mut compared = 0;
            for _ in 0..400 {
                let before = now();
                std::thread::sleep(LAG);
                assert_eq!(bench.run(hook, &frame).verdict, Verdict::Sent, "{hook:?}");
                let said = written(&bench);
                std::thread::sleep(LAG);
                // Near the border of two ticks both are right.
                if now() == before {
                    assert_eq!(said, before.0, "{hook:?}");
                    compared += 1;
                }
                if compared == 10 {
                    break;
                }
            }
            assert_eq!(compared, 10, "{hook:?}: a machine that is too slow");
        }
    });
}
