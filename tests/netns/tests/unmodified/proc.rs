//! `rvs proc`, and readers of `/proc` by `rvs run`, against what Linux 6.1 printed for the same
//! services and connections: `tests/oracle/recorded/proc.jsonl`.

use std::net::IpAddr;
use std::process::{Command, Stdio};

use rvs_core::control::{ConnRow, Stats};
use rvs_core::types::ForwardMethod;
use serde_json::Value;

use crate::table::Table;
use crate::{Director, feed, need, recording, run, text};

const RECORDED: &str = "tests/oracle/recorded/proc.jsonl";

fn recorded(case: &str) -> Value {
    let rows = recording(RECORDED).expect("it is in the repository");
    rows.into_iter().find(|row| row["case"] == case).expect("a case of the recording")
}

/// What `rvs proc FILE` prints.
fn rvs_proc(director: &Director, file: &str) -> String {
    let mut command = Command::new(rvs_testkit::lab::binary("rvs").expect("a built rvs"));
    command.args(["proc", file]).env("RVS_SOCKET", &director.socket).stdin(Stdio::null());
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// What a program that knows nothing of rvsd reads.
fn cat(director: &Director, path: &str) -> String {
    let output = feed(run(director, "cat").arg(path), "");
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// The text of `ip_vs` without the size of the connection table, which is the director's own, and
/// with services, each followed by its destinations, in an order that hashing does not change.
fn services(text: &str) -> Vec<String> {
    let mut lines = text.split_inclusive('\n');
    let size = lines.next().expect("a first line").split_once("(size=").expect("a size");
    let mut all = vec![size.0.to_owned()];
    all.extend(lines.by_ref().take(2).map(str::to_owned));
    let mut services: Vec<String> = Vec::new();
    for line in lines {
        match services.last_mut().filter(|_| line.starts_with("  ->")) {
            Some(service) => service.push_str(line),
            None => services.push(line.to_owned()),
        }
    }
    services.sort_unstable();
    all.extend(services);
    all
}

#[test]
fn services_of_every_kind_read_as_the_kernel_s() {
    need!("/usr/sbin/ipvsadm");
    let row = recorded("services");
    let director = Director::start();
    let rules = row["rules"].as_str().expect("rules");
    let restored = feed(run(&director, "ipvsadm").arg("-R"), rules);
    assert!(restored.status.success(), "{}", text(&restored.stderr));
    let theirs = row["files"]["ip_vs"].as_str().expect("a text");
    assert_eq!(services(&rvs_proc(&director, "ip_vs")), services(theirs));
    assert_eq!(services(&cat(&director, "/proc/net/ip_vs")), services(theirs));
    // The same rules where the kernel had the module, which here is always there.
    let app = "one-packet scheduling, SCTP, persistence engine, application helper";
    let theirs = &recorded(app)["files"]["ip_vs_app"];
    assert_eq!(rvs_proc(&director, "ip_vs_app"), theirs.as_str().expect("a text"));
    for file in ["ip_vs_conn", "ip_vs_conn_sync", "ip_vs_stats", "ip_vs_stats_percpu"] {
        let theirs = row["files"][file].as_str().expect("a text");
        assert_eq!(rvs_proc(&director, file), theirs, "{file}");
        assert_eq!(cat(&director, &format!("/proc/self/net/{file}")), theirs, "{file}");
    }
}

/// The connections that the kernel's own ipvsadm listed, with the seconds of the file.
fn connections(row: &Value) -> Vec<ConnRow> {
    let expires = row["files"]["ip_vs_conn"].as_str().expect("a text").lines().skip(1);
    let expires = expires.map(|line| line.split_whitespace().last().expect("seconds"));
    let listed = row["lnc"].as_str().expect("a listing").lines().skip(2);
    listed.zip(expires).map(|(line, expires)| connection(line, expires)).collect()
}

fn connection(line: &str, expires: &str) -> ConnRow {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [protocol, _, state, client, service, dest] = words[..] else { panic!("{line}") };
    let at = |text: &str| -> (IpAddr, u16) {
        let (addr, port) = text.rsplit_once(':').expect("a port");
        let addr = addr.trim_matches(['[', ']']).parse().expect("an address");
        (addr, port.parse().expect("a port"))
    };
    let ((client, client_port), (virtual_addr, virtual_port)) = (at(client), at(service));
    let (dest, dest_port) = at(dest);
    let states = ["NONE", "SYN_RECV", "ESTABLISHED", "UDP"];
    ConnRow {
        protocol: match protocol {
            "TCP" => 6,
            "UDP" => 17,
            _ => 0,
        },
        client,
        client_port,
        virtual_addr,
        virtual_port,
        dest,
        dest_port,
        forward: ForwardMethod::Masquerade,
        state: states.into_iter().find(|known| *known == state).expect("a known state"),
        expires: expires.parse().expect("seconds"),
        template: state == "NONE",
        engine: None,
        synced: false,
    }
}

#[test]
fn connections_read_as_the_kernel_s() {
    need!("/usr/sbin/ipvsadm");
    let row = recorded("connections");
    let director = Director::over(Table::new(connections(&row), Stats::default()));
    for file in ["ip_vs_conn", "ip_vs_conn_sync"] {
        let theirs = row["files"][file].as_str().expect("a text");
        assert!(theirs.lines().count() > 15, "{theirs}");
        assert_eq!(rvs_proc(&director, file), theirs, "{file}");
        assert_eq!(cat(&director, &format!("/proc/net/{file}")), theirs, "{file}");
    }
    // And by way of the file, ipvsadm.
    let listed = feed(run(&director, "ipvsadm").arg("-Lnc"), "");
    let theirs = row["lnc"].as_str().expect("a listing");
    // It was run some milliseconds after the file was read, so that a second may have passed.
    let without_time = |text: &str| -> Vec<String> {
        let kept = |line: &str| format!("{:.4}{}", line, line.get(9..).unwrap_or_default());
        text.lines().map(kept).collect()
    };
    assert_eq!(without_time(&text(&listed.stdout)), without_time(theirs));
}

/// As recorded: totals outlive services and the zeroing of one; zeroing all zeroes them.
#[test]
fn totals_keep_what_deleted_services_counted() {
    need!("/usr/sbin/ipvsadm");
    let counted = Stats { conns: 3, in_pkts: 17, out_pkts: 15, in_bytes: 4_000, out_bytes: 90_000 };
    let director = Director::over(Table::new(Vec::new(), counted));
    let ipvsadm = |words: &str| {
        let output = feed(run(&director, "ipvsadm").args(words.split_whitespace()), "");
        assert!(output.status.success(), "{}", text(&output.stderr));
        let stats = rvs_proc(&director, "ip_vs_stats");
        stats.lines().nth(2).expect("a row of counters").to_owned()
    };
    let one = "       3       11        F              FA0            15F90";
    let three = "       9       33       2D             2EE0            41EB0";
    assert_eq!(ipvsadm("-A -t 10.0.0.1:80"), one);
    ipvsadm("-A -t 10.0.0.2:80");
    assert_eq!(ipvsadm("-A -t 10.0.0.3:80"), three);
    assert_eq!(ipvsadm("-D -t 10.0.0.1:80"), three);
    assert_eq!(ipvsadm("-Z -t 10.0.0.2:80"), three);
    assert_eq!(ipvsadm("-C"), three);
    ipvsadm("-A -t 10.0.0.4:80");
    assert_eq!(ipvsadm("-Z"), "       0        0        0                0                0");
}

#[test]
fn settings_can_be_read_and_not_written() {
    let python = need!("python3");
    let row = recorded("sysctls");
    let director = Director::start();
    let folder = "/proc/sys/net/ipv4/vs";
    let settings = row["files"].as_object().expect("files");
    for (name, theirs) in settings.iter().filter(|(name, _)| *name != "sync_qlen_max") {
        assert_eq!(cat(&director, &format!("{folder}/{name}")), theirs.as_str().expect("a text"));
    }
    let script = format!(
        "import os\n\
         for mode in 'w', 'r+', 'a':\n\
         \x20try: open('{folder}/conntrack', mode)\n\
         \x20except PermissionError: print('refused')\n\
         print(os.path.isfile('{folder}/conntrack'), os.path.isdir('{folder}'))\n\
         print(os.path.exists('/proc/net/ip_vs'), os.access('/proc/net/ip_vs_stats', os.R_OK))\n\
         os.environ.clear()\n\
         print(open('{folder}/conntrack').read().strip())\n\
         print(os.path.exists('{folder}/nosuch'), os.path.exists('/proc/net/ip_vs_nosuch'))\n"
    );
    let output = feed(run(&director, &python).arg("-c").arg(script), "");
    let expected = "refused\nrefused\nrefused\nTrue True\nTrue True\n0\nFalse False\n";
    assert_eq!(text(&output.stdout), expected, "{}", text(&output.stderr));
}
