//! Skipped tests, said aloud: cargo's test harness knows no skip at run time, so a test that cannot
//! run prints `SKIPPED: reason` and adds a line to the file that `$RVS_SKIP_LOG` names.
//! `cargo xtask test` sums those lines up, and fails on any when `$CI` is set.

use std::fs::OpenOptions;
use std::io::Write;

/// What a test function may return when it is skipped.
pub trait TestResult {
    /// The value of a test that did not fail.
    fn not_failed() -> Self;
}

impl TestResult for () {
    fn not_failed() -> Self {}
}

impl<E> TestResult for Result<(), E> {
    fn not_failed() -> Self {
        Ok(())
    }
}

/// Records a skip. Tests call it through [`skip!`](crate::skip!) or [`need_lab!`](crate::need_lab!).
pub fn record<R: TestResult>(reason: &str) -> R {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("unnamed test");
    println!("SKIPPED: {reason}");
    if let Some(path) = std::env::var_os("RVS_SKIP_LOG") {
        let line = format!("{test}: {reason}\n");
        let file = OpenOptions::new().create(true).append(true).open(&path);
        // A lost line would turn a skip into a pass: better to fail the test.
        file.and_then(|mut file| file.write_all(line.as_bytes()))
            .expect("RVS_SKIP_LOG is writable");
    }
    R::not_failed()
}

/// Ends the calling test as skipped, with the reason: `skip!("no {name} here")`.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)+) => {
        return $crate::skip::record(&format!($($reason)+))
    };
}

/// Skips the calling test where a [`Lab`](crate::lab::Lab) cannot be made, or one of these programs is missing:
/// `need_lab!("conntrack", "nft")`.
#[macro_export]
macro_rules! need_lab {
    ($($program:literal),*) => {
        if let Some(reason) = $crate::lab::unavailable() {
            $crate::skip!("{reason}");
        }
        $(if $crate::lab::find_program($program).is_none() {
            $crate::skip!("no {} here", $program);
        })*
    };
}
