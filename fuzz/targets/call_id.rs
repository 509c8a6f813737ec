//! Payloads of datagrams to a service with `--pe sip`: the parser finds the Call-ID that a plain one
//! finds, and it lies in the payload.
#![no_main]

#[path = "../../crates/core/tests/slow_call_id/mod.rs"]
mod slow_call_id;

use libfuzzer_sys::fuzz_target;
use rvs_core::pe_sip::{MAX_LEN, Parser};

fuzz_target!(|bytes: &[u8]| {
    let mut parser = Parser::new(|number| number);
    let mut found = (0, 0);
    for (offset, byte) in (0..).zip(bytes) {
        let more = parser.step(offset, *byte);
        found = parser.found(offset);
        assert!(!more || found.1 == 0);
        if !more {
            break;
        }
    }
    let (start, len) = found;
    assert!(len <= MAX_LEN);
    let call_id = bytes.get(start as usize..(start + len) as usize).expect("inside");
    assert_eq!((len != 0).then_some(call_id), slow_call_id::call_id(bytes));
});
