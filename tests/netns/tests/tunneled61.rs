//! What tunnels' ends on the director decapsulate, in the oracle VM: rvsd balances it as the kernel's
//! IPVS does, and with `ignore_tunneled` leaves it to the host.
//!
//! That setting is compared with what the kernel's documentation says of it: this VM's kernel balances what
//! was decapsulated with either value.

use rvs_testkit::vm;

/// Ways to the director: none of them a tunnel, without UDP, with it.
const PLAIN: [&str; 1] = ["none"];
const TUNNELED: [&str; 6] = ["ipip", "gre", "gretap", "ip6tnl", "ip6gre", "ip6gretap"];
const BY_UDP: [&str; 1] = ["gretap by UDP"];

#[test]
fn decapsulated_packets_are_balanced_unless_they_are_to_be_ignored() {
    let programs = ["rvsd", "ipvsadm", "rvs"];
    let Some(stdout) = vm::run("python3 -u", "tunneled61.py", &programs, 500) else {
        rvs_testkit::skip!("../shared/oracle is not there");
    };
    assert!(stdout.contains("Linux 6.1"), "{stdout}");
    let lines = |who: &str, setting: u8, device: &str| -> Vec<String> {
        let start = format!("{who}, {setting}: {device}: ");
        stdout.lines().filter_map(|line| Some(line.strip_prefix(&start)?.to_owned())).collect()
    };
    let balanced = "server, server, director";
    for device in PLAIN.into_iter().chain(TUNNELED).chain(BY_UDP) {
        // The setting goes from 0 to 1 and back.
        assert_eq!(lines("kernel", 0, device), [balanced; 2], "{device}: {stdout}");
        assert_eq!(lines("kernel", 1, device), [balanced], "{device}: {stdout}");
        assert_eq!(lines("rvsd", 0, device), [balanced; 2], "{device}: {stdout}");
        let ignored = TUNNELED.contains(&device);
        let expected = if ignored { "the host, the host, director" } else { balanced };
        assert_eq!(lines("rvsd", 1, device), [expected], "{device}: {stdout}");
    }
}
