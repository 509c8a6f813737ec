//! VLANs, QinQ, bridges, bonds and several NICs, in the oracle VM: the kernel of these tests may have
//! neither VLAN devices nor bonds. A service's address on one VLAN, its servers on another.

use rvs_tests_netns::vm;

/// Scenes, and the hooks that each is played with.
const SCENES: [(&str, &[&str]); 6] = [
    ("vlan", &["tc", "xdp"]),
    ("qinq", &["tc", "xdp"]),
    ("from a vlan to a nic", &["tc", "xdp"]),
    ("two nics", &["tc"]),
    ("bridge", &["tc"]),
    ("bond", &["tc"]),
];

#[test]
fn services_on_vlans_bridges_and_bonds_answer() {
    let Some(stdout) = vm::run("python3 -u", "vlan61.py", &["rvsd", "ipvsadm", "rvs"], 500) else {
        rvs_testkit::skip!("../shared/oracle is not there");
    };
    assert!(stdout.contains("Linux 6.1"), "{stdout}");
    for (scene, modes) in SCENES {
        for mode in modes {
            for method in ["NAT", "DR", "TUN"] {
                for family in ["IPv4", "IPv6"] {
                    let whole = format!("{scene}, {mode}, {method}, {family}: whole");
                    assert!(stdout.lines().any(|line| line == whole), "{whole}\n{stdout}");
                }
            }
        }
    }
    // veth devices show XDP no tags: ARCHITECTURE.md, "Ideal and reality".
    let line = "vlan, tc, of no VLAN of the director: 0 connections";
    assert!(stdout.contains(line), "{line}\n{stdout}");
}
