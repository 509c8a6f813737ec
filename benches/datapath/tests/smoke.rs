//! The benchmark itself: it measures what it says, in the smallest run.

use std::collections::BTreeMap;
use std::process::Command;

#[test]
fn the_smallest_run_measures_every_row_through_both_hooks() {
    let output = Command::new("unshare")
        .args([
            "--net",
            env!("CARGO_BIN_EXE_rvs-bench"),
            "datapath",
            "--rounds",
            "1",
            "--live",
            "1",
        ])
        .output()
        .expect("unshare(1) of util-linux");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let rows = [
        "established, DR",
        "established, NAT in",
        "established, NAT out",
        "established, TUN",
        "new, DR, wlc of 16",
        "new, NAT, wlc of 16",
        "not ours",
    ];
    for row in rows {
        let found: Vec<&str> =
            text.lines().filter(|line| line.starts_with(&format!("| {row} | "))).collect();
        assert_eq!(found.len(), 4, "{row}: two families by two hooks in\n{text}");
        // Nothing that forwards is cheaper than the bare program that it is wrapped like.
        for line in found {
            let ratio = line.split(" · ").nth(1).and_then(|ratio| ratio.parse::<f64>().ok());
            assert!(ratio.is_some_and(|ratio| ratio > 1.0), "{line}");
        }
    }
}

/// Runs a part in its short form; what it recorded.
fn quick(part: &str) -> BTreeMap<String, f64> {
    let record = std::env::temp_dir().join(format!("rvs-bench-{part}-{}", std::process::id()));
    let output = Command::new("unshare")
        .args(["--net", env!("CARGO_BIN_EXE_rvs-bench"), part, "--quick", "--record"])
        .arg(&record)
        .output()
        .expect("unshare(1) of util-linux");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{part}: {errors}");
    let text = std::fs::read(&record).expect("it was told to record");
    std::fs::remove_file(&record).expect("it is there");
    let measured: BTreeMap<String, f64> = serde_json::from_slice(&text).expect("JSON");
    assert!(measured.values().all(|value| value.is_finite() && *value >= 0.0), "{measured:?}");
    measured
}

#[test]
fn established_connections_survive_a_flood_and_new_ones_get_in() {
    let measured = quick("flood");
    assert_eq!(measured["flood/survived"], 1.0, "{measured:?}");
    assert!(measured["flood/full"] > 0.0 && measured["flood/let in"] > 0.3, "{measured:?}");
}

#[test]
fn curves_have_a_point_for_each_number() {
    let measured = quick("curves");
    for point in
        ["flows/established, DR/4096", "services/not ours/100", "destinations/new, DR, wlc/1000"]
    {
        assert!(measured.contains_key(&format!("curves/{point}")), "{point} in {measured:?}");
    }
    // A choice among a thousand takes longer than one of one.
    let wlc = |number| measured[&format!("curves/destinations/new, DR, wlc/{number}")];
    assert!(wlc(1000) > wlc(1), "{measured:?}");
}

#[test]
fn a_masqueraded_connection_takes_two_entries_of_64_bytes_of_the_three_made_for_it() {
    let measured = quick("memory");
    assert!((127.9..=128.0).contains(&measured["memory/connection, in use"]), "{measured:?}");
    assert!((192.0..196.0).contains(&measured["memory/connection"]), "{measured:?}");
}

#[test]
fn a_sweep_and_two_cores_are_measured() {
    let (sweep, cores) = (quick("sweep"), quick("cores"));
    assert!(sweep["sweep/CPU"] > 0.0 && sweep["sweep/p99.99"] > 0.0, "{sweep:?}");
    assert!(cores["cores/two"] > 0.0 && cores["cores/one"] > 0.0, "{cores:?}");
}
