//! The real program's recorded command lines, replayed in order: `../shared/golden/ipvsadm.jsonl`.
//! Our binary talks to our director over a socket; only the data path is a table in memory.

#[path = "../../../crates/director/tests/memory/mod.rs"]
mod memory;

use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use memory::Memory;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept, bind,
    listen, recv, send, socket_with,
};
use rvs_director::Director;
use serde_json::Value;

/// What differs on purpose or because a feature is still to come: command lines, or whole groups.
const DIFFERENT: &[(&str, &str)] = &[
    ("group:schedulers", "only rr, wrr, lc, wlc, sh and none are there yet"),
    ("group:daemon", "there is no sync daemon yet"),
    ("group:tunnels", "GUE and GRE tunnels are not there yet"),
    ("group:persistence", "one-packet scheduling and persistence engines are not there yet"),
    (
        "group:save-restore",
        "-R names the line and fails when a line failed; sed and -o are to come",
    ),
    ("-a -f 3 -6 -r [fd00::1] -m", "1.31 takes no bracketed server for a mark; ours does"),
    ("-Ln --nosort", "the kernel lists services by hash bucket, ours by age"),
    ("-h", "the help text is our own"),
    ("--help", "the help text is our own"),
    ("-v", "the version names RVS"),
    ("--version", "the version names RVS"),
];

fn recording() -> Option<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::fs::read_to_string(root.join("../shared/golden/ipvsadm.jsonl")).ok()
}

/// Serves a director on a socket until the process ends.
fn serve(path: &Path) {
    let socket =
        socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .expect("a socket");
    bind(&socket, &SocketAddrUnix::new(path).expect("a short path")).expect("a free name");
    listen(&socket, 8).expect("a bound socket");
    std::thread::spawn(move || {
        let mut director = Director::new(Memory::default());
        while let Ok(client) = accept(&socket) {
            converse(&mut director, &client);
        }
    });
}

fn converse(director: &mut Director<Memory>, client: &OwnedFd) {
    let mut buffer = vec![0; 65_536];
    while let Ok((len, _)) = recv(client, &mut *buffer, RecvFlags::empty()) {
        if len == 0 {
            break;
        }
        for reply in director.handle(&buffer[..len]) {
            if send(client, &reply, SendFlags::NOSIGNAL).is_err() {
                return;
            }
        }
    }
}

fn run(socket: &Path, args: &[&str], stdin: Option<&str>) -> (i32, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ipvsadm"))
        .args(args)
        .env("RVS_SOCKET", socket)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("our binary");
    let mut input = child.stdin.take().expect("a pipe");
    // It may end without having read everything.
    let _ = input.write_all(stdin.unwrap_or_default().as_bytes());
    drop(input);
    let output = child.wait_with_output().expect("a child");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

fn scratch(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("rvs-{name}-{}.sock", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}

#[test]
fn recorded_command_lines_print_what_ipvsadm_printed() {
    let Some(text) = recording() else {
        assert!(std::env::var_os("CI").is_none(), "../shared/golden is missing");
        println!("SKIPPED: ../shared/golden/ipvsadm.jsonl is not there");
        return;
    };
    let socket = scratch("golden");
    serve(&socket);
    let (mut played, mut failures, mut group) = (0, Vec::new(), String::new());
    for line in text.lines() {
        let row: Value = serde_json::from_str(line).expect("a line of JSON");
        let name = row["group"].as_str().expect("a group");
        if name != group {
            run(&socket, &["-C"], None);
            group = name.to_owned();
        }
        let argv: Vec<&str> =
            row["argv"].as_array().expect("words").iter().filter_map(Value::as_str).collect();
        let group_word = format!("group:{group}");
        let line = argv.join(" ");
        let is_different = |word: &str| word == group_word || word == line;
        if DIFFERENT.iter().any(|(word, _)| is_different(word)) || row["tool"] != "ipvsadm" {
            continue;
        }
        played += 1;
        let (code, stdout, stderr) = run(&socket, &argv, row["stdin"].as_str());
        // A help text was not recorded.
        let theirs = row["stdout"].as_str().unwrap_or(&stdout);
        let expected = (row["rc"].as_i64(), theirs);
        if (Some(i64::from(code)), stdout.as_str()) != expected {
            failures.push(format!(
                "{group}: ipvsadm {}\n  rc {code}, not {:?}: {stderr}  ours:\n{stdout}  theirs:\n{}",
                argv.join(" "),
                expected.0,
                expected.1
            ));
        }
    }
    let _ = std::fs::remove_file(&socket);
    println!("{played} command lines");
    assert!(failures.is_empty(), "{} of {played} differ:\n{}", failures.len(), failures.join("\n"));
    assert!(played > 200, "only {played} command lines");
}

#[test]
fn nobody_to_talk_to_is_told_with_the_socket_s_name() {
    let socket = scratch("nobody");
    let (code, stdout, stderr) = run(&socket, &["-Ln"], None);
    assert_eq!((code, stdout.as_str()), (255, ""));
    assert!(stderr.contains(&*socket.to_string_lossy()), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}

#[test]
fn what_is_saved_is_restored() {
    let socket = scratch("restore");
    serve(&socket);
    let rules = "-A -t 10.0.0.1:80 -s wrr -p 300\n\
                 -a -t 10.0.0.1:80 -r 10.0.0.2:8080 -m -w 3\n\
                 -A -u [fd00::1]:53 -s sh -b sh-port\n\
                 -a -u [fd00::1]:53 -r [fd00::2]:53 -g -w 1\n\
                 -a -u [fd00::1]:53 -r 10.0.0.3:53 -i -w 1 --tun-type ipip\n";
    assert_eq!(run(&socket, &["-R"], Some(rules)).0, 0);
    let (_, saved, _) = run(&socket, &["-Sn"], None);
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&saved), sorted(rules));
    run(&socket, &["-C"], None);
    assert_eq!(run(&socket, &["-R"], Some(&saved)).0, 0);
    assert_eq!(run(&socket, &["-Sn"], None).1, saved);
    let (code, _, stderr) = run(&socket, &["-R"], Some("-A -t 1.2.3.4:1\nnonsense\n"));
    assert!(code != 0 && stderr.contains("line 2"), "{stderr}");
    let _ = std::fs::remove_file(&socket);
}
