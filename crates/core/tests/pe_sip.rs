//! The parser of Call-IDs against what a real kernel's IPVS found in the same datagrams
//! (`tests/oracle/recorded/pe_sip.jsonl`), and so the plain one that random tests compare it with.

mod slow_call_id;

use rvs_core::pe_sip::Parser;
use serde_json::Value;
use slow_call_id::call_id;

const RECORDING: &str = include_str!("../../../tests/oracle/recorded/pe_sip.jsonl");

fn parse(text: &[u8]) -> Option<&[u8]> {
    let mut parser = Parser::new(|number| number);
    for (offset, byte) in (0..).zip(text) {
        if !parser.step(offset, *byte) {
            let (start, len) = parser.found(offset);
            return text.get(start as usize..(start + len) as usize).filter(|id| !id.is_empty());
        }
    }
    None
}

fn bytes(hex: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("a byte");
    (0..hex.len()).step_by(2).map(byte).collect()
}

#[test]
fn call_ids_are_those_that_the_kernel_finds() {
    let scenarios = RECORDING.lines().map(|line| serde_json::from_str(line).expect("JSON"));
    let scenarios: Vec<Value> = scenarios.collect();
    let payloads =
        scenarios.iter().flat_map(|scenario| scenario["steps"].as_array().expect("steps"));
    let (mut found, mut none) = (0, 0);
    for step in payloads.filter(|step| step["payload"].is_string()) {
        let payload = bytes(step["data"].as_str().expect("hexadecimal"));
        let kernel = step["pe"].as_str().map(bytes);
        assert_eq!(parse(&payload), kernel.as_deref(), "{}", step["payload"]);
        assert_eq!(call_id(&payload), kernel.as_deref(), "{}, plainly", step["payload"]);
        *(if kernel.is_some() { &mut found } else { &mut none }) += 1;
    }
    assert_eq!((found, none), (205, 553));
}
