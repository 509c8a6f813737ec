//! The other end of a tunnel as Linux 6.1 has it, in the oracle VM: ipip, sit, ip6_tunnel, fou's
//! GUE, ip_gre and ip6_gre decapsulate what rvsd encapsulates, and find every checksum right.

use rvs_testkit::vm;

/// Ways that packets take through the director and out of it.
const ROUNDS: [&str; 3] = ["super-packets", "segments", "xdp"];
/// Types and checksum options, by four pairs of inner and outer family.
const TUNNELS: usize = 6 * 4;

#[test]
fn the_kernel_s_receivers_take_every_tunnel() {
    let Some(stdout) = vm::run("python3 -u", "tunnels61.py", &["rvsd", "ipvsadm"], 850) else {
        rvs_testkit::skip!("../shared/oracle is not there");
    };
    assert!(stdout.contains("Linux 6.1"), "{stdout}");
    for round in ROUNDS {
        let lines = || stdout.lines().filter(|line| line.starts_with(round));
        assert_eq!(lines().count(), TUNNELS, "{stdout}");
        for line in lines() {
            let answers = ": tcp ok, udp ok, udp without checksum ok, decapsulated by ";
            assert!(line.contains(answers), "{line}");
            assert!(line.contains(", UDP and TCP checksum errors 0,"), "{line}");
            // ARCHITECTURE.md, "Ideal and reality": the last segment of a super-packet.
            let short_segments = round == "segments" && line.contains("--tun-type gre --tun-csum");
            let of_ipv4 = line.contains(" 4in");
            let refused = !line.ends_with(", GRE 0");
            assert!(!refused || short_segments && of_ipv4, "{line}");
        }
    }
}
