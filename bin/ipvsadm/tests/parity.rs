//! The real ipvsadm 1.31 and ours, asked for the same listings of the same director at the same
//! time: counters and rates of all sizes, which no recording has.

mod lab;
mod theirs;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lab::{Lab, Memory};
use rvs_director::Director;

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

/// Rules with addresses, ports and marks from all over: far apart ones compare by wrapped
/// differences, so that the order depends on how exactly is sorted.
fn scattered(seed: u64) -> String {
    let mut state = seed;
    let mut random = move || {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut addr = move |v6: bool| -> (IpAddr, u64) {
        let (high, low) = (random(), random());
        if v6 {
            let bits = u128::from(high) << 64 | u128::from(low);
            // Unicast.
            return (Ipv6Addr::from_bits(bits & !(0xff << 120) | 0x20 << 120).into(), low);
        }
        // 1.0.0.0 to 223.255.255.255
        (Ipv4Addr::from_bits(0x0100_0000 + (high % 0xdf00_0000) as u32).into(), low)
    };
    let mut rules = String::new();
    for number in 0..40_u64 {
        let v6 = number % 3 == 0;
        let (vip, more) = addr(v6);
        let service = match number % 5 {
            0 => format!("-f {}{}", more % 0xffff_ffff + 1, if v6 { " -6" } else { "" }),
            1 => format!("-u {}", SocketAddr::new(vip, (more % 65_535) as u16 + 1)),
            _ => format!("-t {}", SocketAddr::new(vip, (more % 65_535) as u16 + 1)),
        };
        rules += &format!("-A {service} -s rr\n");
        for _ in 0..more % 7 {
            let (server, more) = addr(v6);
            rules += &format!("-a {service} -r {} -m\n", SocketAddr::new(server, more as u16));
        }
    }
    rules
}

#[test]
fn scattered_tables_are_sorted_and_saved_alike() {
    let Some(rvs) = theirs::rvs() else {
        rvs_testkit::skip!("there is no {}, or no librvs_ipvs.so beside rvs", theirs::IPVSADM);
    };
    let lab = Lab::new("scattered", Memory::default());
    for seed in 1..40_u64 {
        let rules = scattered(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let (code, _, stderr) = lab.run(env!("CARGO_BIN_EXE_ipvsadm-restore"), &[], Some(&rules));
        assert_eq!((code, stderr.as_str()), (0, ""), "seed {seed}");
        for args in [&["-Ln"][..], &["-Ln", "--nosort"], &["-Sn"]] {
            let (code, mut ours, _) = lab.ipvsadm(args, None);
            if args == ["-Sn"] {
                // Theirs shows marks as signed numbers.
                let signed = |word: &str| match word.parse::<u32>() {
                    Ok(mark) => mark.cast_signed().to_string(),
                    Err(_) => word.to_owned(),
                };
                let line = |line: &str| line.split(' ').map(signed).collect::<Vec<_>>().join(" ");
                ours = ours.lines().map(|text| line(text) + "\n").collect();
            }
            assert_eq!(
                (code, ours, String::new()),
                theirs::run(&rvs, &lab, args, None),
                "seed {seed} {args:?}"
            );
        }
    }
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
    let Some(rvs) = theirs::rvs() else {
        rvs_testkit::skip!("there is no {}, or no librvs_ipvs.so beside rvs", theirs::IPVSADM);
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
            assert_eq!(ours, theirs::run(&rvs, &lab, &args, None), "round {round}: {form}");
            seen += &ours.1;
        }
    }
    // Every unit was there, so this compared what it was to compare.
    for unit in ["K ", "M ", "G ", "T "] {
        assert!(seen.contains(unit), "no {unit}");
    }
}
