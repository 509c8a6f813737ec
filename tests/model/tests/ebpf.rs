//! The eBPF programs and the model agree on random cases, by both hooks. `PROPTEST_CASES` says how
//! many.

use std::cell::RefCell;
use std::net::IpAddr;

use proptest::test_runner::{Config, FileFailurePersistence, TestCaseError, TestRunner};
use rvs_core::conn::FREE;
use rvs_core::control::{Change, Datapath};
use rvs_core::reason::Reason;
use rvs_core::time::Tick;
use rvs_core::types::{DestConfig, ServiceConfig, ServiceKey};
use rvs_datapath::env::now;
use rvs_datapath::{Sizes, sweeper};
use rvs_tests_bpf::{Bench, Hook, Verdict, in_namespace};
use rvs_tests_model::Jiffies;
use rvs_tests_model::play::{Case, Played, Sent, Target, cases, play};

/// How often a case is played again that failed. Two ticks of the machine's clock may pass where
/// the model has one moment: then a connection ends a tick later than it should.
const AGAIN: u32 = 5;

/// The programs, and a clock that stands still between steps: connections are made younger as the
/// machine's clock goes on, and older as the case's does.
struct Kernel {
    bench: Bench,
    hook: Hook,
    now: Jiffies,
    /// The machine's moment that is `now`.
    clock: Tick,
}

impl Kernel {
    fn new(hook: Hook) -> Self {
        let sizes = Sizes { connections: 128, services: 64, destinations: 256 };
        Self { bench: Bench::with_sizes(&sizes), hook, now: 0, clock: now() }
    }

    fn hold_clock(&mut self) {
        let passed = now().0.wrapping_sub(self.clock.0);
        if passed != 0 {
            self.bench.age(passed.wrapping_neg());
            self.clock = self.clock.after(passed);
        }
    }

    fn run(&mut self, hook: Hook, frame: &[u8], mark: u32) -> Sent {
        let refused = self.bench.reason(Reason::NoDest);
        let outcome = self.bench.run_marked(hook, frame, mark);
        match outcome.verdict {
            // TC tells the client.
            _ if hook == Hook::Tc && self.bench.reason(Reason::NoDest) != refused => Sent::Refused,
            Verdict::Pass if outcome.frame == frame => Sent::Left,
            Verdict::Drop => Sent::Dropped,
            Verdict::Sent => Sent::On(outcome.frame),
            other => panic!("{other:?}"),
        }
    }
}

impl Target for Kernel {
    const FORGETS: bool = false;

    fn reset(&mut self) {
        let mut keys = Vec::new();
        self.bench.datapath.for_each_service(&mut |key, _, _| keys.push(*key));
        for key in keys {
            self.bench.datapath.remove_service(&key);
        }
        self.bench.datapath.zero_everything();
        // Older than anything lives; templates go after their connections.
        for _ in 0..3 {
            self.bench.age(1 << 20);
            sweeper::pass(self.bench.datapath.maps());
            self.bench.datapath.forget();
        }
        (self.now, self.clock) = (0, now());
    }

    fn datapath(&mut self) -> &mut dyn Datapath {
        self.hold_clock();
        &mut self.bench.datapath
    }

    fn put(
        &mut self,
        key: &ServiceKey,
        config: &ServiceConfig,
        dests: &[DestConfig],
        change: Change,
    ) {
        self.bench.datapath.put_service(key, config, dests, change).expect("there is room");
        for (index, addr) in self.bench.datapath.take_new() {
            let source = if addr.is_ipv4() { "10.0.0.1" } else { "fd01::1" };
            let source: IpAddr = source.parse().expect("an address");
            self.bench.datapath.set_source(index, source);
        }
    }

    fn send(&mut self, frame: &[u8], mark: u32) -> Sent {
        self.hold_clock();
        let sent = self.run(self.hook, frame, mark);
        // What XDP leaves comes to TC.
        if self.hook == Hook::Xdp && sent == Sent::Left {
            return self.run(Hook::Tc, frame, mark);
        }
        sent
    }

    fn go_to(&mut self, now: Jiffies) {
        self.hold_clock();
        self.bench.age((now - self.now) as u32);
        self.now = now;
    }

    fn sweep(&mut self) {
        self.hold_clock();
        sweeper::pass(self.bench.datapath.maps());
    }

    fn tidy(&mut self) {
        self.bench.datapath.tick();
    }

    fn entries(&mut self) -> usize {
        let maps = self.bench.datapath.maps();
        let used4 = maps.conns4.iter().flat_map(|set| &set.ways);
        let used6 = maps.conns6.iter().flat_map(|set| &set.ways);
        used4.filter(|conn| conn.word.get() != FREE).count()
            + used6.filter(|conn| conn.word.get() != FREE).count()
    }
}

fn agree(hook: Hook) {
    let wanted = std::env::var("PROPTEST_CASES").map(|text| text.parse().expect("a number"));
    let persistence = FileFailurePersistence::WithSource("regressions");
    let config = Config {
        cases: wanted.unwrap_or(60),
        failure_persistence: Some(Box::new(persistence)),
        source_file: Some(file!()),
        max_shrink_iters: 300,
        ..Config::default()
    };
    let (kernel, all) = (RefCell::new(Kernel::new(hook)), RefCell::new(Vec::<Played>::new()));
    let again = |case: &Case, why: String| {
        println!("{hook:?}: once more: {why}");
        (0..AGAIN).find_map(|_| play(case, &mut *kernel.borrow_mut()).ok()).ok_or(why)
    };
    let ran = TestRunner::new(config).run(&cases(80), |case| {
        let played = play(&case, &mut *kernel.borrow_mut());
        let played = played.or_else(|why| again(&case, why)).map_err(TestCaseError::fail)?;
        all.borrow_mut().push(played);
        Ok(())
    });
    if let Err(failed) = ran {
        panic!("{failed}");
    }
    let all = all.into_inner();
    let steps: usize = all.iter().map(|played| played.steps).sum();
    let sent_on: u64 = all.iter().map(|played| played.sent_on).sum();
    println!("{hook:?}: {} cases, {steps} steps, {sent_on} packets sent on", all.len());
    assert!(sent_on as usize > steps / 5, "packets get somewhere: {sent_on} of {steps} steps");
}

#[test]
fn xdp_does_what_the_model_says() {
    in_namespace("xdp_does_what_the_model_says", || agree(Hook::Xdp));
}

#[test]
fn tc_does_what_the_model_says() {
    in_namespace("tc_does_what_the_model_says", || agree(Hook::Tc));
}
