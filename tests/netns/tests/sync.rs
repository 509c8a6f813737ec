//! Two directors, one of which tells the other of its connections: when the virtual address moves,
//! downloads that are under way go on.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use rvs_testkit::lab::{Director, Lab, LabError, Process, Topology, wait_until};
use rvs_testkit::need_lab;
use rvs_tests_netns::{at, nft, setting};

const CLIENT: [&str; 2] = ["192.168.122.70", "fd22::70"];
const DIRECTORS: [[&str; 2]; 2] = [["192.168.122.30", "fd22::30"], ["192.168.122.31", "fd22::31"]];
const SERVER: [&str; 2] = ["192.168.122.45", "fd22::45"];
const VIP: [&str; 2] = ["192.168.122.100", "fd22::100"];

/// Two directors with the same addresses to serve, a client and a server.
struct Pair {
    lab: Lab,
    directors: [Director; 2],
}

fn pair(sync: &str) -> Result<Pair, LabError> {
    let mut topology = Topology::new();
    let hosts = [("client", CLIENT), ("a", DIRECTORS[0]), ("b", DIRECTORS[1]), ("rs1", SERVER)];
    for (name, [v4, v6]) in hosts {
        topology = topology.host(name, &[&format!("{v4}/24"), &format!("{v6}/64")]);
    }
    let lab = topology.build()?;
    lab.host("rs1").serve_http(80)?;
    let directors = ["a", "b"].map(|name| Director::start_beside(&lab.host(name), &[]));
    let [a, b] = directors;
    let pair = Pair { lab, directors: [a?, b?] };
    for (director, role) in pair.directors.iter().zip(["master", "backup"]) {
        director
            .ipvsadm(&format!("--start-daemon {role} --mcast-interface eth0 --syncid 9 {sync}"))?;
    }
    Ok(pair)
}

impl Pair {
    /// A service for each family on both directors.
    fn serve(&self, forward: &str) -> Result<(), LabError> {
        for director in &self.directors {
            for (vip, server) in VIP.map(bracket).iter().zip(SERVER.map(bracket)) {
                director.ipvsadm(&format!("-A -t {vip}:80 -s rr"))?;
                director.ipvsadm(&format!("-a -t {vip}:80 -r {server}:80 {forward}"))?;
            }
        }
        Ok(())
    }

    /// Gives the virtual addresses to one of the directors, and the server's way back if that is
    /// through the director.
    fn move_to(&self, index: usize, masqueraded: bool) -> Result<(), LabError> {
        let names = ["a", "b"];
        for vip in VIP {
            let bits = if vip.contains(':') { "128 nodad" } else { "32" };
            let other = self.lab.host(names[1 - index]);
            let _ =
                other.run(&format!("ip addr del {vip}/{} dev eth0", bits.replace(" nodad", "")));
            self.lab.host(names[index]).ip(&format!("addr add {vip}/{bits} dev eth0"))?;
            let mac = self.mac(names[index])?;
            let client = self.lab.host("client");
            client.ip(&format!("neigh replace {vip} lladdr {mac} dev eth0"))?;
        }
        if masqueraded {
            for (client, director) in CLIENT.iter().zip(DIRECTORS[index]) {
                self.lab.host("rs1").ip(&format!("route replace {client} via {director}"))?;
            }
        }
        Ok(())
    }

    fn mac(&self, host: &str) -> Result<String, LabError> {
        let link = self.lab.host(host).ip("link show dev eth0")?;
        let after = link.split("link/ether ").nth(1).unwrap_or_default();
        Ok(after.split_whitespace().next().unwrap_or_default().to_owned())
    }

    /// Begins to fetch a file, slowly.
    fn fetch(&self, vip: &str, name: &str) -> Result<Process, LabError> {
        let client = self.lab.host("client");
        let mut curl = client.command("curl");
        let url = format!("http://{}/slow/big", bracket(vip));
        curl.args(["-sS", "--max-time", "90", "-o"]).arg(self.lab.dir().join(name)).arg(url);
        client.spawn(name, curl)
    }
}

fn bracket(addr: &str) -> String {
    if addr.contains(':') { format!("[{addr}]") } else { addr.to_owned() }
}

/// What `ipvsadm -Lnc` lists, without the time.
fn conns(director: &Director) -> Result<Vec<String>, LabError> {
    let listing = director.ipvsadm("-Lnc")?;
    let mut rows: Vec<String> = listing
        .lines()
        .skip(2)
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let timeless = words.iter().enumerate().filter(|(at, _)| *at != 1);
            timeless.map(|(_, word)| *word).collect::<Vec<_>>().join(" ")
        })
        .collect();
    rows.sort();
    Ok(rows)
}

/// Downloads begin through the first director and end through the second.
fn downloads_survive(forward: &str, sync: &str) -> Result<(), LabError> {
    let masqueraded = forward == "-m";
    let pair = pair(sync)?;
    let (lab, [master, backup]) = (&pair.lab, &pair.directors);
    let file = lab.web_file("big", 32_000_000)?;
    if !masqueraded {
        for (vip, bits) in VIP.iter().zip(["32", "128 nodad"]) {
            lab.host("rs1").ip(&format!("addr add {vip}/{bits} dev lo"))?;
        }
        for setting in ["arp_ignore", "arp_announce"] {
            let value = if setting == "arp_ignore" { "1" } else { "2" };
            lab.host("rs1").sysctl(&format!("net.ipv4.conf.all.{setting}"), value)?;
        }
    }
    pair.serve(forward)?;
    pair.move_to(0, masqueraded)?;
    let fetches = [pair.fetch(VIP[0], "got4")?, pair.fetch(VIP[1], "got6")?];
    wait_until("downloads under way", Duration::from_secs(30), || {
        let len = |name| std::fs::metadata(lab.dir().join(name)).map_or(0, |meta| meta.len());
        Ok(["got4", "got6"].into_iter().all(|name| len(name) > 1_000_000))
    })?;
    wait_until("the backup to know both", Duration::from_secs(10), || {
        let (ours, theirs) = (conns(master)?, conns(backup)?);
        Ok(ours.len() == 2 && ours == theirs)
    })?;
    let active = |director: &Director| -> Result<Vec<(u32, u32)>, LabError> {
        Ok(director.dests()?.iter().map(|dest| (dest.active, dest.inactive)).collect())
    };
    assert_eq!(active(backup)?, [(1, 0), (1, 0)]);
    // The master is gone, and with it all it could have told.
    master.process().kill();
    lab.host("a").ip("link set eth0 down")?;
    pair.move_to(1, masqueraded)?;
    let len = |name| std::fs::metadata(lab.dir().join(name)).map_or(0, |meta| meta.len());
    assert!(len("got4") < 30_000_000 && len("got6") < 30_000_000, "too late to tell");
    for (fetch, name) in fetches.iter().zip(["got4", "got6"]) {
        assert_eq!(fetch.wait(Duration::from_secs(90))?.code(), Some(0), "{}", fetch.log());
        let got = lab.dir().join(name);
        lab.host("client").run(&format!("cmp {} {}", got.display(), file.display()))?;
    }
    let synced = backup.rvs_command()?.args(["proc", "ip_vs_conn_sync"]).output();
    let synced = String::from_utf8_lossy(&synced.expect("rvs runs").stdout).into_owned();
    assert_eq!(synced.lines().filter(|line| line.contains(" SYNC ")).count(), 2, "{synced}");
    Ok(())
}

#[test]
fn masqueraded_downloads_go_on_when_the_address_moves() -> Result<(), LabError> {
    need_lab!();
    downloads_survive("-m", "")
}

#[test]
fn directly_routed_downloads_go_on_told_of_by_an_ipv6_group() -> Result<(), LabError> {
    need_lab!();
    downloads_survive("-g", "--mcast-group ff02::81 --mcast-port 9000 --sync-maxlen 100")
}

/// Two ends of a connection of which the client's packets have a port of their own.
enum Ends {
    Tcp([TcpStream; 2]),
    Udp { client: UdpSocket, server: UdpSocket, seen: SocketAddr },
}

impl Ends {
    const PATIENCE: Option<Duration> = Some(Duration::from_secs(8));

    /// Connects to a service of port 81, whose server listens there on its own.
    fn open(lab: &Lab, vip: &str, protocol: &str, port: u16) -> Result<Self, LabError> {
        let (client, server) = (lab.host("client"), lab.host("rs1"));
        let to: SocketAddr = at(vip, port).parse().expect("an address");
        let ends = if protocol == "-t" {
            let listener =
                server.enter(|| TcpListener::bind(("::", port)).expect("a free port"))?;
            let client = client.enter(|| TcpStream::connect(to).expect("an answer"))?;
            let (server, _) = listener.accept().expect("a client");
            for stream in [&client, &server] {
                stream.set_read_timeout(Self::PATIENCE).expect("a time");
            }
            Self::Tcp([client, server])
        } else {
            let server = server.enter(|| UdpSocket::bind(("::", port)).expect("a free port"))?;
            let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let client = client.enter(|| {
                let socket = UdpSocket::bind(any).expect("a port");
                socket.connect(to).expect("a route");
                socket
            })?;
            for socket in [&client, &server] {
                socket.set_read_timeout(Self::PATIENCE).expect("a time");
            }
            client.send(b"hello").expect("it can be sent");
            let (_, seen) = server.recv_from(&mut [0; 8]).expect("it arrives");
            Self::Udp { client, server, seen }
        };
        let mut ends = ends;
        ends.say(true);
        ends.say(false);
        Ok(ends)
    }

    /// The client's port.
    fn port(&self) -> u16 {
        let addr = match self {
            Self::Tcp([client, _]) => client.local_addr(),
            Self::Udp { client, .. } => client.local_addr(),
        };
        addr.expect("it is bound").port()
    }

    /// Has the client or the server say something, which the other hears.
    fn say(&mut self, server_speaks: bool) {
        const WORDS: &[u8] = b"words";
        let mut heard = [0; WORDS.len()];
        match self {
            Self::Tcp([client, server]) => {
                let (from, to) = if server_speaks { (server, client) } else { (client, server) };
                from.write_all(WORDS).expect("a connection");
                to.read_exact(&mut heard).expect("it arrives");
            }
            Self::Udp { client, server, seen } => {
                let sent =
                    if server_speaks { server.send_to(WORDS, *seen) } else { client.send(WORDS) };
                sent.expect("it can be sent");
                let to = if server_speaks { client } else { server };
                to.recv(&mut heard).expect("it arrives");
            }
        }
        assert_eq!(heard, WORDS);
    }
}

/// Netfilter learns of a connection by the first packet of its client that the new director sees; what the
/// server says before is translated all the same, and counted once.
#[test]
fn tracked_connections_go_on_whoever_speaks_first() -> Result<(), LabError> {
    need_lab!("conntrack", "nft");
    let pair = pair("")?;
    let (lab, [master, backup]) = (&pair.lab, &pair.directors);
    for director in [master, backup] {
        setting(director, "conntrack=1").expect("it can be set");
    }
    // Who forwards between hosts of one segment would tell them so.
    for name in ["a", "b"] {
        lab.host(name).sysctls(&[
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv6.conf.all.forwarding", "1"),
            ("net.ipv4.conf.all.send_redirects", "0"),
            ("net.ipv4.conf.eth0.send_redirects", "0"),
        ])?;
    }
    for name in ["client", "rs1"] {
        lab.host(name).sysctl("net.ipv6.conf.eth0.accept_redirects", "0")?;
    }
    // What has the server's own address is lost at the client.
    let leaks = "table inet leaks { chain pre { type filter hook prerouting priority raw;
        ip saddr 192.168.122.45 counter drop
        ip6 saddr fd22::45 meta l4proto { tcp, udp } counter drop
    }\n}";
    nft(&lab.host("client"), leaks)?;
    pair.move_to(0, true)?;
    let mut ends = Vec::new();
    for (family, vip) in VIP.into_iter().enumerate() {
        for protocol in ["-t", "-u"] {
            for server_first in [true, false] {
                let port = 81 + ends.len() as u16;
                let service = format!("{protocol} {}", at(vip, port));
                for director in [master, backup] {
                    director.ipvsadm(&format!("-A {service} -s rr"))?;
                    let server = at(SERVER[family], port);
                    director.ipvsadm(&format!("-a {service} -r {server} -m"))?;
                }
                let opened = Ends::open(lab, vip, protocol, port)?;
                ends.push((family, protocol, server_first, service, opened));
            }
        }
    }
    wait_until("the backup to know all", Duration::from_secs(10), || {
        Ok(conns(backup)?.len() == ends.len())
    })?;
    master.process().kill();
    lab.host("a").ip("link set eth0 down")?;
    pair.move_to(1, true)?;
    for (family, protocol, server_first, service, mut ends) in ends {
        let name = if protocol == "-t" { "tcp" } else { "udp" };
        let words = format!("-f {} -p {name}", ["ipv4", "ipv6"][family]);
        let known = format!("conntrack -L {words} --orig-port-src {}", ends.port());
        let known = || lab.host("b").run(&known);
        assert_eq!(known()?, "", "{service}");
        ends.say(server_first);
        if server_first && protocol == "-u" {
            let known = lab.host("b").run("conntrack -L -p udp")?;
            assert!(!known.contains(&format!("dport={}", ends.port())), "{service}: {known}");
        }
        ends.say(!server_first);
        ends.say(server_first);
        let known = known()?;
        assert_eq!(known.lines().count(), 1, "{service}: {known}");
        assert!(known.contains(&format!("src={} ", SERVER[family])), "{service}: {known}");
        assert!(!known.contains("UNREPLIED"), "{service}: {known}");
        if protocol == "-u" {
            let stats = backup.ipvsadm(&format!("-Ln {service} --stats --exact"))?;
            let line = stats.lines().nth(3).expect("the service");
            let words: Vec<&str> = line.split_whitespace().collect();
            let counted = if server_first { ["1", "2"] } else { ["2", "1"] };
            assert_eq!(words.get(3..5), Some(&counted[..]), "{stats}");
        }
    }
    let leaks = lab.host("client").run("nft list table inet leaks")?;
    assert_eq!(leaks.matches("counter packets 0 ").count(), 2, "{leaks}");
    Ok(())
}

#[test]
fn daemons_come_back_with_rvsd_and_stop_when_told() -> Result<(), LabError> {
    need_lab!();
    let pair = pair("--mcast-ttl 3")?;
    let [master, backup] = &pair.directors;
    let listed = |role: &str| {
        format!(
            "{role} sync daemon (mcast=eth0, syncid=9, maxlen=1472, group=224.0.0.81, port=8848, \
             ttl=3)\n"
        )
    };
    for (director, role) in [(master, "master"), (backup, "backup")] {
        assert_eq!(director.ipvsadm("-L --daemon")?, listed(role));
        director.process().kill();
        director.restart()?;
        assert_eq!(director.ipvsadm("-L --daemon")?, listed(role));
    }
    // The restarted ones still talk.
    pair.serve("-m")?;
    pair.move_to(0, true)?;
    let fetched = pair.lab.host("client").run(&format!("curl -sS http://{}/", VIP[0]))?;
    assert!(fetched.starts_with("rs1"), "{fetched}");
    wait_until("the backup to know", Duration::from_secs(10), || Ok(conns(backup)?.len() == 1))?;
    backup.ipvsadm("--stop-daemon backup")?;
    assert_eq!(backup.ipvsadm("-L --daemon")?, "");
    pair.lab.host("client").run(&format!("curl -sS http://{}/", VIP[0]))?;
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(conns(backup)?.len(), 1, "it takes no more");
    Ok(())
}

#[test]
fn a_flood_of_messages_and_of_noise_leaves_the_backup_at_work() -> Result<(), LabError> {
    need_lab!();
    let pair = pair("")?;
    let backup = &pair.directors[1];
    pair.serve("-m")?;
    let memory = || backup.process().memory("RssAnon");
    let before = memory();
    let sent = pair.lab.host("client").enter(|| {
        let socket = UdpSocket::bind("192.168.122.70:0").expect("a port");
        let mut noise = 0x2545_f491u32;
        let mut sent = 0u32;
        for number in 0..200_000u32 {
            let mut message = vec![0, 9, 0, 44, 1, 1, 0, 0, 0, 6, 0, 36];
            message.extend([0; 4]);
            message.extend([0, 1]);
            message.extend([(number >> 8) as u8, number as u8, 0, 80, 0, 80]);
            message.extend([0; 6]);
            message.extend([3, 0x84]);
            message.extend([10, (number >> 16) as u8, 0, 1, 192, 168, 122, 100, 192, 168, 122, 45]);
            if number % 3 == 0 {
                for byte in message.iter_mut().skip(8) {
                    noise ^= noise << 13;
                    noise ^= noise >> 17;
                    noise ^= noise << 5;
                    *byte ^= noise as u8;
                }
            }
            sent += u32::from(socket.send_to(&message, "224.0.0.81:8848").is_ok());
        }
        sent
    })?;
    assert!(sent > 100_000, "{sent}");
    // It still serves, within its bounds.
    backup.ipvsadm("-Ln")?;
    let after = memory();
    assert!(after < before + 16 * 1024, "{before} KiB, then {after} KiB");
    let row = backup.dests()?.into_iter().find(|dest| dest.address.is_ipv4());
    let row = row.expect("a destination");
    assert!(row.active > 10_000, "{row:?}");
    Ok(())
}
