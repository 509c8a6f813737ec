//! `rvs run --static`: a statically linked client, and what cannot be started with a library.

use std::path::PathBuf;
use std::process::Command;

use rvs_testkit::lab::workspace;

use crate::{Director, feed, need, run, run_static, text};

/// A file of this test that goes with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("rvs-{}-{name}", std::process::id())))
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("a path of ASCII")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn static_client() -> Scratch {
    let client = Scratch::new("static-client");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut command = Command::new(rustc);
    command.args(["--edition", "2024", "-O", "-C", "target-feature=+crt-static", "-o"]);
    command.arg(&client.0);
    command.arg(workspace().join("tests/netns/tests/unmodified/static_client.rs"));
    let built = command.output().expect("rustc starts");
    assert!(built.status.success(), "{}", text(&built.stderr));
    client
}

#[test]
fn a_statically_linked_client_works_under_supervision_only() {
    need!("cc");
    let (client, director) = (static_client(), Director::start());
    let refused = feed(&mut run(&director, client.path()), "");
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("use rvs run --static"), "{}", text(&refused.stderr));

    let output = feed(&mut run_static(&director, client.path()), "");
    let expected = "\
add: 0
again: 17
threads: [0, 0]
info: 0 0x10201 3
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  0A090901:0050 rr  
TCP  0A090901:0051 rr  
TCP  0A090901:0052 rr  
conntrack: Ok(\"0\\n\")
written: PermissionDenied
other files: true
flush: 0
services: 0
";
    let mut lines: Vec<String> = text(&output.stdout).lines().map(str::to_owned).collect();
    // Whichever thread was first.
    if let Some(services) = lines.get_mut(6..9) {
        services.sort_unstable();
    }
    let stdout = lines.join("\n") + "\n";
    assert_eq!(stdout, expected, "{}", text(&output.stderr));
}

/// The program is `rvs` itself replaced: what signals it, and what it leaves, are its own.
#[test]
fn a_supervised_program_has_its_own_status_and_no_child() {
    let python = need!("python3");
    let director = Director::start();
    let script = "import os, sys\n\
        try: os.wait(); print('a child')\n\
        except ChildProcessError: print('no child')\n\
        sys.exit(7)\n";
    let output = feed(run_static(&director, &python).args(["-c", script]), "");
    let found = (output.status.code(), text(&output.stdout), text(&output.stderr));
    assert_eq!(found, (Some(7), "no child\n".to_owned(), String::new()));
}

#[test]
fn what_cannot_be_started_is_told_in_one_line() {
    need!("/sbin/ldconfig");
    let director = Director::start();
    // By way of a script: ldconfig is linked statically.
    let script = Scratch::new("script");
    std::fs::write(&script.0, "#!/sbin/ldconfig\n").expect("a free name");
    mode(&script, 0o755);
    // Someone else's program that changes to him.
    let setuid = Scratch::new("setuid");
    std::fs::copy("/bin/true", &setuid.0).expect("a free name");
    std::os::unix::fs::chown(&setuid.0, Some(65_534), None).expect("root may");
    mode(&setuid, 0o4755);
    for (program, reason) in [
        ("nosuch", "no program nosuch in $PATH"),
        ("/nonexistent/program", "no program /nonexistent/program"),
        (script.path(), "/sbin/ldconfig is statically linked"),
        (setuid.path(), "runs with other rights than the caller's"),
    ] {
        let output = feed(&mut run(&director, program), "");
        let stderr = text(&output.stderr);
        assert_eq!((output.status.code(), stderr.lines().count()), (Some(1), 1), "{stderr}");
        assert!(stderr.contains(reason), "{stderr}");
    }
    let socket = director.socket.clone();
    drop(director);
    for words in [&["run", "--", "true"][..], &["run", "--static", "--", "true"]] {
        let mut command = Command::new(rvs_testkit::lab::binary("rvs").expect("a built rvs"));
        let output = command.args(words).env("RVS_SOCKET", &socket).output().expect("it starts");
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr.starts_with(&format!("rvs: no rvsd at {}", socket.display())), "{stderr}");
    }
}

fn mode(file: &Scratch, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    let permissions = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(&file.0, permissions).expect("our own file");
}
