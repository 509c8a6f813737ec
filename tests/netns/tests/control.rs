//! The control socket of the real rvsd: reasons reach the user, a refusal changes nothing, and
//! clients do not wait for one another.

use std::process::Stdio;

use rvs_testkit::lab::{Director, Lab, LabError, Topology};
use rvs_testkit::need_lab;

fn lab() -> Result<Lab, LabError> {
    Topology::new().host("director", &["10.0.0.1/24"]).host("rs", &["10.0.0.2/24"]).build()
}

/// Exit code and stderr.
fn told(director: &Director, words: &str) -> Result<(Option<i32>, String), LabError> {
    let output = director.try_ipvsadm(words)?;
    Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).trim_end().to_owned()))
}

#[test]
fn what_the_data_path_refuses_is_told_with_its_reason_and_changes_nothing() -> Result<(), LabError>
{
    need_lab!();
    let lab = lab()?;
    let sizes = ["--mode", "tc", "--services", "2", "--destinations", "3"];
    let director = Director::start(&lab.host("director"), &sizes)?;
    let mut refusal = None;
    for port in 1..20 {
        let (code, stderr) = told(&director, &format!("-A -t 10.0.0.1:{port} -s rr"))?;
        if code != Some(0) {
            refusal = Some((code, stderr));
            break;
        }
    }
    let full = "Memory allocation problem: the service table is full";
    assert_eq!(refusal, Some((Some(255), full.into())));
    let before = director.ipvsadm("-Sn")?;
    let mut refusal = None;
    for host in 2..20 {
        let (code, stderr) = told(&director, &format!("-a -t 10.0.0.1:1 -r 10.0.0.{host}:80 -m"))?;
        if code != Some(0) {
            refusal = Some((code, stderr));
            break;
        }
    }
    let (code, stderr) = refusal.expect("the table has an end");
    assert_eq!(code, Some(255));
    assert!(stderr.starts_with("Memory allocation problem: the destination"), "{stderr}");
    let after = director.ipvsadm("-Sn")?;
    let services = |rules: &str| rules.lines().filter(|rule| rule.starts_with("-A")).count();
    assert_eq!(services(&before), services(&after));
    // Room is found again.
    director.ipvsadm("-C")?;
    director.ipvsadm("-A -t 10.0.0.1:80 -s rr")?;
    director.ipvsadm("-a -t 10.0.0.1:80 -r 10.0.0.2:80 -m")?;
    Ok(())
}

#[test]
fn a_client_that_says_nothing_keeps_nobody_waiting() -> Result<(), LabError> {
    need_lab!();
    let lab = lab()?;
    let director = Director::start(&lab.host("director"), &["--mode", "tc"])?;
    // Restores whose input does not come: connected, or about to.
    let mut idle = Vec::new();
    for _ in 0..10 {
        let mut command = director.ipvsadm_command()?;
        let child =
            command.arg("-R").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("ipvsadm");
        idle.push(child);
    }
    for child in &mut idle {
        use std::io::Write;
        let stdin = child.stdin.as_mut().expect("a pipe");
        stdin.write_all(b"-L --timeout\n").expect("a reader");
    }
    assert_eq!(director.ipvsadm("-L --timeout")?, "Timeout (tcp tcpfin udp): 900 120 300\n");
    for mut child in idle {
        drop(child.stdin.take());
        assert!(child.wait().expect("a child").success());
    }
    Ok(())
}
