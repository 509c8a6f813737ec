//! Two cores against one: established packets of flows of their own on each, first on one core,
//! then on both at the same time.

use std::sync::Barrier;

use anyhow::{Context, Result, ensure};
use rvs_bench_ebpf::{Control, RVS};
use rvs_core::types::{Family, ForwardMethod, Protocol, Scheduler};
use rvs_tests_bpf::frame::ACK;
use rvs_tests_bpf::{Hook, dest, service};

use crate::frames::{Client, template};
use crate::programs::{Programs, sent};
use crate::stage::{PORT, Room, Stage, second_cpu, stay_on};
use crate::{Measured, median};

const VIP: &str = "10.200.0.1";

/// Measures, and prints a table.
pub fn run(rounds: u32, quick: bool) -> Result<Measured> {
    let (flows, packets) = if quick { (1 << 10, 1 << 16) } else { (1 << 14, 1 << 23) };
    let room = Room { connections: flows * 4, services: 256, destinations: 4096, flows: 1 };
    let mut stage = Stage::new(&room)?;
    let key = service(Protocol::Tcp, VIP, PORT);
    let server = dest("10.0.0.11", PORT, ForwardMethod::DirectRoute, 1);
    stage.bench.service(key, Scheduler::Rr, &[server]);
    let vip = format!("{VIP}:{PORT}").parse()?;
    stage.establish(vip, None, 0..flows * 2)?;
    // The wrapper of the second core has a control block of its own.
    let mut other = Programs::load(&mut stage.bench, 1)?;
    let mut programs = stage.programs;
    let control = |first| Control {
        program: RVS,
        first,
        mask: flows - 1,
        ..template(vip, Client::Sends, ACK)
    };
    let last = second_cpu()?;
    let (mut one, mut two) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        one.push(rate(&mut programs, &control(0), packets)?);
        let start = Barrier::new(2);
        let together = std::thread::scope(|scope| -> Result<f64> {
            let second = scope.spawn(|| -> Result<f64> {
                let moved = stay_on(0);
                start.wait();
                moved?;
                rate(&mut other, &control(flows), packets)
            });
            let moved = stay_on(last);
            start.wait();
            moved?;
            let first = rate(&mut programs, &control(0), packets)?;
            let second = second.join().ok().context("the second core's thread")??;
            Ok(first + second)
        })?;
        two.push(together);
    }
    let (one, two) = (median(one), median(two));
    println!("Million packets a second, established, DR, XDP; medians of {rounds}.\n");
    println!("| cores | | ratio |\n|---|---:|---:|");
    println!("| one | {:.2} | |\n| two | {:.2} | {:.2} |", one * 1e3, two * 1e3, two / one);
    Ok([("cores/one".to_owned(), one), ("cores/two".to_owned(), two)].into())
}

/// Packets a nanosecond.
fn rate(programs: &mut Programs, control: &Control, packets: u32) -> Result<f64> {
    let run = programs.run(Hook::Xdp, Family::V4, control, packets)?;
    ensure!(run.verdict == sent(Hook::Xdp), "verdict {}", run.verdict);
    Ok(1.0 / run.nanos)
}
