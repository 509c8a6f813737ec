//! SCTP associations between Linux 6.1's own stacks, in the oracle VM, by way of rvsd: masqueraded to
//! another port, by direct routing, through IP-in-IP tunnels, and with the director as their client and server, data both ways.

use rvs_tests_netns::vm;

/// Ways that packets take through the director, and how many methods each carries.
const ROUNDS: [(&str, usize); 6] =
    [("super-packets", 3), ("local", 3), ("marked", 1), ("segments", 3), ("punted", 3), ("xdp", 3)];

#[test]
fn real_associations_carry_data_both_ways() {
    let files = ["rvsd", "ipvsadm", "rvs"];
    let Some(stdout) = vm::run("python3 -u", "sctp61.py", &files, 850) else {
        rvs_testkit::skip!("../shared/oracle is not there");
    };
    assert!(stdout.contains("Linux 6.1"), "{stdout}");
    for (round, methods) in ROUNDS {
        let lines = || stdout.lines().filter(|line| line.starts_with(round));
        assert_eq!(lines().count(), 2 * methods, "{stdout}");
        for line in lines() {
            assert!(line.contains(": up ok, down ok, state ESTABLISHED, then "), "{line}");
            assert!(line.ends_with(", checksum errors 0, lost 0"), "{line}");
            assert!(line.contains("then CLOSED,"), "{line}");
        }
    }
}
