//! Reads the closing lines of cargo's and nextest's test runs.

use std::fmt;
use std::ops::AddAssign;

/// Who runs the tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runner {
    /// `cargo test`.
    Cargo,
    /// `cargo nextest run`.
    Nextest,
}

/// How many tests ended in which way.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// They passed.
    pub passed: usize,
    /// They failed, ran out of time or could not be started.
    pub failed: usize,
    /// They were ignored or skipped themselves.
    pub skipped: usize,
}

impl Counts {
    /// The counts in a line like one of these, nothing for any other:
    /// - nextest: `Summary [   5.790s] 9 tests run: 8 passed (1 slow), 1 failed, 0 skipped`
    /// - cargo: `test result: FAILED. 3 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; ...`
    ///
    /// nextest shows cargo's lines too, of tests that fail. `cargo xtask test` filters nothing out:
    /// a line that says so is of a test that runs itself again in another process.
    pub fn parse(line: &str, runner: Runner) -> Option<Self> {
        let line = line.trim();
        let list = match runner {
            Runner::Cargo => line.strip_prefix("test result: ")?.split_once(". ")?.1,
            Runner::Nextest => line.strip_prefix("Summary [")?.split_once(": ")?.1,
        };
        let mut counts = Self::default();
        for item in list.split([',', ';', '(', ')']) {
            let mut words = item.split_whitespace();
            let Some(Ok(number)) = words.next().map(str::parse::<usize>) else { continue };
            match words.collect::<Vec<_>>()[..] {
                ["passed"] => counts.passed += number,
                ["failed" | "timed", ..] | ["exec", "failed"] => counts.failed += number,
                ["ignored" | "skipped"] => counts.skipped += number,
                ["filtered", "out"] if number > 0 => return None,
                // Those are among the passed: slow, flaky, leaky.
                _ => {}
            }
        }
        Some(counts)
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, failed, skipped } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

#[cfg(test)]
mod tests {
    use super::{Counts, Runner};

    #[test]
    fn both_runners_are_understood() {
        let cases = [
            (
                Runner::Cargo,
                "test result: FAILED. 3 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; \
                 finished in 0.53s",
                (3, 1, 2),
            ),
            (
                Runner::Nextest,
                "     Summary [   5.790s] 9 tests run: 8 passed, 1 failed, 0 skipped\n",
                (8, 1, 0),
            ),
            (
                Runner::Nextest,
                "Summary [ 65.1s] 12/20 tests run: 9 passed (2 slow, 1 flaky), 1 failed, \
                 1 timed out, 1 exec failed, 3 skipped",
                (9, 3, 3),
            ),
            (Runner::Nextest, "     Summary [   0.1s] 1 test run: 1 passed, 2 skipped", (1, 0, 2)),
        ];
        for (runner, line, (passed, failed, skipped)) in cases {
            assert_eq!(
                Counts::parse(line, runner),
                Some(Counts { passed, failed, skipped }),
                "{line}"
            );
        }
        assert_eq!(Counts::parse("test parse ... ok", Runner::Cargo), None);
        assert_eq!(Counts::parse(cases[0].1, Runner::Nextest), None);
        let nested = "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 6 filtered out";
        assert_eq!(Counts::parse(nested, Runner::Cargo), None);
    }
}
