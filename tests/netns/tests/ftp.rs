//! FTP through rvsd with Debian's vsftpd and curl: every way in which data connections are agreed on,
//! up and down, several transfers on a control connection, both hooks.

use std::path::PathBuf;
use std::time::Duration;

use rvs_testkit::lab::{Director, Lab, LabError, find_program, wait_until};
use rvs_testkit::{need_lab, skip};
use rvs_tests_netns::{DIRECTOR, SERVERS, at, lab, masquerade};

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
    let seed = SERVERS.iter().position(|(name, _)| *name == server).expect("a server's name");
    assert!(std::fs::read(&big).expect("a file") == bytes(seed, 3_000_000), "{way} {vip}");
    assert_eq!(std::fs::read_to_string(&again).expect("a file"), server, "{way} {vip}");
    let up = dir.join("up");
    let sent = bytes(way.len() + vip.len(), 700_001);
    std::fs::write(&up, &sent).expect("a file");
    client.run(&format!("{curl} -T {} {url}/one -T {} {url}/two", up.display(), up.display()))?;
    for name in ["one", "two"] {
        let paths = SERVERS.map(|(server, _)| folder(lab, server).join(name));
        let got: Vec<_> = paths.iter().filter_map(|path| std::fs::read(path).ok()).collect();
        assert!(got == [sent.clone()], "{way} {vip}: {name}, {} times", got.len());
        paths.iter().for_each(|path| drop(std::fs::remove_file(path)));
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
    for (way, options, in_ipv6) in WAYS {
        for vip in DIRECTOR {
            if in_ipv6 || !vip.contains(':') {
                transfers(&lab, vip, way, options)?;
            }
        }
    }
    let mut status = director.rvs_command()?;
    let status = status.args(["status", "--reasons", "--pin"]).arg(director.pin());
    let status = status.arg("--socket").arg(director.socket()).output().expect("rvs starts");
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    let is_counted = |name: &str| status.lines().any(|line| line.contains(name));
    assert!(is_counted("slow.app") && (mode != "xdp" || is_counted("punt.app")), "{status}");
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

#[test]
fn files_come_and_go_whole_by_every_kind_of_data_connection_through_tc() -> Result<(), LabError> {
    need_lab!();
    if find_program("vsftpd").is_none() {
        skip!("no vsftpd");
    }
    every_way("tc")
}

#[test]
fn files_come_and_go_whole_by_every_kind_of_data_connection_through_xdp() -> Result<(), LabError> {
    need_lab!();
    if find_program("vsftpd").is_none() {
        skip!("no vsftpd");
    }
    every_way("xdp")
}
