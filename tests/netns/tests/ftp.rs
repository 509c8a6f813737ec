//! FTP through rvsd with Debian's vsftpd and curl: every way in which data connections are agreed on,
//! up and down, several transfers on a control connection, both hooks.

use std::path::PathBuf;
use std::time::Duration;

use rvs_testkit::lab::{Director, Lab, LabError, wait_until};
use rvs_testkit::need_lab;
use rvs_tests_netns::{DIRECTOR, SERVERS, at, lab, masquerade, nft, routed, setting};

/// How a client agrees on data connections, for curl; and whether IPv6 has it.
const WAYS: [(&str, &str, bool); 4] = [
    // The address in the reply counts: curl would not look at it by itself.
    ("PASV", "--disable-epsv --no-ftp-skip-pasv-ip", false),
    ("EPSV", "", true),
    ("PORT", "-P - --disable-eprt", false),
    ("EPRT", "-P -", true),
];

/// What vsftpd is told, beside its folders. It serves both families.
const CONFIG: &str = "\
listen=NO
listen_ipv6=YES
background=NO
anonymous_enable=YES
ftp_username=nobody
no_anon_password=YES
write_enable=YES
anon_upload_enable=YES
anon_umask=022
anon_other_write_enable=YES
allow_writeable_chroot=YES
connect_from_port_20=YES
seccomp_sandbox=NO
run_as_launching_user=YES
";

/// Who serves, and so what a file `big` is made of. The director does so by addresses that are not the
/// virtual ones.
const NAMES: [&str; 3] = ["rs1", "rs2", "director"];
const OWN: [&str; 2] = ["192.168.122.131", "fd22::131"];

/// A client that downloads `who` in active and in passive mode, by control packets with IPv4 options or
/// IPv6 destination options: `ADDRESS PORT-OR-PASV`.
const WITH_OPTIONS: &str = r#"
import ftplib, socket, sys
addr, mode = sys.argv[1:]
ftp = ftplib.FTP(timeout=20)
ftp.trust_server_pasv_ipv4_address = True
ftp.connect(addr, 21)
if ':' in addr: ftp.sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_DSTOPTS, bytes([0, 0, 1, 4, 0, 0, 0, 0]))
else: ftp.sock.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, b'\1\1\1\1')
ftp.login()
ftp.set_pasv(mode == 'PASV')
for _ in range(2): ftp.retrbinary('RETR who', lambda data: print(data.decode()))
"#;

/// A server's folder.
fn folder(lab: &Lab, server: &str) -> PathBuf {
    lab.dir().join(format!("ftp-{server}"))
}

/// Bytes that are a server's own.
fn bytes(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 251 + seed) as u8).collect()
}

/// Starts vsftpd on a server, with a file `who` that names it and a file `big`.
fn serve(lab: &Lab, server: &str, seed: usize) -> Result<(), LabError> {
    let folder = folder(lab, server);
    let empty = lab.dir().join("empty");
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::create_dir_all(&empty).expect("a folder");
    std::fs::write(folder.join("who"), server).expect("a file");
    std::fs::write(folder.join("big"), bytes(seed, 3_000_000)).expect("a file");
    let config = lab.dir().join(format!("{server}.conf"));
    let folders =
        format!("anon_root={}\nsecure_chroot_dir={}\n", folder.display(), empty.display());
    std::fs::write(&config, format!("{CONFIG}{folders}")).expect("a file");
    let host = lab.host(server);
    let mut command = host.command("vsftpd");
    command.arg(&config);
    let process = host.spawn("vsftpd", command)?;
    wait_until("vsftpd", Duration::from_secs(10), || {
        assert!(process.status().is_none(), "{}", process.log());
        host.enter(|| std::net::TcpStream::connect("[::1]:21").is_ok())
    })
}

/// Downloads and uploads, on one control connection each.
fn transfers(lab: &Lab, vip: &str, way: &str, options: &str) -> Result<(), LabError> {
    let (client, dir) = (lab.host("client"), lab.dir());
    let file = |name: &str| dir.join(format!("got-{name}"));
    let url = format!("ftp://{}", at(vip, 21));
    let curl = format!("curl -sS --max-time 20 {options}");
    for name in ["who", "big", "again"] {
        let _ = std::fs::remove_file(file(name));
    }
    let (who, big, again) = (file("who"), file("big"), file("again"));
    client.run(&format!(
        "{curl} {url}/who -o {} {url}/big -o {} {url}/who -o {}",
        who.display(),
        big.display(),
        again.display()
    ))?;
    let server = std::fs::read_to_string(&who).expect("it was written");
    let seed = NAMES.iter().position(|name| *name == server).expect("a server's name");
    assert!(std::fs::read(&big).expect("a file") == bytes(seed, 3_000_000), "{way} {vip}");
    assert_eq!(std::fs::read_to_string(&again).expect("a file"), server, "{way} {vip}");
    let up = dir.join("up");
    let sent = bytes(way.len() + vip.len(), 700_001);
    std::fs::write(&up, &sent).expect("a file");
    client.run(&format!("{curl} -T {} {url}/one -T {} {url}/two", up.display(), up.display()))?;
    for name in ["one", "two"] {
        let paths = NAMES.map(|server| folder(lab, server).join(name));
        let got: Vec<_> = paths.iter().filter_map(|path| std::fs::read(path).ok()).collect();
        assert!(got == [sent.clone()], "{way} {vip}: {name}, {} times", got.len());
        paths.iter().for_each(|path| drop(std::fs::remove_file(path)));
    }
    Ok(())
}

/// Downloads and uploads by each way, at both virtual addresses.
fn by_each(ways: &[(&str, &str, bool)], lab: &Lab, vips: [&str; 2]) -> Result<(), LabError> {
    for (way, options, in_ipv6) in ways {
        for vip in vips {
            if *in_ipv6 || !vip.contains(':') {
                transfers(lab, vip, way, options)?;
            }
        }
    }
    Ok(())
}

fn every_way(mode: &str) -> Result<(), LabError> {
    let lab = lab()?;
    for (seed, (name, addrs)) in SERVERS.into_iter().enumerate() {
        serve(&lab, name, seed)?;
        // The director is the only way to it.
        for addr in addrs {
            lab.host("client").ip(&format!("route add unreachable {addr}"))?;
        }
    }
    if mode == "xdp" {
        lab.prepare_for_xdp()?;
    }
    let director = Director::start(&lab.host("director"), &["--mode", mode])?;
    masquerade(&director, "-t", 21, "")?;
    by_each(&WAYS, &lab, DIRECTOR)?;
    assert!(has_counted(&director, "slow.app")?);
    assert!(mode != "xdp" || has_counted(&director, "punt.app")?);
    let apps = director.rvs_command()?.args(["proc", "ip_vs_app"]).output().expect("rvs starts");
    assert!(String::from_utf8_lossy(&apps.stdout).contains("TCP  21 "));
    // Nothing is kept in rvsd.
    director.process().kill();
    director.restart()?;
    for vip in DIRECTOR {
        transfers(&lab, vip, "EPSV, later", "")?;
    }
    Ok(())
}

/// Whether `rvs status --reasons` has counted something.
fn has_counted(director: &Director, name: &str) -> Result<bool, LabError> {
    let mut status = director.rvs_command()?;
    let status = status.args(["status", "--reasons", "--pin"]).arg(director.pin());
    let status = status.arg("--socket").arg(director.socket()).output().expect("rvs starts");
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    let line = status.lines().find(|line| line.starts_with(name)).expect("a counter");
    Ok(!line.ends_with(" 0"))
}

#[test]
fn the_director_itself_is_an_ftp_server() -> Result<(), LabError> {
    need_lab!("vsftpd", "conntrack");
    let lab = lab()?;
    let host = lab.host("director");
    for (own, length) in OWN.into_iter().zip(["/24", "/64 nodad"]) {
        host.ip(&format!("addr add {own}{length} dev eth0"))?;
        lab.host("client").ip(&format!("route add unreachable {own}"))?;
    }
    serve(&lab, "director", 2)?;
    let director = Director::start(&host, &[])?;
    for (vip, own) in DIRECTOR.into_iter().zip(OWN) {
        director.ipvsadm(&format!("-A -t {} -s rr", at(vip, 21)))?;
        director.ipvsadm(&format!("-a -t {} -r {} -m", at(vip, 21), at(own, 21)))?;
    }
    host.sysctls(&[("net.ipv4.ip_forward", "1"), ("net.ipv6.conf.all.forwarding", "1")])?;
    for tracked in [false, true] {
        if tracked {
            setting(&director, "conntrack=1").expect("it can be set");
        }
        by_each(&WAYS, &lab, DIRECTOR)?;
    }
    let known = host.run(&format!("conntrack -L -p tcp -f ipv4 -d {}", DIRECTOR[0]))?;
    assert!(known.contains(&format!("src={}", OWN[0])), "{known}");
    assert!(has_counted(&director, "slow.app")?);
    Ok(())
}

#[test]
fn control_packets_may_have_options_and_extension_headers() -> Result<(), LabError> {
    need_lab!("vsftpd");
    let lab = lab()?;
    serve(&lab, "rs1", 0)?;
    for addr in SERVERS[0].1 {
        lab.host("client").ip(&format!("route add unreachable {addr}"))?;
    }
    let director = Director::start(&lab.host("director"), &[])?;
    let script = lab.dir().join("with_options.py");
    std::fs::write(&script, WITH_OPTIONS).expect("a file");
    for (vip, server) in DIRECTOR.into_iter().zip(SERVERS[0].1) {
        director.ipvsadm(&format!("-A -t {} -s rr", at(vip, 21)))?;
        director.ipvsadm(&format!("-a -t {} -r {} -m", at(vip, 21), at(server, 21)))?;
        for mode in ["PORT", "PASV"] {
            let line = format!("python3 {} {vip} {mode}", script.display());
            assert_eq!(lab.host("client").run(&line)?, "rs1\nrs1\n", "{vip} {mode}");
        }
    }
    Ok(())
}

/// Clients on the director, first of virtual addresses of its own, then of others; RVS translates their packets.
fn own_clients(lab: &Lab) -> Result<(), LabError> {
    let host = lab.host("director");
    for own in [true, false] {
        for ((vip, length), gateway) in
            routed::VIPS.into_iter().zip(["/32", "/128 nodad"]).zip(routed::CLIENT)
        {
            if !own {
                host.ip(&format!("addr del {vip}{length} dev lo"))?;
                host.ip(&format!("route add {vip} via {gateway}"))?;
            }
            for mode in ["", "-P -"] {
                let url = format!("ftp://{}/who", at(vip, 21));
                let who = host.run(&format!("curl -sS --max-time 20 {mode} {url}"))?;
                assert!(["rs1", "rs2"].contains(&&*who), "{who} {vip} {mode}");
            }
            if !own {
                host.ip(&format!("route del {vip} via {gateway}"))?;
                host.ip(&format!("addr add {vip}{length} dev lo"))?;
            }
        }
    }
    Ok(())
}

/// With `conntrack`: netfilter translates control connections and data connections of passive mode, so that all of
/// them can be masqueraded; those of active mode, which servers open, it does not see.
fn tracked(mode: &str) -> Result<(), LabError> {
    let lab = routed::network()?;
    for (seed, name) in ["rs1", "rs2"].into_iter().enumerate() {
        serve(&lab, name, seed)?;
        // Nobody gets there but by a virtual address.
        for addr in routed::SERVERS[seed] {
            lab.host("client").ip(&format!("route add unreachable {addr}"))?;
        }
    }
    if mode == "xdp" {
        lab.prepare_for_xdp()?;
    }
    let host = lab.host("director");
    let director = Director::start(&host, &["--mode", mode])?;
    routed::masquerade(&director, "-t", (21, 21), &routed::SERVERS)?;
    // What netfilter has of connections whose answers go to one of these: the ports that clients connect to.
    let known = |to: [&str; 2]| -> Result<Vec<u16>, LabError> {
        let mut ports = Vec::new();
        for (family, to) in ["ipv4", "ipv6"].into_iter().zip(to) {
            let text = host.run(&format!("conntrack -L -p tcp -f {family} -q {to}"))?;
            let after = text.lines().filter_map(|line| line.split_once("dport="));
            let port = |(_, rest): (&str, &str)| rest.split(' ').next()?.parse::<u16>().ok();
            ports.extend(after.filter_map(port));
        }
        Ok(ports)
    };
    own_clients(&lab)?;
    setting(&director, "conntrack=1").expect("it can be set");
    by_each(&WAYS, &lab, routed::VIPS)?;
    own_clients(&lab)?;
    let ports = known(routed::CLIENT)?;
    let (control, data): (Vec<u16>, Vec<u16>) = ports.iter().partition(|port| **port == 21);
    assert!(control.len() >= 12 && data.len() >= 15, "{ports:?}");
    assert!(data.iter().all(|port| *port > 1023), "{ports:?}");
    let rules = "table inet m {
        chain p { type nat hook postrouting priority srcnat;
            iifname eth0 masquerade
        }
    }";
    nft(&host, rules)?;
    by_each(&WAYS[..2], &lab, routed::VIPS)?;
    let ports = known(routed::DIRECTOR)?;
    assert!(ports.iter().filter(|port| **port == 21).count() >= 6, "{ports:?}");
    assert!(ports.iter().filter(|port| **port > 1023).count() >= 15, "{ports:?}");
    assert!(has_counted(&director, "slow.app")?);
    assert!(mode != "xdp" || has_counted(&director, "punt.tracked")?);
    Ok(())
}

#[test]
fn netfilter_translates_control_and_passive_data_connections_by_tc() -> Result<(), LabError> {
    need_lab!("vsftpd", "conntrack", "nft");
    tracked("tc")
}

#[test]
fn netfilter_translates_control_and_passive_data_connections_by_xdp() -> Result<(), LabError> {
    need_lab!("vsftpd", "conntrack", "nft");
    tracked("xdp")
}

#[test]
fn files_come_and_go_whole_by_every_kind_of_data_connection_through_tc() -> Result<(), LabError> {
    need_lab!("vsftpd");
    every_way("tc")
}

#[test]
fn files_come_and_go_whole_by_every_kind_of_data_connection_through_xdp() -> Result<(), LabError> {
    need_lab!("vsftpd");
    every_way("xdp")
}
