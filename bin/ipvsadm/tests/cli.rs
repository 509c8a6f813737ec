//! The programs from outside: what 1.31 has no word for, and what it does worse.

mod lab;

use lab::{Lab, Memory};
use serde_json::{Value, json};

const RULES: &str = "-A -t 10.0.0.1:80 -s wrr -p 300\n\
                     -a -t 10.0.0.1:80 -r 10.0.0.2:8080 -m -w 3 -x 9 -y 4\n\
                     -A -u [fd00::1]:53 -s sh -b sh-port\n\
                     -a -u [fd00::1]:53 -r 10.0.0.3:53 -i -w 1 --tun-type gue --tun-port 6080 --tun-csum\n\
                     -a -u [fd00::1]:53 -r [fd00::2]:53 -g -w 1\n\
                     -A -f 4294967295 -s rr\n";

fn restored(name: &str) -> Lab {
    let lab = Lab::new(name, Memory::default());
    let (code, _, stderr) = lab.ipvsadm(&["-R"], Some(RULES));
    assert_eq!((code, stderr.as_str()), (0, ""));
    lab
}

fn listed(lab: &Lab, args: &[&str]) -> Value {
    let (code, stdout, stderr) = lab.ipvsadm(args, None);
    assert_eq!((code, stderr.as_str()), (0, ""), "{args:?}");
    serde_json::from_str(&stdout).expect("JSON")
}

#[test]
fn nobody_to_talk_to_is_told_with_the_socket_s_name() {
    let lab = Lab::nobody("nobody");
    let (code, stdout, stderr) = lab.ipvsadm(&["-Ln"], None);
    assert_eq!((code, stdout.as_str()), (255, ""));
    assert!(stderr.contains(&*lab.socket().to_string_lossy()), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn saved_rules_hold_what_1_31_forgets() {
    let lab = restored("saved");
    let (_, saved, _) = lab.ipvsadm(&["-Sn"], None);
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&saved), sorted(RULES));
    let (code, _, stderr) = lab.run(env!("CARGO_BIN_EXE_ipvsadm-restore"), &[], Some(&saved));
    assert_eq!((code, stderr.as_str()), (0, ""));
    let again = lab.run(env!("CARGO_BIN_EXE_ipvsadm-save"), &["-n"], None);
    assert_eq!(again, (0, saved, String::new()));
}

#[test]
fn services_as_json_have_everything() {
    let lab = restored("json");
    let all = listed(&lab, &["-L", "--json"]);
    assert_eq!((&all["version"], &all["size"]), (&json!("1.2.1"), &json!(4096)));
    assert_eq!(all["services"].as_array().expect("a list").len(), 3);
    let one = listed(&lab, &["-L", "-t", "10.0.0.1:80", "--json", "--stats"]);
    let counts = json!({"conns": 0, "in_pkts": 0, "out_pkts": 0, "in_bytes": 0, "out_bytes": 0});
    let rates = json!({"cps": 0, "in_pps": 0, "out_pps": 0, "in_bps": 0, "out_bps": 0});
    assert_eq!(
        one,
        json!({"services": [{
            "protocol": "tcp", "address": "10.0.0.1", "port": 80, "family": "ipv4",
            "scheduler": "wrr", "scheduler_flags": [], "one_packet": false,
            "persistence": {"timeout": 300, "netmask": null, "engine": null},
            "stats": counts, "rates": rates,
            "destinations": [{
                "address": "10.0.0.2", "port": 8080, "forward": "masquerade", "weight": 3,
                "upper_threshold": 9, "lower_threshold": 4, "active_conns": 0,
                "inactive_conns": 0, "persistent_conns": 0, "stats": counts, "rates": rates,
            }],
        }]})
    );
    let one = listed(&lab, &["-L", "-u", "[fd00::1]:53", "--json"]);
    let service = &one["services"][0];
    assert_eq!(service["scheduler_flags"], json!(["sh-port"]));
    assert_eq!(service["persistence"], Value::Null);
    let tunnel = json!({"type": "gue", "port": 6080, "checksum": "csum"});
    let dests = service["destinations"].as_array().expect("a list");
    assert!(dests.iter().any(|dest| dest["tunnel"] == tunnel), "{dests:?}");
    let one = listed(&lab, &["-L", "-f", "4294967295", "--json"]);
    assert_eq!(one["services"][0]["fwmark"], json!(4_294_967_295_u32));
}

#[test]
fn the_other_listings_as_json() {
    let lab = restored("json-other");
    let timeouts = listed(&lab, &["-L", "--timeout", "--json"]);
    assert_eq!(timeouts, json!({"tcp": 900, "tcpfin": 120, "udp": 300}));
    assert_eq!(listed(&lab, &["-L", "--daemon", "--json"]), json!({"daemons": []}));
    assert_eq!(listed(&lab, &["-Lc", "--json"]), json!({"connections": []}));
    let (code, _, stderr) = lab.ipvsadm(&["-S", "--json"], None);
    assert_eq!((code, stderr.as_str()), (2, "Illegal 'json' option with the 'save' command\n"));
}

#[test]
fn connections_are_listed_over_many_pages() {
    let lab = Lab::new("pages", Memory::with_conns(10_000));
    let (code, stdout, stderr) = lab.ipvsadm(&["-Lnc"], None);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let rows: Vec<&str> = stdout.lines().skip(2).collect();
    assert_eq!(rows.len(), 10_000);
    for (index, row) in rows.iter().enumerate() {
        let port = row.split_whitespace().nth(3).expect("a source").rsplit_once(':');
        assert_eq!(port.expect("a port").1, (index + 1).to_string(), "{row}");
    }
    let all = listed(&lab, &["-Lc", "--json"]);
    let rows = all["connections"].as_array().expect("a list");
    assert_eq!(rows.len(), 10_000);
    assert_eq!(
        rows[0],
        json!({
            "protocol": "tcp", "state": "ESTABLISHED", "expires": 900, "forward": "masquerade",
            "template": false, "client": {"address": "10.0.0.2", "port": 1},
            "service": {"address": "10.9.1.1", "port": 80},
            "destination": {"address": "10.1.0.11", "port": 80},
        })
    );
}

#[test]
fn a_refusal_says_why() {
    let lab = restored("why");
    let told = |args: &str| {
        let (code, _, stderr) = lab.ipvsadm(&args.split(' ').collect::<Vec<_>>(), None);
        (code, stderr.trim_end().to_owned())
    };
    assert_eq!(
        told("-a -t 10.0.0.1:80 -r 224.0.0.1 -m"),
        (255, "Invalid operation: 224.0.0.1 is not a unicast address".into())
    );
    assert_eq!(
        told("-a -t 10.0.0.1:80 -r 10.0.0.9 -m -x 1 -y 2"),
        (255, "Numerical result out of range: lower threshold 2 above upper 1".into())
    );
    assert_eq!(
        told("-A -t 10.0.0.1:81 -s bogus"),
        (255, "Scheduler or persistence engine not found: no scheduler bogus".into())
    );
    assert_eq!(
        told("--start-daemon master --mcast-interface nope"),
        (
            255,
            "Invalid operation: destinations of another family than their service cannot be \
             synchronised"
                .into()
        )
    );
    // Where 1.31's words say it all they are all.
    assert_eq!(told("-D -t 10.0.0.1:82"), (255, "No such service".into()));
}

#[test]
fn a_restore_names_the_lines_and_leaves_what_1_31_leaves() {
    let lab = Lab::new("lines", Memory::default());
    let rules = "-A -t 1.2.3.4:1\n\n-A -t 1.2.3.4:1\n-A -t 1.2.3.4:2 -p -M 24\n-D -t 1.2.3.4:9\n";
    let (code, _, stderr) = lab.ipvsadm(&["-R"], Some(rules));
    assert_eq!(code, 255);
    assert_eq!(
        stderr.lines().collect::<Vec<_>>(),
        [
            "line 4: warning: -M 24 is the mask 0.0.0.24; a prefix of 24 bits is 255.255.255.0",
            "line 3: Service already exists",
            "line 5: No such service",
            "2 lines were refused",
        ]
    );
    // An option that is none stops nothing.
    let rules = "-A -t 1.2.3.4:3 --bogus\n-A -t 1.2.3.4:3\n-D -t 1.2.3.4:3 -s\n";
    let (code, _, stderr) = lab.ipvsadm(&["-R"], Some(rules));
    assert_eq!(code, 255);
    assert_eq!(
        stderr.lines().collect::<Vec<_>>(),
        ["line 1: --bogus: unknown option", "line 3: -s: missing argument", "2 lines were refused",]
    );
    assert_eq!(lab.ipvsadm(&["-D", "-t", "1.2.3.4:3"], None).0, 0);
    // A bad line late in a long file: all before it is done, nothing after it.
    let mut rules: String = (1000..2000).map(|port| format!("-A -t 1.2.3.4:{port}\n")).collect();
    rules += "-A -t nonsense:x\n-A -t 1.2.3.4:2000\n";
    let (code, _, stderr) = lab.ipvsadm(&["-R"], Some(&rules));
    let said = "line 1001: illegal virtual server address[:port] specified\n";
    assert_eq!((code, stderr.as_str()), (2, said));
    let (_, saved, _) = lab.ipvsadm(&["-Sn"], None);
    assert_eq!(saved.lines().count(), 1002);
    assert!(!saved.contains(":2000 "));
}

#[test]
fn comments_count_as_lines_of_a_file_to_restore() {
    let lab = restored("comments");
    let rules = "# saved\n-A -t 1.2.3.4:1 -s rr\n#\nnonsense\n";
    let (code, _, stderr) = lab.run(env!("CARGO_BIN_EXE_ipvsadm-restore"), &["-x"], Some(rules));
    let said = "warning: -x is ignored: ipvsadm-restore takes no arguments\n\
                line 4: Try `ipvsadm -h' or 'ipvsadm --help' for more information.\n";
    assert_eq!((code, stderr.as_str()), (255, said));
    assert_eq!(lab.ipvsadm(&["-Sn"], None).1, "-A -t 1.2.3.4:1 -s rr\n");
}

#[test]
fn a_reader_that_has_seen_enough_is_not_complained_of() {
    use std::io::Read;
    use std::process::{Command, Stdio};
    let lab = Lab::new("enough", Memory::with_conns(10_000));
    let mut child = Command::new(env!("CARGO_BIN_EXE_ipvsadm"))
        .arg("-Lnc")
        .env("RVS_SOCKET", lab.socket())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("our program");
    let mut stdout = child.stdout.take().expect("a pipe");
    stdout.read_exact(&mut [0; 10]).expect("output");
    drop(stdout);
    let output = child.wait_with_output().expect("a child");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(141));
}
