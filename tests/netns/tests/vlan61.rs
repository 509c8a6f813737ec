//! VLANs, QinQ, bridges, bonds and several NICs, in the oracle VM: the kernel of these tests may have
//! neither VLAN devices nor bonds. A service's address on one VLAN, its servers on another.

use rvs_testkit::vm;

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
    let files =
        ["vlan61.py", "vm.py", "fragments.py"].map(|file| format!("tests/netns/tests/{file}"));
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let binaries = ["rvsd", "ipvsadm", "rvs"];
    let Some(stdout) = vm::run_files("python3 -u vlan61.py", &files, &binaries, 850) else {
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
    // A datagram in six fragments, the last of which comes first.
    for (scene, modes) in SCENES {
        for line in modes.iter().flat_map(|mode| {
            ["IPv4", "IPv6"].map(|family| format!("{scene}, {mode}, fragments, {family}: echoed 6"))
        }) {
            assert!(stdout.lines().any(|printed| printed == line), "{line}\n{stdout}");
        }
    }
    // veth devices show XDP no tags: ARCHITECTURE.md, "Ideal and reality".
    let line = "vlan, tc, of no VLAN of the director: 0 connections";
    assert!(stdout.contains(line), "{line}\n{stdout}");
}
