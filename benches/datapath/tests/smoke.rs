//! The benchmark itself: it measures what it says, in the smallest run.

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
