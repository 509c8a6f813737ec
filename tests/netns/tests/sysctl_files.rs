//! `/proc/sys/net/ipv4/vs` under `rvs run`: real programs, dynamically and statically linked, write
//! settings, list the folder and ask about the files, as with a kernel that has ip_vs.

use std::process::{Command, Stdio};

use rvs_testkit::lab::{Director, LabError, Topology, find_program};
use rvs_testkit::{need_lab, skip};

const FOLDER: &str = "/proc/sys/net/ipv4/vs";

/// Exit code, output and error output of a shell's line under `rvs run`.
struct Shell<'d> {
    director: &'d Director,
    words: &'d [&'d str],
}

impl Shell<'_> {
    fn run(&self, line: &str) -> Result<(Option<i32>, String, String), LabError> {
        let mut command: Command = self.director.rvs_command()?;
        command.arg("run").args(self.words).arg(line).stdin(Stdio::null());
        let output = command.output().expect("rvs can be started");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((output.status.code(), text(&output.stdout), text(&output.stderr)))
    }

    /// What a line that succeeds prints.
    fn prints(&self, line: &str) -> Result<String, LabError> {
        let (code, stdout, stderr) = self.run(line)?;
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{:?}: {line}", self.words);
        Ok(stdout)
    }
}

/// Writes by redirection, by `tee` and through an inherited descriptor; reads; the errnos of bad
/// values; the folder.
fn files_work(director: &Director, words: &[&str]) -> Result<(), LabError> {
    let shell = Shell { director, words };
    let setting = |name: &str| {
        let text = rvs_tests_netns::setting(director, name).expect("it can be read");
        text.split_once(" = ").expect("a setting").1.trim_end().to_owned()
    };
    for (line, value) in [
        (format!("echo 2 > {FOLDER}/conn_reuse_mode"), "2"),
        (format!("echo 3 | tee {FOLDER}/conn_reuse_mode >/dev/null"), "3"),
        (format!("exec 7> {FOLDER}/conn_reuse_mode; echo 0 >&7"), "0"),
        ("cd /proc/sys; echo 1 >> net/ipv4/vs/conn_reuse_mode".to_owned(), "1"),
    ] {
        assert_eq!(shell.prints(&line)?, "", "{line}");
        assert_eq!(setting("conn_reuse_mode"), value, "{line}");
        assert_eq!(shell.prints(&format!("cat {FOLDER}/conn_reuse_mode"))?, format!("{value}\n"));
    }
    for (name, value, why) in [
        ("secure_tcp", "4", "Invalid argument"),
        ("secure_tcp", "x", "Invalid argument"),
        ("sync_threshold", "4 50", "not supported"),
    ] {
        let before = setting(name);
        let (code, _, stderr) = shell.run(&format!("echo {value} | cat > {FOLDER}/{name}"))?;
        assert!(code != Some(0) && stderr.contains(why), "{name}: {code:?} {stderr}");
        assert_eq!(setting(name), before);
    }
    let (code, _, stderr) = shell.run("echo 1 > /proc/net/ip_vs")?;
    assert!(code != Some(0) && stderr.contains("ermission denied"), "{code:?} {stderr}");

    let names: Vec<String> =
        shell.prints(&format!("ls {FOLDER}"))?.lines().map(str::to_owned).collect();
    let ours: Vec<String> = rvs_core::sysctl::SETTINGS.map(|(name, _)| name.to_owned()).into();
    assert_eq!(names, ours);
    let long = shell.prints(&format!("ls -l {FOLDER}"))?;
    assert_eq!(long.lines().filter(|line| line.starts_with("-rw-r--r--")).count(), ours.len());
    let tests = format!(
        "test -d {FOLDER} && test -f {FOLDER}/conntrack && test -w {FOLDER}/conntrack && \
         test ! -e {FOLDER}/nosuch && test ! -x {FOLDER}/conntrack && test -r /proc/net/ip_vs && echo so"
    );
    assert_eq!(shell.prints(&tests)?, "so\n");
    let glob = shell.prints(&format!("cd /; echo {FOLDER}/lblc*"))?;
    assert_eq!(glob, format!("{FOLDER}/lblc_expiration {FOLDER}/lblcr_expiration\n"));
    let found = shell.prints(&format!("find {FOLDER} -name 'drop_*'"))?;
    assert!(found.contains("drop_entry") && found.contains("drop_packet"), "{found}");
    Ok(())
}

#[test]
fn programs_write_and_list_settings_as_with_the_kernel() -> Result<(), LabError> {
    need_lab!();
    let (Some(bash), Some(sysctl)) = (find_program("bash"), find_program("sysctl")) else {
        skip!("no bash or no sysctl");
    };
    let (bash, sysctl) = (bash.to_string_lossy(), sysctl.to_string_lossy());
    let lab = Topology::new().host("director", &["10.7.2.31/24"]).build()?;
    let director = Director::start(&lab.host("director"), &[])?;
    for how in [&["--"][..], &["--static", "--"]] {
        let with = |shell: &'static [&'static str]| [how, shell].concat();
        files_work(&director, &with(&["sh", "-c"]))?;
        files_work(&director, &[how, &[bash.as_ref(), "-c"]].concat())?;

        let words = with(&["sh", "-c"]);
        let shell = Shell { director: &director, words: &words };
        let name = "net.ipv4.vs.conn_reuse_mode";
        let said = shell.prints(&format!("{sysctl} -w {name}=2"))?;
        assert_eq!(said, format!("{name} = 2\n"));
        assert_eq!(shell.prints(&format!("{sysctl} -n {name}"))?, "2\n");
        let (code, _, stderr) = shell.run(&format!("{sysctl} -w net.ipv4.vs.drop_packet=7"))?;
        assert!(code != Some(0) && stderr.contains("Invalid argument"), "{code:?} {stderr}");
        let (code, _, stderr) = shell.run(&format!("{sysctl} -w net.ipv4.vs.nosuch=7"))?;
        assert!(code != Some(0) && stderr.contains("nosuch"), "{code:?} {stderr}");
    }
    Ok(())
}

#[test]
fn a_statically_linked_program_does_so_too() -> Result<(), LabError> {
    need_lab!();
    let Some(busybox) = find_program("busybox") else { skip!("no busybox") };
    let busybox = busybox.to_string_lossy();
    let lab = Topology::new().host("director", &["10.7.2.32/24"]).build()?;
    let director = Director::start(&lab.host("director"), &[])?;
    let words = ["--static", "--", busybox.as_ref(), "sh", "-c"];
    files_work(&director, &words)?;
    let shell = Shell { director: &director, words: &words };
    let said = shell.prints("sysctl -w net.ipv4.vs.conn_reuse_mode=2")?;
    assert_eq!(said, "net.ipv4.vs.conn_reuse_mode = 2\n");
    Ok(())
}

/// A program keeps the file open while rvsd is gone and comes back.
#[test]
fn a_restarted_rvsd_is_found_by_the_next_open() -> Result<(), LabError> {
    need_lab!();
    let lab = Topology::new().host("director", &["10.7.2.33/24"]).build()?;
    let director = Director::start(&lab.host("director"), &[])?;
    let mut command = director.rvs_command()?;
    let script = format!(
        "exec 7> {FOLDER}/sloppy_tcp; echo 1 >&7; echo first; read line; \
         echo 0 >&7 2>/dev/null || echo gone; echo 0 > {FOLDER}/sloppy_tcp && echo again"
    );
    command.args(["run", "--", "sh", "-c"]).arg(script);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    // What ends this early is a panic, which ends the program at the end of its input, too.
    #[expect(clippy::zombie_processes)]
    let mut child = command.spawn().expect("it starts");
    let mut stdout = std::io::BufReader::new(child.stdout.take().expect("a pipe"));
    let mut line = String::new();
    std::io::BufRead::read_line(&mut stdout, &mut line).expect("a line");
    assert_eq!(line, "first\n");
    director.process().kill();
    director.restart()?;
    drop(child.stdin.take());
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut stdout, &mut rest).expect("text");
    assert_eq!(rest, "gone\nagain\n");
    assert!(child.wait().expect("a child").success());
    Ok(())
}
