//! A network with the director as the only way between clients and servers; it has the virtual addresses.

use rvs_testkit::lab::{Director, Lab, LabError, Topology};

use crate::at;

/// The virtual addresses.
pub const VIPS: [&str; 2] = ["10.9.1.1", "fd09::1"];
/// The client's addresses.
pub const CLIENT: [&str; 2] = ["10.0.0.2", "fd00::2"];
/// The director's, on the servers' side.
pub const DIRECTOR: [&str; 2] = ["10.1.0.1", "fd01::1"];
/// The real servers', `rs1` and `rs2`.
pub const SERVERS: [[&str; 2]; 2] = [["10.1.0.11", "fd01::11"], ["10.1.0.12", "fd01::12"]];

/// Builds it. The director forwards.
pub fn network() -> Result<Lab, LabError> {
    let lab = Topology::new()
        .attach("client", "c", &["10.0.0.2/24", "fd00::2/64"])
        .attach("director", "c", &["10.0.0.1/24", "fd00::1/64"])
        .attach("director", "s", &["10.1.0.1/24", "fd01::1/64"])
        .attach("rs1", "s", &["10.1.0.11/24", "fd01::11/64"])
        .attach("rs2", "s", &["10.1.0.12/24", "fd01::12/64"])
        .build()?;
    for (host, gateways) in
        [("client", ["10.0.0.1", "fd00::1"]), ("rs1", DIRECTOR), ("rs2", DIRECTOR)]
    {
        for gateway in gateways {
            lab.host(host).ip(&format!("route add default via {gateway}"))?;
        }
    }
    let director = lab.host("director");
    for (vip, length) in VIPS.into_iter().zip(["/32", "/128 nodad"]) {
        director.ip(&format!("addr add {vip}{length} dev lo"))?;
    }
    director.sysctls(&[("net.ipv4.ip_forward", "1"), ("net.ipv6.conf.all.forwarding", "1")])?;
    Ok(lab)
}

/// A masquerading service of these servers for each family, by its virtual port and theirs.
pub fn masquerade(
    director: &Director,
    protocol: &str,
    (virtual_port, port): (u16, u16),
    servers: &[[&str; 2]],
) -> Result<(), LabError> {
    for (family, vip) in VIPS.into_iter().enumerate() {
        let service = format!("{protocol} {}", at(vip, virtual_port));
        director.ipvsadm(&format!("-A {service} -s rr"))?;
        for server in servers {
            let server = at(server[family], port);
            director.ipvsadm(&format!("-a {service} -r {server} -m"))?;
        }
    }
    Ok(())
}
