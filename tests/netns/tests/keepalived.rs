//! Debian's keepalived, unmodified, by `rvs run`: its health checks keep the director's table, and its
//! VRRP, which talks to the kernel by other families of netlink, brings up the virtual address.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use rvs_testkit::lab::{Director, Host, Lab, LabError, Process, Topology, binary, wait_until};
use rvs_testkit::{need_lab, skip};

const KEEPALIVED: &str = "/usr/sbin/keepalived";
const DIRECTOR: &str = "10.7.0.30";
const VIP: &str = "10.7.0.22";
/// Hosts with a web server: three real servers, and one that says sorry.
const SERVERS: [(&str, &str); 4] =
    [("rs1", "10.7.0.45"), ("rs2", "10.7.0.46"), ("rs3", "10.7.0.47"), ("sorry", "10.7.0.99")];
/// Time for two failed checks and the change that follows.
const DETECTION: Duration = Duration::from_secs(40);

fn lab() -> Result<Lab, LabError> {
    let mut topology = Topology::new().host("client", &["10.7.0.70/24"]);
    topology = topology.host("director", &[&format!("{DIRECTOR}/24")]);
    for (name, addr) in SERVERS {
        topology = topology.host(name, &[&format!("{addr}/24")]);
    }
    let lab = topology.build()?;
    for (name, _) in SERVERS {
        lab.host(name).ip(&format!("route add 10.7.0.70 via {DIRECTOR}"))?;
    }
    Ok(lab)
}

/// Starts a web server that can be killed, and waits until it serves; its page is the host's name.
fn serve(host: &Host) -> Result<Process, LabError> {
    let folder = host.lab_dir().join(host.name());
    std::fs::create_dir_all(&folder).expect("a folder of the lab");
    let page = folder.join("index.html");
    std::fs::write(&page, host.name()).expect("a file of the lab");
    let mut command = host.command("python3");
    command.args(["-m", "http.server", "80", "--directory"]).arg(&folder);
    let server = host.spawn("http", command)?;
    wait_until(&format!("the server of {}", host.name()), Duration::from_secs(10), || {
        Ok(host.run("curl -s --max-time 1 http://127.0.0.1/").is_ok())
    })?;
    Ok(server)
}

fn configuration() -> String {
    let mut text = format!(
        "global_defs {{\n  router_id lab\n}}\n\
         vrrp_instance lab {{\n  state MASTER\n  interface eth0\n  virtual_router_id 51\n  \
         priority 100\n  advert_int 1\n  virtual_ipaddress {{\n    {VIP}/24\n  }}\n}}\n\
         virtual_server {VIP} 80 {{\n  delay_loop 1\n  lvs_sched rr\n  lvs_method NAT\n  \
         protocol TCP\n  sorry_server {} 80\n",
        SERVERS[3].1
    );
    for (_, addr) in &SERVERS[..3] {
        text += &format!(
            "  real_server {addr} 80 {{\n    weight 1\n    TCP_CHECK {{\n      \
             connect_timeout 1\n      retry 1\n      delay_before_retry 1\n    }}\n  }}\n"
        );
    }
    text + "}\n"
}

/// Starts keepalived beside the director.
fn keepalived(director: &Director) -> Result<Process, LabError> {
    let host = director.host();
    let folder = host.lab_dir();
    let file = folder.join("keepalived.conf");
    std::fs::write(&file, configuration()).expect("a file of the lab");
    let mut command = host.command(binary("rvs")?);
    command.env("RVS_SOCKET", director.socket()).args(["run", "--", KEEPALIVED]);
    command.args(["--dont-fork", "--log-console", "--no-syslog", "--use-file"]);
    command.arg(&file);
    for (option, name) in [
        ("--pid", "keepalived.pid"),
        ("--checkers_pid", "checkers.pid"),
        ("--vrrp_pid", "vrrp.pid"),
    ] {
        command.arg(option).arg(folder.join(name));
    }
    host.spawn("keepalived", command)
}

/// The names of the servers in the table.
fn table(director: &Director) -> Result<BTreeSet<&'static str>, LabError> {
    let name = |address: SocketAddr| {
        let found = SERVERS.iter().find(|(_, addr)| *addr == address.ip().to_string());
        found.map(|(name, _)| *name)
    };
    let dests = director.dests()?;
    Ok(dests.iter().filter(|d| d.weight > 0).filter_map(|d| name(d.address)).collect())
}

fn wait_for_table(director: &Director, names: &[&str], log: &Process) -> Result<(), LabError> {
    let names: BTreeSet<&str> = names.iter().copied().collect();
    let reached =
        wait_until(&format!("{names:?} in the table"), DETECTION, || Ok(table(director)? == names));
    if reached.is_err() {
        println!("{}\n{}", director.ipvsadm("-Ln")?, log.log());
    }
    reached
}

/// The servers that answer a dozen requests to the VIP. Every request must be answered.
fn answers(client: &Host) -> Result<BTreeSet<String>, LabError> {
    (0..12).map(|_| client.run(&format!("curl -sS --max-time 5 http://{VIP}/"))).collect()
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

#[test]
fn dead_servers_leave_the_table_and_come_back() -> Result<(), LabError> {
    need_lab!();
    if !Path::new(KEEPALIVED).exists() {
        skip!("no {KEEPALIVED} on this machine; `cargo xtask setup` installs it");
    }
    let lab = lab()?;
    let servers: Vec<Process> =
        SERVERS.iter().map(|(name, _)| serve(&lab.host(name))).collect::<Result<_, _>>()?;
    let director = Director::start(&lab.host("director"), &[])?;
    let (client, log) = (lab.host("client"), keepalived(&director)?);
    wait_for_table(&director, &["rs1", "rs2", "rs3"], &log)?;
    let addresses = || director.host().ip("-4 -o addr show dev eth0");
    wait_until("the virtual address", DETECTION, || Ok(addresses()?.contains(VIP)))
        .inspect_err(|_| println!("{}", log.log()))?;
    assert_eq!(answers(&client)?, names(&["rs1", "rs2", "rs3"]));

    // A server's process dies: connections are refused.
    servers[1].kill();
    wait_for_table(&director, &["rs1", "rs3"], &log)?;
    assert_eq!(answers(&client)?, names(&["rs1", "rs3"]));

    // A host dies: nothing answers.
    lab.host("rs3").ip("link set eth0 down")?;
    wait_for_table(&director, &["rs1"], &log)?;
    assert_eq!(answers(&client)?, names(&["rs1"]));

    // The last one dies.
    servers[0].kill();
    wait_for_table(&director, &["sorry"], &log)?;
    assert_eq!(answers(&client)?, names(&["sorry"]));

    // All come back.
    lab.host("rs3").ip("link set eth0 up")?;
    lab.host("rs3").ip(&format!("route replace 10.7.0.70 via {DIRECTOR}"))?;
    let _again = [serve(&lab.host("rs1"))?, serve(&lab.host("rs2"))?];
    wait_for_table(&director, &["rs1", "rs2", "rs3"], &log)?;
    assert_eq!(answers(&client)?, names(&["rs1", "rs2", "rs3"]));

    // The director is restarted under it.
    director.process().kill();
    director.restart()?;
    servers[2].kill();
    wait_for_table(&director, &["rs1", "rs2"], &log)?;
    assert_eq!(answers(&client)?, names(&["rs1", "rs2"]));

    // keepalived removes what it made when it ends.
    let status = log.terminate(Duration::from_secs(10))?;
    assert!(status.success(), "{status}: {}", log.log());
    assert!(!director.ipvsadm("-Ln")?.contains(VIP), "{}", director.ipvsadm("-Ln")?);
    assert!(!addresses()?.contains(VIP), "{}", addresses()?);
    Ok(())
}
