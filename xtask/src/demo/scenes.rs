//! The scenes of the demo, each with the counts that it must show.
//!
//! Each has a service of its own. As with the kernel's IPVS, a destination that comes back to a
//! service brings along the connections that it still has, and the counts would not start at 0.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rvs_testkit::lab::DestRow;

use super::stage::{Shown, Stage};

/// The size of the file `/big`.
pub const BIG: usize = 12_000_000;

/// The addresses of a family.
pub struct Family {
    name: &'static str,
    /// What `ip` needs to hear before its command.
    ip: &'static str,
    /// Length of a host's prefix.
    full: u8,
    client: &'static str,
    director: &'static str,
    vip: &'static str,
    tunnel_vip: &'static str,
    rs: [&'static str; 2],
}

/// IPv4, with the addresses of the classic walk-through.
pub const V4: Family = Family {
    name: "IPv4",
    ip: "ip",
    full: 32,
    client: "192.168.122.70",
    director: "192.168.122.30",
    vip: "192.168.122.22",
    tunnel_vip: "192.168.122.23",
    rs: ["192.168.122.45", "192.168.122.46"],
};

/// IPv6.
pub const V6: Family = Family {
    name: "IPv6",
    ip: "ip -6",
    full: 128,
    client: "fd22::70",
    director: "fd22::30",
    vip: "fd22::22",
    tunnel_vip: "fd22::23",
    rs: ["fd22::45", "fd22::46"],
};

const SERVERS: [&str; 2] = ["rs1", "rs2"];

impl Family {
    /// An address as it is written before a port.
    fn host(&self, address: &str) -> String {
        if self.full == 128 { format!("[{address}]") } else { address.into() }
    }

    fn service(&self, address: &str) -> String {
        format!("{}:80", self.host(address))
    }
}

/// NAT without routes back: nothing comes back. Then adds those routes.
pub fn without_routes(stage: &mut Stage<'_>, family: &Family) -> Result<()> {
    stage.title(&format!("{}, NAT (masquerading), without the routes that it needs", family.name));
    if family.full == 32 {
        let off = "for i in all eth0; do echo 0 > /proc/sys/net/ipv4/conf/$i/send_redirects; done";
        stage.must("director", &format!("echo 1 > /proc/sys/net/ipv4/ip_forward; {off}"))?;
    } else {
        stage.must("director", "echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")?;
    }
    let vip = format!("{}:8080", family.host(family.director));
    service(stage, &format!("{vip} -s rr"), family.rs.map(|rs| family.service(rs) + " -m"))?;
    stage.remark("The servers answer to the client directly, from an address that it never asked:");
    let shown = stage.sh("client", &format!("curl -sS --max-time 2 'http://{vip}/'"))?;
    stage.check("curl's exit status (28: timed out)", &shown.code, &28);
    stage.remark("So they need a route to the client that leads through the director:");
    route(stage, family, "add")?;
    let shown = stage.sh("client", &format!("curl -sS --max-time 5 'http://{vip}/'"))?;
    stage.check("curl's exit status", &shown.code, &0);
    Ok(())
}

/// NAT with round robin: the servers alternate.
pub fn masquerading(stage: &mut Stage<'_>, family: &Family) -> Result<()> {
    stage.title(&format!("{}, NAT, rr, port 8000 to port 80", family.name));
    let vip = format!("{}:8000", family.host(family.director));
    // Round robin begins with the destination that was added last.
    let [first, second] = family.rs.map(|rs| family.service(rs) + " -m");
    service(stage, &format!("{vip} -s rr"), [second, first])?;
    let shown = requests(stage, &format!("http://{vip}/"), 4)?;
    stage.check("the answers", &shown.lines(), &vec!["rs1", "rs2", "rs1", "rs2"]);
    let rows = settled(stage, 0)?;
    stage.check("inactive connections", &inactive(&rows), &vec![2, 2]);
    Ok(())
}

/// Weights 2:1, and weight 0, which lets open connections go on.
pub fn weights_and_drain(stage: &mut Stage<'_>) -> Result<()> {
    let family = &V4;
    stage.title("IPv4, NAT, wrr with weights 2 and 1");
    let vip = family.service(family.director);
    let [first, second] = family.rs.map(|rs| family.service(rs));
    // So does weighted round robin, here with both in its first pass.
    let dests = [format!("{second} -m -w 1"), format!("{first} -m -w 2")];
    service(stage, &format!("{vip} -s wrr"), dests)?;
    let url = format!("http://{}/", family.director);
    let shown = tally(stage, &url, 100)?;
    stage.check("the answers", &shown.lines(), &vec!["67 rs1", "33 rs2"]);
    let rows = settled(stage, 0)?;
    stage.check("inactive connections", &inactive(&rows), &vec![67, 33]);

    stage.title("IPv4, NAT, a server is drained: weight 0 during a download");
    let _ = std::fs::remove_file(stage.lab().dir().join("head"));
    let download = format!("curl -sS --max-time 60 -D head -o got {url}slow/big");
    let curl = stage.start("client", "download", &download)?;
    let drained = answering(stage)?;
    let rs = family.service(family.rs[drained]);
    stage.remark(&format!("{} has it.", SERVERS[drained]));
    stage.must("director", &format!("ipvsadm -e -t {vip} -r {rs} -m -w 0"))?;
    let other = SERVERS[1 - drained];
    let shown = tally(stage, &url, 10)?;
    stage.check("the answers to new connections", &shown.lines(), &vec![&*format!("10 {other}")]);
    let rows = stage.table()?;
    let row = |rows: &[DestRow]| rows.get(drained).map(|row| (row.weight, row.active));
    stage.check("weight and active connections of the drained", &row(&rows), &Some((0, 1)));
    let status = curl.wait(Duration::from_secs(60))?;
    stage.remark("The download goes on to its end:");
    stage.check("the download's exit status", &status.code(), &Some(0));
    let shown = stage.sh("client", "cmp got www/big && wc -c < got")?;
    stage.check("the bytes of the download", &shown.lines(), &vec![&*BIG.to_string()]);
    let rows = settled(stage, 0)?;
    stage.check("the drained in the end", &row(&rows), &Some((0, 0)));
    Ok(())
}

/// Takes the routes through the director away: they are for NAT only.
pub fn unroute(stage: &mut Stage<'_>, family: &Family) -> Result<()> {
    stage.remark("The routes of NAT go away: from here on the servers answer directly.");
    route(stage, family, "del")
}

/// Direct routing: the servers have the virtual address on lo, and answer by themselves.
pub fn direct_routing(stage: &mut Stage<'_>, family: &Family) -> Result<()> {
    stage.title(&format!("{}, DR (direct routing), wlc by default", family.name));
    share_address(stage, family, family.vip)?;
    virtual_service(stage, family, family.vip, "-g")?;
    stage.sh("director", "ipvsadm -Ln --stats")?;
    Ok(())
}

/// Tunneling: the packets go to the servers inside other packets.
pub fn tunneling(stage: &mut Stage<'_>, family: &Family) -> Result<()> {
    stage.title(&format!("{}, TUN (tunneling), wlc", family.name));
    share_address(stage, family, family.tunnel_vip)?;
    stage.remark(
        "The servers unpack by a small program with a TUN device, for kernels without ipip:",
    );
    for rs in SERVERS {
        let program = std::env::current_exe()?;
        stage.start(rs, "decap", &format!("{} helper decap", program.display()))?;
        let host = stage.lab().host(rs);
        wait("the decapsulator", || {
            Ok(host.ip("-o link show up dev decap0").is_ok_and(|s| !s.is_empty()))
        })?;
    }
    virtual_service(stage, family, family.tunnel_vip, "-i")
}

/// Makes a service the only one, with two destinations.
fn service(stage: &mut Stage<'_>, what: &str, dests: [String; 2]) -> Result<()> {
    stage.must("director", "ipvsadm -C")?;
    stage.must("director", &format!("ipvsadm -A -t {what}"))?;
    let vip = what.split(' ').next().unwrap_or(what);
    for dest in dests {
        stage.must("director", &format!("ipvsadm -a -t {vip} -r {dest}"))?;
    }
    Ok(())
}

/// The service on a virtual address: ten requests, shared equally.
fn virtual_service(stage: &mut Stage<'_>, family: &Family, vip: &str, how: &str) -> Result<()> {
    let dests = family.rs.map(|rs| format!("{} {how}", family.service(rs)));
    service(stage, &family.service(vip), dests)?;
    let shown = tally(stage, &format!("http://{}/", family.host(vip)), 10)?;
    stage.check("the answers", &shown.lines(), &vec!["5 rs1", "5 rs2"]);
    let rows = settled(stage, 0)?;
    stage.check("inactive connections", &inactive(&rows), &vec![5, 5]);
    Ok(())
}

/// Gives a virtual address to the director, and to the servers' lo.
fn share_address(stage: &mut Stage<'_>, family: &Family, vip: &str) -> Result<()> {
    let (ip, full) = (family.ip, family.full);
    let nodad = if full == 128 { " nodad" } else { "" };
    stage.must("director", &format!("{ip} addr add {vip}/{full} dev eth0{nodad}"))?;
    for rs in SERVERS {
        if full == 32 {
            let set = |what, value| format!("echo {value} > /proc/sys/net/ipv4/conf/all/{what}");
            stage.must(rs, &format!("{}; {}", set("arp_ignore", 1), set("arp_announce", 2)))?;
        }
        stage.must(rs, &format!("{ip} addr add {vip}/{full} dev lo{nodad}"))?;
    }
    Ok(())
}

fn route(stage: &mut Stage<'_>, family: &Family, verb: &str) -> Result<()> {
    let Family { ip, client, director, full, .. } = family;
    for rs in SERVERS {
        stage.must(rs, &format!("{ip} route {verb} {client}/{full} via {director}"))?;
    }
    Ok(())
}

/// What a lab that is kept is left with: NAT on port 80.
pub fn leave(stage: &mut Stage<'_>) -> Result<()> {
    stage.title("For you to play with: IPv4, NAT");
    route(stage, &V4, "add")?;
    let dests = V4.rs.map(|rs| V4.service(rs) + " -m");
    service(stage, &V4.service(V4.director), dests)?;
    stage.table()?;
    Ok(())
}

fn requests(stage: &mut Stage<'_>, url: &str, number: u32) -> Result<Shown> {
    let curl = format!("curl -sS --max-time 5 '{url}'");
    stage.sh("client", &format!("for i in $(seq {number}); do {curl}; done"))
}

/// Requests of which only the number of answers from each server is shown.
fn tally(stage: &mut Stage<'_>, url: &str, number: u32) -> Result<Shown> {
    let curl = format!("curl -sS --max-time 5 '{url}'");
    stage.sh("client", &format!("for i in $(seq {number}); do {curl}; done | sort | uniq -c"))
}

fn inactive(rows: &[DestRow]) -> Vec<u32> {
    rows.iter().map(|row| row.inactive).collect()
}

/// Waits until so many connections are active, which is when the last FIN has gone by, and shows the
/// table.
fn settled(stage: &mut Stage<'_>, active: u32) -> Result<Vec<DestRow>> {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(5) {
        let rows = stage.peek()?;
        if rows.iter().map(|row| row.active).sum::<u32>() == active {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    stage.table()
}

/// The number of the server that the download's answer came from.
fn answering(stage: &Stage<'_>) -> Result<usize> {
    let path = stage.lab().dir().join("head");
    let mut found = None;
    wait("the download's first bytes", || {
        let head = std::fs::read_to_string(&path).unwrap_or_default();
        let name = |line: &str| {
            let (key, value) = line.split_once(": ")?;
            let name = key.eq_ignore_ascii_case("x-real-server").then(|| value.trim())?;
            SERVERS.iter().position(|server| *server == name)
        };
        found = head.lines().find_map(name);
        Ok(found.is_some())
    })?;
    Ok(found.expect("set when the wait succeeds"))
}

fn wait(what: &str, mut reached: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !reached()? {
        if start.elapsed() > Duration::from_secs(10) {
            bail!("waited in vain for {what}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
