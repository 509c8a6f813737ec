//! What the tests share, which are in `tests/`: the classic lab, a routed network, and the oracle's.
#![forbid(unsafe_code)]

pub mod bench;
pub mod routed;

use std::net::SocketAddr;

use rvs_testkit::lab::{Director, Host, Lab, LabError, Topology};

/// The client's addresses.
pub const CLIENT: [&str; 2] = ["192.168.122.70", "fd22::70"];
/// The director's addresses, which are the virtual ones, too.
pub const DIRECTOR: [&str; 2] = ["192.168.122.30", "fd22::30"];
/// The real servers and their addresses.
pub const SERVERS: [(&str, [&str; 2]); 2] =
    [("rs1", ["192.168.122.45", "fd22::45"]), ("rs2", ["192.168.122.46", "fd22::46"])];

/// Settings of a server that has the virtual address as well: it answers no ARP request for it.
pub const QUIET: [(&str, &str); 2] =
    [("net.ipv4.conf.all.arp_ignore", "1"), ("net.ipv4.conf.all.arp_announce", "2")];

/// The classic lab on one segment, with the routes that masquerading needs.
pub fn lab() -> Result<Lab, LabError> {
    let with = |addrs: [&str; 2]| [format!("{}/24", addrs[0]), format!("{}/64", addrs[1])];
    let mut topology = Topology::new();
    let hosts = [("client", CLIENT), ("director", DIRECTOR)];
    for (name, addrs) in hosts.into_iter().chain(SERVERS) {
        let [v4, v6] = with(addrs);
        topology = topology.host(name, &[&v4, &v6]);
    }
    let lab = topology.build()?;
    for (name, _) in SERVERS {
        lab.host(name).ip(&format!("route add {} via {}", CLIENT[0], DIRECTOR[0]))?;
        lab.host(name).ip(&format!("route add {} via {}", CLIENT[1], DIRECTOR[1]))?;
    }
    Ok(lab)
}

/// `192.168.122.30:80`, `[fd22::30]:80`.
pub fn at(addr: &str, port: u16) -> String {
    SocketAddr::new(addr.parse().expect("an address"), port).to_string()
}

/// What `rvs sysctl WORD` says, to standard output, or to standard error where it fails.
pub fn setting(director: &Director, word: &str) -> Result<String, String> {
    let mut command = director.rvs_command().map_err(|error| error.to_string())?;
    let output = command.args(["sysctl", word]).output().expect("rvs starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// Has the host's nftables take these rules.
pub fn nft(host: &Host, rules: &str) -> Result<(), LabError> {
    let path = host.lab_dir().join("rules.nft");
    std::fs::write(&path, rules).expect("the lab's folder");
    host.run(&format!("nft -f {}", path.display())).map(drop)
}

/// A masquerading service of both servers for each family, with further words of `ipvsadm -A`.
pub fn masquerade(
    director: &Director,
    protocol: &str,
    port: u16,
    words: &str,
) -> Result<(), LabError> {
    for (family, vip) in DIRECTOR.iter().enumerate() {
        let vip = at(vip, port);
        director.ipvsadm(&format!("-A {protocol} {vip} -s rr {words}"))?;
        for (_, addrs) in SERVERS {
            director.ipvsadm(&format!("-a {protocol} {vip} -r {} -m", at(addrs[family], port)))?;
        }
    }
    Ok(())
}
