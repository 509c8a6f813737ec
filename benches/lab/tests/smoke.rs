//! The lab itself: every kind of director carries packets, in the smallest run.

use std::collections::BTreeMap;
use std::process::Command;

/// Runs a part in its short form; what it recorded.
fn quick(part: &str) -> BTreeMap<String, f64> {
    let record = std::env::temp_dir().join(format!("rvs-lab-{part}-{}", std::process::id()));
    let output = Command::new("unshare")
        .args(["--net", env!("CARGO_BIN_EXE_rvs-bench-lab"), part, "--quick", "--record"])
        .arg(&record)
        .output()
        .expect("unshare(1) of util-linux");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{part}: {errors}");
    let text = std::fs::read(&record).expect("it was told to record");
    std::fs::remove_file(&record).expect("it is there");
    serde_json::from_slice(&text).expect("JSON")
}

#[test]
fn every_director_forwards_with_few_flows_and_with_many() {
    let measured = quick("packets");
    for row in ["bare", "forward", "nft", "XDP NAT", "XDP DR", "TC NAT", "TC DR"] {
        for flows in [1024, 65_536] {
            let rate = measured.get(&format!("lab/{row}/{flows}")).copied();
            assert!(rate.is_some_and(|rate| rate > 1000.0), "{row}, {flows} in {measured:?}");
        }
    }
}

#[test]
fn services_are_loaded_changed_and_listed() {
    let measured = quick("control");
    for what in ["load", "change", "change alone", "list"] {
        assert!(measured[&format!("control/{what}")] > 0.0, "{what} in {measured:?}");
    }
}

#[test]
fn streams_and_requests_get_through_both_directors() {
    let measured = quick("stream");
    for kind in ["nft", "RVS"] {
        let of = |what: &str| measured[&format!("stream/{kind}/{what}")];
        assert!(of("throughput") > 1e6 && of("p99") >= of("p50"), "{kind} in {measured:?}");
    }
}
