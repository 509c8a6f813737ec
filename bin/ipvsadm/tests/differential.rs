//! Random command lines to the real ipvsadm 1.31 and to ours, each before a director of its own:
//! the exit codes, what they print and what becomes of the tables are the same.

mod lab;
mod theirs;

use lab::{Lab, Memory};

/// xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }

    fn of<'w>(&mut self, words: &[&'w str]) -> &'w str {
        words[self.below(words.len())]
    }
}

#[rustfmt::skip]
const COMMANDS: &[&str] = &[
    "-A", "-A", "-A", "-E", "-D", "-a", "-a", "-a", "-a", "-e", "-e", "-d", "-L", "-Ln", "-ln",
    "-Lnc", "-S", "-Sn", "-Z", "-C", "--set", "--add-service", "--edit-server", "--list",
    "--zero", "-Q", "-AD",
];

#[rustfmt::skip]
const SERVICES: &[&str] = &[
    "-t 10.0.0.1:80", "-t 10.0.0.1:80", "-t 10.0.0.1:80", "-u 10.0.0.1:53", "-u 10.0.0.1:53",
    "-f 7", "-f 7", "-f 7 -6", "-t [fd00::1]:80", "-t [fd00::1]:80", "--tcp-service 10.0.0.1:80",
    "--udp-service=10.0.0.1:53", "-t10.0.0.1:80", "--sctp-service 10.0.0.1:80", "-t 10.0.0.1",
    "-t 10.0.0.1:0", "-u 0:9", "-f 0", "-f 4294967295", "-t 10.0.0.1:99999", "-t 10.0.0:80",
    "-t fd00::1", "-t 300.0.0.1:80", "-t =10.0.0.1:80", "-6 -f 7", "-u [fd00::1]53", "-t 1:2:3",
];

#[rustfmt::skip]
const OPTIONS: &[&str] = &[
    "-s rr", "-s wrr", "-s sh", "-swlc", "--scheduler=lc", "-s bogus", "-s", "-p", "-p 60", "-p0",
    "--persistent", "--persistent=7", "-p x", "-p -s rr", "-M 255.255.255.0", "-M 24", "-M 64",
    "-M 129", "-M x", "-b sh-port", "-b sh-fallback,sh-port", "-b flag-1", "-b x", "-o",
    "--ops", "--pe sip", "--pe bogus", "-r 10.1.0.1:80", "-r 10.1.0.1", "-r 10.1.0.2:8080",
    "-r 10.1.0.3:0", "-r [fd01::1]:80", "-r fd01::2", "-r 224.0.0.1:80", "-r 0.0.0.0:1",
    "-r x:1:2", "-r 10.1.0.1:", "--real-server 10.1.0.1:80", "-g", "-i", "-m", "--masquerading",
    "--ipip", "-w 0", "-w 5", "-w 65536", "-w -1", "-w 2147483648", "-w x", "-w5", "--weight=7",
    "-x 10", "-x -1", "-y 5", "-y 20", "-x10 -y5", "--tun-type ipip", "--tun-type gue",
    "--tun-type gre", "--tun-type x", "--tun-port 6080", "--tun-port 0", "--tun-port x",
    "--tun-nocsum", "--tun-csum", "--tun-remcsum", "-n", "-n", "--numeric", "-c", "--stats",
    "--rate", "--exact", "--thresholds", "--persistent-conn", "--tun-info", "--timeout",
    "--daemon", "--nosort", "--sort", "--syncid 5", "--syncid 256", "--mcast-interface lo",
    "--mcast-group 224.0.0.9", "--mcast-port 5", "--mcast-ttl 3", "--sync-maxlen 9", "1 2 3", "1",
    "extra", "0 0 0", "-h", "-A", "-nc", "--bogus", "-z", "--stats=1", "--", "-",
];

fn line(random: &mut Random) -> Vec<&'static str> {
    let mut words = vec![random.of(COMMANDS)];
    let common = random.below(10) > 0;
    if common && words[0].to_lowercase().starts_with("-l") && random.below(3) > 0 {
        // Most listings are of all services.
    } else if common && !["-C", "-S", "-Sn", "--set"].contains(&words[0]) {
        words.extend(random.of(SERVICES).split(' '));
    }
    // Often what the command is made for, so that tables fill.
    if ["-a", "-e", "-d", "--edit-server"].contains(&words[0]) && random.below(8) > 0 {
        let servers = &OPTIONS[28..32];
        words.extend(random.of(servers).split(' '));
        words.push(random.of(&["-m", "-m", "-i", "-g"]));
    }
    for _ in 0..random.below(3) {
        // Mostly after the service.
        let option = random.of(OPTIONS).split(' ');
        let at = if random.below(8) == 0 { 1 } else { words.len() };
        words.splice(at..at, option);
    }
    words
}

/// Whether ours does otherwise on purpose (`docs/ipvsadm-differences.md`).
fn is_different(words: &[&str]) -> bool {
    let save = words.iter().any(|word| word.starts_with("-S"));
    // A mask before an IPv6 service.
    let ipv6 = |word: &&str| word.contains("fd00") || *word == "-6";
    let mask = words.iter().position(|word| *word == "-M");
    if mask.is_some_and(|at| words.iter().skip(at).any(ipv6)) {
        return true;
    }
    // Help and version; names of hosts.
    words.contains(&"-h")
        || words.contains(&"--help")
        || save && !words.iter().any(|w| w.contains('n'))
}

/// Saved rules without what 1.31 forgets.
fn forgetful(text: &str) -> String {
    let mut left = String::new();
    for line in text.lines() {
        let mut words = line.split(' ');
        let mut kept = Vec::new();
        while let Some(word) = words.next() {
            match word {
                "-x" | "-y" => drop(words.next()),
                "4294967295" => kept.push("-1"),
                _ => kept.push(word),
            }
        }
        left += &(kept.join(" ") + "\n");
    }
    left
}

#[test]
fn random_command_lines_do_the_same() {
    let Some(rvs) = theirs::rvs() else {
        rvs_testkit::skip!("there is no {}, or no librvs_ipvs.so beside rvs", theirs::IPVSADM);
    };
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let (seed, lines) = (number("RVS_SEED").unwrap_or(1), number("RVS_LINES").unwrap_or(400));
    println!("RVS_SEED={seed} RVS_LINES={lines}");
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let our_lab = Lab::new("differential-ours", Memory::default());
    let their_lab = Lab::new("differential-theirs", Memory::default());
    let (mut done, mut failures) = (0, Vec::new());
    for number in 0..lines {
        // Every now and then lines to restore.
        let restore = number % 8 == 0;
        let count = if restore { 1 + random.below(6) } else { 1 };
        let mut rules = Vec::new();
        while rules.len() < count {
            rules.push(line(&mut random));
        }
        if rules.iter().any(|words| is_different(words)) {
            continue;
        }
        let text: String = rules.iter().map(|words| words.join(" ") + "\n").collect();
        let (args, stdin) =
            if restore { (vec!["-R"], Some(text.as_str())) } else { (rules.remove(0), None) };
        let ours = our_lab.ipvsadm(&args, stdin);
        let theirs = theirs::run(&rvs, &their_lab, &args, stdin);
        let shown = |stdout: &str| {
            if text.contains("-S") { forgetful(stdout) } else { stdout.to_owned() }
        };
        done += u64::from(ours.0 == 0);
        // Theirs ends a restore with the status of its last line.
        let code = if restore && ours.2.ends_with("refused\n") { theirs.0 } else { ours.0 };
        if (code, shown(&ours.1)) != (theirs.0, shown(&theirs.1)) {
            failures.push(format!("{text}  {restore} ours {ours:?}\n  theirs {theirs:?}"));
        }
        let tables = [&our_lab, &their_lab].map(|lab| lab.ipvsadm(&["-Sn"], None).1);
        if tables[0] != tables[1] {
            failures.push(format!("{text}: {restore} {tables:#?}"));
            break;
        }
    }
    assert!(failures.is_empty(), "{} differ:\n{}", failures.len(), failures.join("\n"));
    assert!(done > lines / 20, "only {done} of {lines} did something");
}
