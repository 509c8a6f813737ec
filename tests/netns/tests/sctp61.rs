//! SCTP associations between Linux 6.1's own stacks, in the oracle VM, by way of rvsd: masqueraded to
//! another port, by direct routing, through IP-in-IP tunnels, and with the director as their client and server, data both ways.

use rvs_testkit::vm;

/// Ways that packets take through the director, and how many associations each carries.
const ROUNDS: [(&str, usize); 7] = [
    ("super-packets", 6),
    ("local", 6),
    ("marked", 2),
    ("segments", 6),
    ("punted", 4),
    ("told of the MTU", 1),
    ("xdp", 6),
];

#[test]
fn real_associations_carry_data_both_ways() {
    let files = ["rvsd", "ipvsadm", "rvs"];
    let Some(stdout) = vm::run("python3 -u", "sctp61.py", &files, 850) else {
        rvs_testkit::skip!("../shared/oracle is not there");
    };
    assert!(stdout.contains("Linux 6.1"), "{stdout}");
    for (round, associations) in ROUNDS {
        let lines = || stdout.lines().filter(|line| line.starts_with(round));
        assert_eq!(lines().count(), associations, "{stdout}");
        for line in lines() {
            assert!(line.contains(": up ok, down ok, state ESTABLISHED, then "), "{line}");
            assert!(line.ends_with(", checksum errors 0, lost 0"), "{line}");
            assert!(line.contains("then CLOSED,"), "{line}");
        }
    }
}
