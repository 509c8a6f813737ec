//! The kernel's IPVS and RVS tell each other of their connections, on Linux 6.1 in the oracle VM: both
//! list the same, count the same, and connections go on through the other director.

use rvs_testkit::vm;

/// Who tells whom, and how.
const ROUNDS: [&str; 6] = [
    "kernel to rvs, version 1",
    "rvs to kernel, version 1",
    "kernel to rvs, version 0",
    "rvs to kernel, version 0",
    "kernel to rvs, ff02::81",
    "rvs to kernel, ff02::81",
];

#[test]
fn the_kernel_s_ipvs_and_rvs_take_over_each_other_s_connections() {
    let binaries = ["rvsd", "ipvsadm", "rvs"];
    let Some(stdout) = vm::run("python3 -u", "sync61.py", &binaries, 850) else {
        rvs_testkit::skip!("../shared/oracle is not there");
    };
    assert!(stdout.contains("Linux 6.1"), "{stdout}");
    for round in ROUNDS {
        let line = stdout.lines().find(|line| line.starts_with(round));
        let line = line.unwrap_or_else(|| panic!("no {round}: {stdout}"));
        // Version 0 has no IPv6.
        let rows = if round.contains("version 0") { 8 } else { 10 };
        let expected = format!("{round}: {rows} rows the same, counts the same, all go on");
        assert_eq!(line, expected, "{stdout}");
    }
}
