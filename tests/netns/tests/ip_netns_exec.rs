//! `ip netns exec`, by which most people enter a namespace, hides the BPF file system from what it
//! starts. rvsd keeps its pins where the rest of the machine has them all the same.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use rvs_testkit::lab::{Lab, LabError, Process, Topology, binary, wait_until};
use rvs_testkit::need_lab;

/// A program in the director's namespace, entered by ip(8).
fn exec(lab: &Lab, program: &str) -> Result<Command, LabError> {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &lab.host("director").namespace()]).arg(binary(program)?);
    command.env("RVS_SOCKET", socket(lab)).env("NO_COLOR", "1").stdin(Stdio::null());
    Ok(command)
}

fn socket(lab: &Lab) -> PathBuf {
    lab.dir().join("exec.sock")
}

fn run(lab: &Lab, program: &str, words: &str) -> Result<String, LabError> {
    let output = exec(lab, program)?.args(words.split(' ')).output().expect("ip(8) of iproute2");
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {words}: {stderr}");
    Ok(stdout.into_owned())
}

fn start(lab: &Lab, pin: &str, starts: usize) -> Result<Process, LabError> {
    let mut command = exec(lab, "rvsd")?;
    command.arg("--socket").arg(socket(lab)).args(["--pin", pin]);
    let process = lab.host("director").spawn("exec-rvsd", command)?;
    process.wait_for_line("rvsd: ready", starts, Duration::from_secs(20))?;
    Ok(process)
}

#[test]
fn rvsd_started_by_ip_netns_exec_leaves_a_data_path_that_the_next_one_adopts()
-> Result<(), LabError> {
    need_lab!();
    let lab = Topology::new()
        .host("client", &["10.0.0.70/24"])
        .host("director", &["10.0.0.30/24"])
        .host("rs1", &["10.0.0.45/24"])
        .build()?;
    lab.host("rs1").ip("route add 10.0.0.70 via 10.0.0.30")?;
    lab.host("rs1").serve_http(80)?;
    let pin = format!("/sys/fs/bpf/{}", lab.name());
    let answer = || lab.host("client").run("curl -sS --max-time 10 http://10.0.0.30/");

    let rvsd = start(&lab, &pin, 1)?;
    run(&lab, "ipvsadm", "-A -t 10.0.0.30:80 -s rr")?;
    run(&lab, "ipvsadm", "-a -t 10.0.0.30:80 -r 10.0.0.45:80 -m")?;
    assert_eq!(answer()?, "rs1\n");
    // `ip netns exec` has become rvsd, and its mount namespace ends with it.
    rvsd.kill();
    assert_eq!(answer()?, "rs1\n", "without rvsd");
    let rvsd = start(&lab, &pin, 2)?;
    let listing = run(&lab, "ipvsadm", "-Ln --stats")?;
    let row = listing.lines().find(|line| line.contains("-> 10.0.0.45:80")).unwrap_or_default();
    assert_eq!(row.split_whitespace().nth(2), Some("2"), "{listing}");
    assert_eq!(answer()?, "rs1\n", "after the restart");
    // An interface that comes later is attached to without the capabilities of the start.
    lab.host("director").ip("link add late type veth peer name etal")?;
    lab.host("director").ip("link set late up")?;
    wait_until("rvsd to attach to a later interface", Duration::from_secs(10), || {
        Ok(run(&lab, "rvs", &format!("status --pin {pin}"))?.contains("attached:     late"))
    })?;
    rvsd.terminate(Duration::from_secs(10))?;
    run(&lab, "rvs", &format!("down --pin {pin}"))?;
    assert!(!std::path::Path::new(&pin).exists(), "{pin} is still there");
    Ok(())
}
