//! A large table through the real rvsd: 10,000 services with 10 destinations each are restored,
//! listed and saved in seconds.

use std::fmt::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rvs_testkit::lab::{Director, LabError, Topology};
use rvs_testkit::need_lab;

const SERVICES: usize = 10_000;
const DESTS: usize = 10;

/// `servers` real servers share the services.
fn rules(servers: usize) -> String {
    let mut text = String::new();
    for service in 0..SERVICES {
        let vip = format!("10.8.{}.{}:80", service / 250, service % 250 + 1);
        writeln!(text, "-A -t {vip} -s wlc").expect("memory takes everything");
        for dest in 0..DESTS {
            let server = (service * DESTS + dest) % servers;
            let (a, b, c) = (server / 62_500, server / 250 % 250, server % 250 + 1);
            writeln!(text, "-a -t {vip} -r 10.{}.{b}.{c}:80 -m -w 1", a + 1)
                .expect("memory takes everything");
        }
    }
    text
}

/// Runs `ipvsadm`; its output and how long it took.
fn timed(director: &Director, arg: &str, stdin: Stdio) -> Result<(String, Duration), LabError> {
    let start = Instant::now();
    let output = director.ipvsadm_command()?.arg(arg).stdin(stdin).output().expect("ipvsadm");
    let took = start.elapsed();
    assert!(output.status.success(), "{arg}: {}", String::from_utf8_lossy(&output.stderr));
    Ok((String::from_utf8_lossy(&output.stdout).into_owned(), took))
}

fn restore(servers: usize) -> Result<(), LabError> {
    let lab =
        Topology::new().host("director", &["10.0.0.1/8"]).host("rs", &["10.0.0.2/8"]).build()?;
    let director = Director::start(&lab.host("director"), &["--mode", "tc"])?;
    let rules = rules(servers);
    let path = std::env::temp_dir().join(format!("rvs-rules-{}-{servers}", std::process::id()));
    std::fs::write(&path, &rules).expect("a temporary file");
    let file = std::fs::File::open(&path).expect("the file");
    let (_, restoring) = timed(&director, "-R", file.into())?;
    let _ = std::fs::remove_file(&path);
    let (listing, listing_took) = timed(&director, "-Ln", Stdio::null())?;
    let (saved, saving) = timed(&director, "-Sn", Stdio::null())?;
    let (_, again) = timed(&director, "-Ln", Stdio::null())?;
    let (_, clearing) = timed(&director, "-C", Stdio::null())?;
    println!(
        "{servers} servers: restored in {restoring:.2?}, listed in {listing_took:.2?} and \
         {again:.2?}, saved in {saving:.2?}, cleared in {clearing:.2?}"
    );
    assert_eq!(listing.lines().count(), 3 + SERVICES * (1 + DESTS));
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert!(sorted(&saved) == sorted(&rules), "what is saved is not what was restored");
    // Bounds for a busy machine; docs/ipvsadm-speed.md has what was measured on an idle one.
    assert!(restoring < Duration::from_secs(60), "restoring took {restoring:?}");
    assert!(listing_took < Duration::from_secs(10), "listing took {listing_took:?}");
    Ok(())
}

#[test]
fn a_hundred_thousand_destinations_on_a_thousand_servers_are_restored_in_seconds()
-> Result<(), LabError> {
    need_lab!();
    restore(1_000)
}

#[test]
fn a_hundred_thousand_servers_are_restored_in_seconds() -> Result<(), LabError> {
    need_lab!();
    restore(SERVICES * DESTS)
}
