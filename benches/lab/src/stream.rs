//! TCP through masquerading by TC, offloads on, beside nftables' dnat: iperf3's throughput with the
//! machine's CPU time, and the time of a small request on a connection that stands.
//!
//! Both ends of a stream have a CPU each, both ends of requests share one: left to the scheduler, a
//! request took 6 or 55 µs, as its ends shared a CPU or woke another, which is not the director's doing.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rvs_testkit::lab::{Director, Host, Lab, Stop, Topology};

use crate::line::{dnat, last_cpu, stay_on};
use crate::{Measured, median};

/// The service's address; the real server's is 10.9.0.2.
const VIP: &str = "10.200.0.1";
const IPERF: u16 = 5201;
const ECHO: u16 = 5000;
/// Bytes of a request, and of its answer.
const REQUEST: usize = 64;
/// Where both ends of requests are.
const REQUESTS_CPU: usize = 0;
const KINDS: [&str; 2] = ["nft", "RVS"];

/// One measurement of a stream.
struct Stream {
    /// Bits a second.
    throughput: f64,
    /// CPU seconds of the whole machine for a gigabyte.
    cpu: f64,
}

/// Measures both, in turn, and prints a table.
pub fn run(quick: bool) -> Result<Measured> {
    let (rounds, seconds, requests) = if quick { (1, 1, 500) } else { (7, 2, 20_000) };
    let mut topology = Topology::new().prefix("rvs-bench");
    for kind in KINDS {
        for role in ["client", "director", "server"] {
            topology = topology.attach(&format!("{role}{kind}"), "lan", &[]);
        }
    }
    let lab = topology.build()?;
    let mut directors = Vec::new();
    for kind in KINDS {
        directors.extend(build(&lab, kind).with_context(|| kind.to_owned())?);
    }
    let mut samples: std::collections::BTreeMap<String, Vec<f64>> = Default::default();
    let mut add = |kind: &str, what: &str, value: f64| {
        samples.entry(format!("stream/{kind}/{what}")).or_default().push(value);
    };
    for _ in 0..rounds {
        for kind in KINDS {
            let client = lab.host(&format!("client{kind}"));
            let Stream { throughput, cpu } = stream(&client, seconds).context(kind)?;
            add(kind, "throughput", throughput);
            add(kind, "CPU a byte", cpu);
            let times = client.enter(|| round_trips(requests))?.context(kind)?;
            add(kind, "p50", times[times.len() / 2]);
            add(kind, "p99", times[times.len() * 99 / 100]);
        }
    }
    let measured: Measured =
        samples.into_iter().map(|(name, samples)| (name, median(samples))).collect();
    print(&measured, rounds);
    Ok(measured)
}

/// Client, director and server in a row, with the servers running; rvsd if it is the director.
fn build(lab: &Lab, kind: &str) -> Result<Option<Director>> {
    let [client, director, server] =
        ["client", "director", "server"].map(|role| lab.host(&format!("{role}{kind}")));
    for (end, inside, net) in [(&client, "in0", "10.8.0"), (&server, "out0", "10.9.0")] {
        let namespace = director.namespace();
        end.ip(&format!("link add up0 type veth peer name {inside} netns {namespace}"))?;
        end.ip(&format!("addr add {net}.2/24 dev up0"))?;
        end.ip("link set up0 up")?;
        director.ip(&format!("addr add {net}.1/24 dev {inside}"))?;
        director.ip(&format!("link set {inside} up"))?;
        end.ip(&format!("route add default via {net}.1"))?;
    }
    director.sysctl("net.ipv4.ip_forward", "1")?;
    let mut command = server.command("iperf3");
    command.args(["--server", "--bind", "10.9.0.2", "--port", &IPERF.to_string()]);
    server.spawn("iperf3", command)?;
    server.serve(
        || {
            let listener = TcpListener::bind(("10.9.0.2", ECHO))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        },
        |listener, stop| echo(&listener, stop),
    )?;
    let director = if kind == "nft" {
        dnat(&director)?;
        None
    } else {
        let args = ["--mode", "tc", "--interface", "in0", "--interface", "out0"];
        let rvsd = Director::start_beside(&director, &args)?;
        for port in [IPERF, ECHO] {
            rvsd.ipvsadm(&format!("-A -t {VIP}:{port} -s rr"))?;
            rvsd.ipvsadm(&format!("-a -t {VIP}:{port} -r 10.9.0.2:{port} -m"))?;
        }
        Some(rvsd)
    };
    // Neighbours are found, connections are opened once, and iperf3 is there.
    let limit = Instant::now() + Duration::from_secs(10);
    while let Err(error) = client.enter(|| TcpStream::connect((VIP, IPERF)))? {
        ensure!(Instant::now() < limit, "no connection to the service: {error}");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(director)
}

/// Answers each request with as many bytes, one client at a time.
fn echo(listener: &TcpListener, stop: &Stop) {
    // Without it nobody is answered, and the client says so.
    let Ok(()) = stay_on(REQUESTS_CPU) else { return };
    while !stop.is_set() {
        let Ok((mut client, _)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        let settings = client.set_nonblocking(false).and_then(|()| client.set_nodelay(true));
        let mut request = [0; REQUEST];
        while settings.is_ok() && client.read_exact(&mut request).is_ok() {
            if client.write_all(&request).is_err() {
                break;
            }
        }
    }
}

/// Microseconds of requests one after the other, sorted.
fn round_trips(requests: u32) -> Result<Vec<f64>> {
    stay_on(REQUESTS_CPU)?;
    let mut stream = TcpStream::connect((VIP, ECHO))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut request = [7; REQUEST];
    let mut times = Vec::new();
    for number in 0..requests + requests / 10 {
        let start = Instant::now();
        stream.write_all(&request)?;
        stream.read_exact(&mut request)?;
        // The first of them warm everything up.
        if number >= requests / 10 {
            times.push(start.elapsed().as_secs_f64() * 1e6);
        }
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

fn stream(client: &Host, seconds: u32) -> Result<Stream> {
    let before = busy()?;
    let last = last_cpu()?;
    let text = client.run(&format!(
        "iperf3 --client {VIP} --port {IPERF} --time {seconds} --json --affinity 0,{last}"
    ))?;
    let used = busy()? - before;
    let report: serde_json::Value = serde_json::from_str(&text)?;
    let received = &report["end"]["sum_received"];
    let number = |name: &str| received[name].as_f64().with_context(|| format!("no {name}"));
    let bytes = number("bytes")?;
    ensure!(bytes > 1e6, "{bytes} bytes got through");
    Ok(Stream { throughput: number("bits_per_second")?, cpu: used / bytes * 1e9 })
}

/// Seconds that the machine's CPUs have worked: all but idle, waiting, and stolen.
fn busy() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/stat")?;
    let numbers: Vec<f64> = text
        .lines()
        .next()
        .context("a first line of /proc/stat")?
        .split_whitespace()
        .skip(1)
        .filter_map(|word| word.parse().ok())
        .collect();
    // user, nice, system; then idle and iowait; irq, softirq.
    let ticks: f64 = [0, 1, 2, 5, 6].iter().filter_map(|index| numbers.get(*index)).sum();
    Ok(ticks / rustix::param::clock_ticks_per_second() as f64)
}

fn print(measured: &Measured, rounds: u32) {
    println!(
        "TCP over veth with all offloads through masquerading by TC, and through nftables' dnat. \
         iperf3, one stream; a\nrequest of {REQUEST} bytes and its answer. Medians of {rounds}.\n"
    );
    println!("| | Gbit/s | CPU s a GB | request p50 | p99 |\n|---|---:|---:|---:|---:|");
    for kind in KINDS {
        let of =
            |what: &str| measured.get(&format!("stream/{kind}/{what}")).copied().unwrap_or(0.0);
        println!(
            "| {kind} | {:.2} | {:.3} | {:.1} µs | {:.1} µs |",
            of("throughput") / 1e9,
            of("CPU a byte"),
            of("p50"),
            of("p99")
        );
    }
}
