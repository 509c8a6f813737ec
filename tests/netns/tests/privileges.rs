//! A running rvsd has one capability and no way to more, and does all of its work with it.

use std::path::Path;
use std::time::Duration;

use rvs_testkit::lab::{Director, Lab, LabError, wait_until};
use rvs_testkit::need_lab;
use rvs_tests_netns::{DIRECTOR, SERVERS, at, lab, masquerade};

/// CAP_NET_ADMIN, bit 12, and nothing else; in the words of proc(5)'s `status`.
const ALLOWED: [(&str, &str); 6] = [
    ("CapInh", "0000000000000000"),
    ("CapPrm", "0000000000001000"),
    ("CapEff", "0000000000001000"),
    ("CapBnd", "0000000000000000"),
    ("CapAmb", "0000000000000000"),
    ("NoNewPrivs", "1"),
];

/// Checks every thread of the running rvsd.
fn assert_least_privileges(director: &Director) {
    let tasks = format!("/proc/{}/task", director.process().pid());
    let mut threads = 0;
    for task in Path::new(&tasks).read_dir().expect("it runs") {
        let path = task.expect("a folder entry").path().join("status");
        let status = std::fs::read_to_string(&path).expect("it runs");
        let name = status.lines().next().unwrap_or_default();
        for (field, expected) in ALLOWED {
            let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
            assert_eq!(value.map(str::trim), Some(expected), "{field}, {name}");
        }
        threads += 1;
    }
    // FUSE's second one may not have been started yet.
    assert!((3..=4).contains(&threads), "main, the sweeper and FUSE's: {threads}");
}

/// Who answers the client at a virtual address, and from which of its own.
fn answer(lab: &Lab, vip: &str, from: &str) -> Result<String, LabError> {
    let url = format!("http://{}/", at(vip, 80));
    lab.host("client").run(&format!("curl -sS --max-time 10 --interface {from} {url}"))
}

/// Gives the director and the client one more link, whose addresses are .1 and .70.
fn add_link(lab: &Lab) -> Result<(), LabError> {
    let (director, client) = (lab.host("director"), lab.host("client"));
    let peer = format!("peer name late1 netns {}", client.namespace());
    director.ip(&format!("link add late0 type veth {peer}"))?;
    for (host, device, last) in [(&director, "late0", 1), (&client, "late1", 70)] {
        host.ip(&format!("addr add 192.168.123.{last}/24 dev {device}"))?;
        host.ip(&format!("link set {device} up"))?;
        // Once it is up: set before, veth of Linux 6.18 drops the frames that XDP redirects to it.
        host.run(&format!("ethtool -K {device} tx off gro on"))?;
    }
    client.ip(&format!("route add {}/32 via 192.168.123.1", DIRECTOR[0]))?;
    for (server, _) in SERVERS {
        lab.host(server).ip(&format!("route add 192.168.123.70 via {}", DIRECTOR[0]))?;
    }
    Ok(())
}

/// Waits until `rvs status` says that the interface is attached, or is not.
fn wait_for_attached(director: &Director, interface: &str, is: bool) -> Result<(), LabError> {
    let what = format!("{interface} attached: {is}");
    wait_until(&what, Duration::from_secs(10), || {
        let mut status = director.rvs_command()?;
        status.arg("status").arg("--pin").arg(director.pin());
        status.arg("--socket").arg(director.socket());
        let output = status.output().expect("rvs starts");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}");
        Ok(text.lines().any(|l| l.starts_with("attached:") && l.contains(interface)) == is)
    })
}

fn works_with_least_privileges(mode: &str) -> Result<(), LabError> {
    let lab = lab()?;
    for (server, _) in SERVERS {
        lab.host(server).serve_http(80)?;
    }
    lab.prepare_for_xdp()?;
    let director = Director::start(&lab.host("director"), &["--mode", mode])?;
    assert_least_privileges(&director);
    // Configuration, neighbours, packets.
    masquerade(&director, "-t", 80, "-p 300")?;
    for (family, from) in ["192.168.122.70", "fd22::70"].into_iter().enumerate() {
        let vip = DIRECTOR[family];
        assert!(answer(&lab, vip, from)?.starts_with("rs"), "{mode} {vip}");
        // Source hashing has a table more.
        director.ipvsadm(&format!("-E -t {} -s sh", at(vip, 80)))?;
        let server = at(SERVERS[0].1[family], 80);
        director.ipvsadm(&format!("-d -t {} -r {server}", at(vip, 80)))?;
        assert_eq!(answer(&lab, vip, from)?, "rs2\n", "{mode} {vip}");
        director.ipvsadm(&format!("-a -t {} -r {server} -m -w 3", at(vip, 80)))?;
    }
    director.ipvsadm("--set 300 60 60")?;
    director.ipvsadm("-Z")?;

    add_link(&lab)?;
    wait_for_attached(&director, "late0", true)?;
    assert!(answer(&lab, DIRECTOR[0], "192.168.123.70")?.starts_with("rs"), "{mode}");
    let link = lab.host("director").ip("link show dev late0")?;
    assert_eq!(link.contains(" xdp "), mode == "xdp", "{link}");

    let before = director.ipvsadm("-Sn")?;
    director.process().kill();
    director.restart()?;
    assert_least_privileges(&director);
    assert_eq!(director.ipvsadm("-Sn")?, before, "{mode}");
    assert!(answer(&lab, DIRECTOR[0], "192.168.123.70")?.starts_with("rs"), "{mode}");
    lab.host("director").ip("link del late0")?;
    wait_for_attached(&director, "late0", false)?;

    let status = director.process().terminate(Duration::from_secs(10))?;
    assert!(status.success(), "{status}");
    assert!(!director.socket().exists(), "the control socket is removed");
    let log = director.process().log();
    let complaints: Vec<&str> =
        log.lines().filter(|line| line.contains("WARN") || line.contains("ERROR")).collect();
    assert!(complaints.is_empty(), "{mode}: {complaints:#?}");
    Ok(())
}

#[test]
fn rvsd_works_with_one_capability_through_tc() -> Result<(), LabError> {
    need_lab!();
    works_with_least_privileges("tc")
}

#[test]
fn rvsd_works_with_one_capability_through_xdp() -> Result<(), LabError> {
    need_lab!();
    works_with_least_privileges("xdp")
}
