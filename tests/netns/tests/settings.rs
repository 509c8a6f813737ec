//! `rvs sysctl` and the files of `rvsd --proc`: the kernel's settings, by its names, with its defaults
//! and errors (`tests/oracle/recorded/sysctl.jsonl`); they outlive rvsd.

use std::path::{Path, PathBuf};
use std::process::Command;

use rvs_testkit::lab::{Director, LabError, Topology};
use rvs_testkit::need_lab;
use serde_json::Value;

/// A mount point that is free again when the test ends, however it ends.
struct MountPoint(PathBuf);

impl Drop for MountPoint {
    fn drop(&mut self) {
        // Fails where nothing is mounted any more, as it should be.
        let _ = Command::new("umount").arg("-ql").arg(&self.0).output();
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// What `sysctl net.ipv4.vs` printed, but for the one setting whose default is the machine's.
fn recorded() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = root.join("tests/oracle/recorded/sysctl.jsonl");
    let text = std::fs::read_to_string(path).expect("it is part of the repository");
    let last: Value = serde_json::from_str(text.lines().last().expect("lines")).expect("JSON");
    let listing = last["sysctl"].as_str().expect("a listing").split_inclusive('\n');
    listing.filter(|line| !line.contains("sync_qlen_max")).collect()
}

/// Runs `rvs sysctl`; what it printed, or its error.
fn sysctl(director: &Director, words: &[&str]) -> Result<Result<String, String>, LabError> {
    let output =
        director.rvs_command()?.arg("sysctl").args(words).output().expect("rvs can be started");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(Ok(text(&output.stdout)))
    } else {
        Ok(Err(text(&output.stderr)))
    }
}

#[test]
fn settings_read_and_change_as_the_kernel_s_and_outlive_rvsd() -> Result<(), LabError> {
    need_lab!();
    let lab = Topology::new().host("director", &["10.7.2.30/24"]).build()?;
    let point = MountPoint(std::env::temp_dir().join(format!("{}-proc", lab.name())));
    let folder = point.0.to_string_lossy().into_owned();
    let director = Director::start(&lab.host("director"), &["--proc", &folder])?;
    let file = |name: &str| point.0.join("sys/net/ipv4/vs").join(name);
    assert_eq!(sysctl(&director, &[])?, Ok(recorded()));

    // By name, with and without what sysctl(8) puts before it; each is printed as it then is.
    let printed = sysctl(&director, &["conn_reuse_mode=2", "net.ipv4.vs.sloppy_tcp = 0x1"])?;
    let expected = "net.ipv4.vs.conn_reuse_mode = 2\nnet.ipv4.vs.sloppy_tcp = 1\n";
    assert_eq!(printed.as_deref(), Ok(expected));
    // 2 means that memory is short, which it is not.
    for name in ["drop_packet", "drop_entry"] {
        let printed = sysctl(&director, &[&format!("{name}=2"), name])?;
        assert_eq!(printed, Ok(format!("net.ipv4.vs.{name} = 1\n").repeat(2)));
    }
    for (word, error) in [
        ("drop_packet=4", "rvs: drop_packet is a number from 0 to 3\n"),
        ("amemthresh=x", "rvs: amemthresh is a number from -2147483648 to 2147483647\n"),
        ("nosuch=1", "rvs: no setting nosuch\n"),
        ("nosuch", "rvs: no setting nosuch\n"),
        (
            "sync_threshold=4 50",
            "rvs: sync_threshold cannot be changed: connections do not count their packets\n",
        ),
    ] {
        assert_eq!(sysctl(&director, &[word])?, Err(error.to_owned()), "{word}");
    }
    assert_eq!(
        sysctl(&director, &["sync_threshold=3 50"])?,
        Ok("net.ipv4.vs.sync_threshold = 3\t50\n".to_owned()),
        "what it is already"
    );

    // The files say the same, and take the same.
    let read = |name: &str| std::fs::read_to_string(file(name)).expect("it can be read");
    assert_eq!((read("conn_reuse_mode"), read("sync_threshold")), ("2\n".into(), "3\t50\n".into()));
    std::fs::write(file("expire_nodest_conn"), "1\n").expect("it can be written");
    let errno =
        |name: &str, text: &str| std::fs::write(file(name), text).map_err(|e| e.raw_os_error());
    assert_eq!(errno("secure_tcp", "4\n"), Err(Some(22)), "EINVAL");
    assert_eq!(errno("sync_threshold", "4 50\n"), Err(Some(95)), "EOPNOTSUPP");
    assert_eq!(errno("conntrack", "0\n"), Ok(()));
    let services = std::fs::write(point.0.join("net/ip_vs"), "x").map_err(|e| e.kind());
    assert_eq!(services, Err(std::io::ErrorKind::PermissionDenied));

    director.process().kill();
    director.restart()?;
    let printed = sysctl(&director, &["conn_reuse_mode", "expire_nodest_conn"])?;
    let expected = "net.ipv4.vs.conn_reuse_mode = 2\nnet.ipv4.vs.expire_nodest_conn = 1\n";
    assert_eq!(printed.as_deref(), Ok(expected));
    Ok(())
}

#[test]
fn a_file_sets_what_rvsd_starts_with() -> Result<(), LabError> {
    need_lab!();
    let lab = Topology::new().host("director", &["10.7.2.34/24"]).build()?;
    let path = std::env::temp_dir().join(format!("{}.conf", lab.name()));
    let file = path.to_string_lossy().into_owned();
    let write = |text: &str| std::fs::write(&path, text).expect("a free name");
    write("[sysctl]\nconn_reuse_mode = 2\ntimeout_finwait = 77\ntimeout_synrecv = 5\n");
    let director = Director::start(&lab.host("director"), &["--config", &file])?;
    let shown = |words: &[&str]| sysctl(&director, words);
    let names = ["conn_reuse_mode", "timeout_finwait", "timeout_synrecv", "timeout_listen"];
    let expected = "net.ipv4.vs.conn_reuse_mode = 2\nnet.ipv4.vs.timeout_finwait = 77\n\
                    net.ipv4.vs.timeout_synrecv = 5\nnet.ipv4.vs.timeout_listen = 120\n";
    assert_eq!(shown(&names)?, Ok(expected.into()));
    assert_eq!(director.ipvsadm("-L --timeout")?, "Timeout (tcp tcpfin udp): 900 77 300\n");
    director.ipvsadm("--set 0 0 55")?;
    let printed = shown(&["timeout_udp", "timeout_listen=3"])?;
    let expected = "net.ipv4.vs.timeout_udp = 55\nnet.ipv4.vs.timeout_listen = 3\n";
    assert_eq!(printed, Ok(expected.into()));
    assert_eq!(
        shown(&["timeout_listen=0"])?,
        Err("rvs: timeout_listen is a number from 1 to 8589934\n".into())
    );
    assert_eq!(shown(&["timeout_icmp"])?, Err("rvs: no setting timeout_icmp\n".into()));

    // What the file does not name outlives rvsd; what it names it sets again.
    director.ipvsadm("--set 0 88 0")?;
    director.process().kill();
    director.restart()?;
    let expected = "net.ipv4.vs.timeout_finwait = 77\nnet.ipv4.vs.timeout_listen = 3\n";
    assert_eq!(shown(&["timeout_finwait", "timeout_listen"])?, Ok(expected.into()));

    // A file with one bad value changes nothing.
    director.process().kill();
    write("[sysctl]\ntimeout_finwait = 99\nsecure_tcp = 9\n");
    let refused = director.restart().expect_err("the file is not valid");
    assert!(format!("{refused}").contains("secure_tcp is a number from 0 to 3"), "{refused}");
    write("");
    director.restart()?;
    assert_eq!(shown(&["timeout_finwait"])?, Ok("net.ipv4.vs.timeout_finwait = 77\n".into()));
    let _ = std::fs::remove_file(&path);
    Ok(())
}
