//! The native data path and the model agree on random cases. `PROPTEST_CASES` says how many; what
//! fails is made as short as it can be, and written beside this file to be tried first from then
//! on.

use std::cell::RefCell;

use proptest::test_runner::{Config, FileFailurePersistence, TestCaseError, TestRunner};
use rvs_core::conn::FREE;
use rvs_core::control::{Change, Datapath};
use rvs_core::reason::Reason;
use rvs_core::types::{DestConfig, ServiceConfig, ServiceKey};
use rvs_sim::{Frame, Outcome, Plain, SimDatapath, Sizes};
use rvs_tables::Memory;
use rvs_tests_model::Jiffies;
use rvs_tests_model::play::{Played, Sent, Target, cases, play};

struct Native {
    sim: SimDatapath,
    now: Jiffies,
}

impl Native {
    fn new() -> Self {
        let sizes = Sizes { sets: 32, services: 8, destinations: 32 };
        Self { sim: SimDatapath::adopt(Plain::new(&sizes, 0x5eed)), now: 0 }
    }
}

impl Target for Native {
    const FORGETS: bool = true;

    fn reset(&mut self) {
        *self = Self::new();
    }

    fn datapath(&mut self) -> &mut dyn Datapath {
        &mut self.sim
    }

    fn put(
        &mut self,
        key: &ServiceKey,
        config: &ServiceConfig,
        dests: &[DestConfig],
        change: Change,
    ) {
        self.sim.put_service(key, config, dests, change).expect("there is room");
    }

    fn send(&mut self, frame: &[u8], mark: u32) -> Sent {
        let mut frame = Frame::new(frame).with_mark(mark);
        match self.sim.maps().run(&mut frame) {
            Outcome::Sent => Sent::On(frame.bytes().to_vec()),
            Outcome::Drop(Reason::NoDest) => Sent::Refused,
            Outcome::Drop(_) => Sent::Dropped,
            Outcome::Pass(_) => Sent::Left,
            Outcome::Held => panic!("no fragment was sent"),
        }
    }

    fn go_to(&mut self, now: Jiffies) {
        self.sim.maps().advance((now - self.now) as u32);
        self.now = now;
    }

    fn sweep(&mut self) {
        self.sim.maps().sweep();
    }

    fn tidy(&mut self) {
        self.sim.tick();
    }

    fn entries(&mut self) -> usize {
        let maps = self.sim.maps();
        let used4 = maps.conns4().iter().flat_map(|set| &set.ways);
        let used6 = maps.conns6().iter().flat_map(|set| &set.ways);
        used4.filter(|conn| conn.word.get() != FREE).count()
            + used6.filter(|conn| conn.word.get() != FREE).count()
    }
}

#[test]
fn the_native_data_path_does_what_the_model_says() {
    let wanted = std::env::var("PROPTEST_CASES").map(|text| text.parse().expect("a number"));
    let persistence = FileFailurePersistence::WithSource("regressions");
    let config = Config {
        cases: wanted.unwrap_or(1500),
        failure_persistence: Some(Box::new(persistence)),
        source_file: Some(file!()),
        max_shrink_iters: 20_000,
        ..Config::default()
    };
    let (native, all) = (RefCell::new(Native::new()), RefCell::new(Vec::<Played>::new()));
    let ran = TestRunner::new(config).run(&cases(80), |case| {
        let played = play(&case, &mut *native.borrow_mut()).map_err(TestCaseError::fail)?;
        all.borrow_mut().push(played);
        Ok(())
    });
    if let Err(failed) = ran {
        panic!("{failed}");
    }
    let all = all.into_inner();
    let steps: usize = all.iter().map(|played| played.steps).sum();
    let sent_on: u64 = all.iter().map(|played| played.sent_on).sum();
    let ties = all.iter().filter(|played| played.tie).count();
    println!("{} cases, {steps} steps, {sent_on} packets sent on, {ties} ties", all.len());
    assert!(sent_on as usize > steps / 4, "packets get somewhere: {sent_on} of {steps} steps");
    assert!(ties * 20 < all.len(), "ties are rare: {ties}");
}
