//! The floor: on Linux 6.1, in the oracle VM, the programs load, attach (there by clsact) and
//! forward, with the privileges that a running rvsd keeps.

use rvs_testkit::vm;

#[test]
fn the_data_path_forwards_on_linux_6_1() {
    // A client, two servers, rvsd in between.
    let Some(stdout) = vm::run("bash", "linux61.sh", &["rvsd", "ipvsadm", "rvs"], 500) else {
        rvs_testkit::skip!("../shared/oracle is not there");
    };
    assert!(stdout.contains("answers: rs1 rs2 rs1 rs2"), "{stdout}");
    assert!(stdout.contains("Linux 6.1"), "{stdout}");
    assert!(stdout.contains("privileges: 0000000000001000 1"), "{stdout}");
    let late = stdout.lines().find(|line| line.starts_with("late("));
    assert!(late.is_some_and(|line| line.contains("rvs_tc")), "{stdout}");
    // The interfaces are those to the client and the servers, and the late one.
    let local = [
        "of many: lc: rs1 wlc: rs1 sed: rs1 nq: rs1",
        "client to director: director",
        "director to itself: director",
        "director to servers: rs1 rs2",
        "director to another's address: rs1",
        "egress programs: 4",
        "without rvsd: director",
        "marked by nftables: rs1",
        "marked by a rule: rs1",
        "tracked: rs1 sees 10.0.2.1",
        "both ways: 1",
        "own, tracked: rs1 sees 10.0.2.1",
        "directly: hello from 10.0.1.2",
        "tracked directly: 1 1",
        "egress programs that see replies: 5",
        "tables left: 0",
        "left: 0 0 0",
    ];
    for line in local {
        assert!(stdout.lines().any(|got| got == line), "{line}: {stdout}");
    }
}
