//! `rvsd --proc`: the small `/proc`, and Debian's prometheus-node-exporter reading it.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use rvs_testkit::lab::{Director, LabError, Topology, find_program, wait_until};
use rvs_testkit::{need_lab, skip};

const VIP: &str = "10.7.1.30";

/// A mount point that is free again when the test ends, however it ends.
struct MountPoint(PathBuf);

impl Drop for MountPoint {
    fn drop(&mut self) {
        // Fails where nothing is mounted any more, as it should be.
        let _ = Command::new("umount").arg("-ql").arg(&self.0).output();
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn node_exporter_shows_the_services_of_a_mounted_proc() -> Result<(), LabError> {
    need_lab!();
    let Some(exporter) = find_program("prometheus-node-exporter") else {
        skip!("no prometheus-node-exporter; `cargo xtask setup` unpacks it");
    };
    let lab = Topology::new()
        .host("client", &["10.7.1.70/24"])
        .host("director", &["10.7.1.30/24"])
        .host("rs1", &["10.7.1.45/24"])
        .build()?;
    lab.host("rs1").ip(&format!("route add 10.7.1.70 via {VIP}"))?;
    lab.host("rs1").serve_http(80)?;
    let point = MountPoint(std::env::temp_dir().join(format!("{}-proc", lab.name())));
    let folder = point.0.to_string_lossy().into_owned();
    let director = Director::start(&lab.host("director"), &["--proc", &folder])?;
    director.ipvsadm(&format!("-A -t {VIP}:80 -s wlc"))?;
    director.ipvsadm(&format!("-a -t {VIP}:80 -r 10.7.1.45:80 -m -w 7"))?;
    for _ in 0..3 {
        lab.host("client").run(&format!("curl -sS --max-time 5 http://{VIP}/"))?;
    }

    let host = director.host();
    let mut command = host.command(&exporter);
    command.args(["--collector.disable-defaults", "--collector.ipvs", "--path.procfs", &folder]);
    command.arg("--web.listen-address=127.0.0.1:9100");
    let process = host.spawn("exporter", command)?;
    let mut metrics = String::new();
    wait_until("the exporter's metrics", Duration::from_secs(15), || {
        let page = host.run("curl -s --max-time 5 http://127.0.0.1:9100/metrics");
        metrics = page.unwrap_or_default();
        // The counters are summed up every two seconds in the kernel, at once here.
        Ok(metrics.contains("node_ipvs_connections_total"))
    })
    .inspect_err(|_| println!("{}", process.log()))?;
    let labels = format!(
        "{{local_address=\"{VIP}\",local_mark=\"\",local_port=\"80\",proto=\"TCP\",\
         remote_address=\"10.7.1.45\",remote_port=\"80\"}}"
    );
    for line in [
        "node_ipvs_connections_total 3".to_owned(),
        "node_scrape_collector_success{collector=\"ipvs\"} 1".to_owned(),
        format!("node_ipvs_backend_weight{labels} 7"),
    ] {
        assert!(metrics.lines().any(|found| found == line), "no {line} in\n{metrics}");
    }
    let packets = metrics.lines().find_map(|l| l.strip_prefix("node_ipvs_incoming_packets_total "));
    assert!(packets.is_some_and(|n| n.parse::<f64>().unwrap_or(0.0) >= 12.0), "{metrics}");

    // The tree: what is there.
    let list = |path: &str| host.run(&format!("ls {folder}/{path}"));
    assert_eq!(list("")?, "net\nsys\n");
    let files = "ip_vs\nip_vs_app\nip_vs_conn\nip_vs_conn_sync\nip_vs_stats\nip_vs_stats_percpu\n";
    assert_eq!(list("net")?, files);
    assert_eq!(list("sys/net/ipv4/vs")?.lines().count(), 28);
    let text = host.run(&format!("cat {folder}/net/ip_vs"))?;
    let rvs_proc = director.rvs_command()?.args(["proc", "ip_vs"]).output().expect("it starts");
    assert_eq!(text, String::from_utf8_lossy(&rvs_proc.stdout));
    let setting = format!("{folder}/sys/net/ipv4/vs/conntrack");
    assert_eq!(host.run(&format!("cat {setting}"))?, "0\n");

    // It is gone with rvsd, and a killed one's is replaced.
    process.kill();
    director.process().kill();
    director.restart()?;
    assert_eq!(list("")?, "net\nsys\n");
    director.process().terminate(Duration::from_secs(10))?;
    assert_eq!(list("")?, "");
    Ok(())
}

/// What deleted services counted, and by which CPU, is in the maps.
#[test]
fn totals_outlive_services_and_rvsd() -> Result<(), LabError> {
    need_lab!();
    let lab = Topology::new()
        .host("client", &["10.7.1.71/24"])
        .host("director", &["10.7.1.31/24"])
        .host("rs1", &["10.7.1.46/24"])
        .build()?;
    lab.host("rs1").ip("route add 10.7.1.71 via 10.7.1.31")?;
    lab.host("rs1").serve_http(80)?;
    let director = Director::start(&lab.host("director"), &[])?;
    let show = |file: &str| -> Result<String, LabError> {
        let output = director.rvs_command()?.args(["proc", file]).output().expect("it starts");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let numbers = |line: &str| -> Vec<u64> {
        let words = line.split_whitespace().rev().take(5);
        words.map(|word| u64::from_str_radix(word, 16).expect("hexadecimal")).collect()
    };
    director.ipvsadm("-A -t 10.7.1.31:80 -s rr")?;
    director.ipvsadm("-a -t 10.7.1.31:80 -r 10.7.1.46 -m")?;
    for _ in 0..5 {
        lab.host("client").run("curl -sS --max-time 10 http://10.7.1.31/")?;
    }
    let row = |text: &str| text.lines().nth(2).map(numbers).expect("a row of counters");
    let counted = row(&show("ip_vs_stats")?);
    assert_eq!(counted[4], 5, "connections: {counted:?}");

    director.ipvsadm("-C")?;
    assert_eq!(row(&show("ip_vs_stats")?), counted, "of a deleted service");
    director.process().kill();
    director.restart()?;
    assert_eq!(row(&show("ip_vs_stats")?), counted, "after a restart");

    let by_cpu = |text: &str| -> (Vec<Vec<u64>>, Vec<u64>) {
        let rows = text.lines().skip(2).take_while(|line| !line.is_empty());
        let mut rows: Vec<Vec<u64>> = rows.map(numbers).collect();
        let total = rows.pop().expect("the row of all");
        (rows, total)
    };
    let (cpus, total) = by_cpu(&show("ip_vs_stats_percpu")?);
    let possible = std::fs::read_to_string("/sys/devices/system/cpu/possible").expect("a file");
    let last: usize =
        possible.trim().rsplit('-').next().and_then(|n| n.parse().ok()).expect("CPUs");
    assert_eq!(cpus.len(), last + 1);
    let sum: Vec<u64> = (0..5).map(|at| cpus.iter().map(|cpu| cpu[at]).sum()).collect();
    assert_eq!((&sum, &total), (&counted, &counted));
    director.ipvsadm("-Z")?;
    assert_eq!(by_cpu(&show("ip_vs_stats_percpu")?), (cpus, vec![0; 5]));
    Ok(())
}
