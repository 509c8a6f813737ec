//! The real ipvsadm 1.31 and ours, asked for the same listings of the same director at the same
//! time: counters and rates of all sizes, which no recording has.

mod lab;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lab::{Ended, Lab, Memory};
use rvs_director::Director;

/// Debian's.
const THEIRS: &str = "/usr/sbin/ipvsadm";

const RULES: &str = "-A -t 10.0.0.1:80 -s wrr -p 300 -M 255.255.255.0\n\
                     -a -t 10.0.0.1:80 -r 10.0.0.2:8080 -m -w 3 -x 9 -y 4\n\
                     -a -t 10.0.0.1:80 -r 10.0.0.3 -g -w 2147483647 -x 2147483647\n\
                     -a -t 10.0.0.1:80 -r 10.0.0.4 -i\n\
                     -a -t 10.0.0.1:80 -r [fd00::4]:80 -i\n\
                     -A -t 192.168.100.200:65535 -s lc\n\
                     -a -t 192.168.100.200:65535 -r 192.168.100.201:65535 -m\n\
                     -A -u [2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff]:53 -s sh -b sh-port,sh-fallback\n\
                     -a -u [2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff]:53 -r [fd00::2]:53 -g\n\
                     -a -u [2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff]:53 -r [fd00::3]:53 -i -w 0\n\
                     -A --sctp-service 10.0.0.1:80 -s rr\n\
                     -a --sctp-service 10.0.0.1:80 -r 10.0.0.5:80 -m\n\
                     -A -f 7 -s wlc -p 5\n\
                     -a -f 7 -r 10.0.0.6:0 -g\n\
                     -a -f 7 -r 10.0.0.6:99 -m\n\
                     -A -f 4294967295 -6 -s rr\n";

/// `rvs` and the library that it preloads, where unmodified programs can be run.
fn rvs() -> Option<PathBuf> {
    let rvs = rvs_testkit::lab::binary("rvs").ok()?;
    (rvs.with_file_name("librvs_ipvs.so").exists() && Path::new(THEIRS).exists()).then_some(rvs)
}

fn theirs(rvs: &Path, lab: &Lab, args: &[&str]) -> Ended {
    let output = Command::new(rvs)
        .args(["run", "--", THEIRS])
        .args(args)
        .env("RVS_SOCKET", lab.socket())
        .output()
        .expect("rvs");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

/// A director with traffic: each client that comes while `counts` finds more of it.
fn busy(counts: Arc<AtomicBool>) -> Lab {
    let director = Director::new(Memory::with_conns(300));
    let lab = Lab::start("parity", director, move |director| {
        if counts.load(Ordering::SeqCst) {
            director.datapath_mut().count();
            director.tick();
        }
    });
    let (code, _, stderr) = lab.ipvsadm(&["-R"], Some(RULES));
    assert_eq!((code, stderr.as_str()), (0, ""));
    lab
}

#[test]
fn listings_of_a_busy_director_are_the_same_byte_for_byte() {
    let Some(rvs) = rvs() else {
        rvs_testkit::skip!("there is no {THEIRS}, or no librvs_ipvs.so beside rvs");
    };
    let counts = Arc::new(AtomicBool::new(true));
    let lab = busy(counts.clone());
    let mut seen = String::new();
    for round in 0..20 {
        // Some traffic, then silence in which both are asked.
        counts.store(true, Ordering::SeqCst);
        lab.ipvsadm(&["-L", "--timeout"], None);
        counts.store(false, Ordering::SeqCst);
        for form in [
            "-Ln",
            "-Ln --stats",
            "-Ln --stats --exact",
            "-Ln --rate",
            "-Ln --rate --exact",
            "-Ln --thresholds",
            "-Ln --persistent-conn",
            "-Ln --tun-info",
            "-Ln -t 10.0.0.1:80 --stats",
            "-Ln -f 7 --rate",
            "-Ln -f 4294967295 -6",
            "-Lnc",
            "-Ln --timeout",
        ] {
            let args: Vec<&str> = form.split(' ').collect();
            let ours = lab.ipvsadm(&args, None);
            assert_eq!(ours, theirs(&rvs, &lab, &args), "round {round}: {form}");
            seen += &ours.1;
        }
    }
    // Every unit was there, so this compared what it was to compare.
    for unit in ["K ", "M ", "G ", "T "] {
        assert!(seen.contains(unit), "no {unit}");
    }
}
