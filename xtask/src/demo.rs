//! `cargo xtask demo`: the classic LVS walk-through on one machine, with every command shown before
//! its result and every count checked.

mod scenes;
mod stage;

use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use lexopt::prelude::*;
use rvs_testkit::lab::{self, Director, Host, Lab, Topology, nginx};

use crate::sh::say;
use stage::Stage;

/// What the names of the demo's namespaces begin with.
const PREFIX: &str = "rvs-demo";

/// Shows all scenes. An error if any count is off.
pub fn run(mut parser: lexopt::Parser) -> Result<()> {
    let (mut keep, mut clean, mut mode) = (false, false, "auto".to_owned());
    while let Some(arg) = parser.next()? {
        match arg {
            Long("keep") => keep = true,
            Long("clean") => clean = true,
            Long("mode") => mode = parser.value()?.string()?,
            _ => return Err(arg.unexpected().into()),
        }
    }
    if !["auto", "tc", "xdp"].contains(&mode.as_str()) {
        bail!("a mode is auto, tc or xdp, not `{mode}`");
    }
    if clean {
        return remove_kept();
    }
    if !rustix::process::geteuid().is_root() {
        bail!("the demo makes network namespaces and loads eBPF programs, which needs root");
    }
    crate::build::run()?;
    if let Some(reason) = lab::unavailable() {
        bail!("{reason}");
    }
    show(&mode, keep)
}

fn show(mode: &str, keep: bool) -> Result<()> {
    let lab = build_lab()?;
    let mut stage = Stage::new(&lab);
    stage.title(
        "The lab: client .70, director .30, rs1 .45, rs2 .46 on 192.168.122.0/24 and fd22::/64",
    );
    let server = if nginx().is_some() { "nginx" } else { "the built-in HTTP server" };
    stage.remark(&format!("rs1 and rs2 run {server}, which answers with the host's name"));
    if mode == "xdp" {
        stage.remark("XDP on veth: no offloaded checksums in the hosts, GRO at the receiving ends");
        lab.prepare_for_xdp()?;
    }
    let host = lab.host("director");
    stage.remark(&format!("director# rvsd --socket ... --pin ... --mode {mode} &"));
    let director = Director::start(&host, &["--mode", mode])?;
    stage.set_director(&director);
    stage.note(&director.process().log());
    scenes::without_routes(&mut stage, &scenes::V4)?;
    scenes::masquerading(&mut stage, &scenes::V4)?;
    scenes::weights_and_drain(&mut stage)?;
    scenes::unroute(&mut stage, &scenes::V4)?;
    scenes::direct_routing(&mut stage, &scenes::V4)?;
    scenes::tunneling(&mut stage, &scenes::V4)?;
    scenes::without_routes(&mut stage, &scenes::V6)?;
    scenes::masquerading(&mut stage, &scenes::V6)?;
    scenes::unroute(&mut stage, &scenes::V6)?;
    scenes::direct_routing(&mut stage, &scenes::V6)?;
    if keep {
        scenes::leave(&mut stage)?;
        lab.keep()?;
        explain(&lab, &director);
    } else {
        take_down(&mut stage, &director)?;
    }
    match stage.faults() {
        [] => {
            println!("\nAll counts are exact.");
            Ok(())
        }
        faults => bail!("{} checks are off:\n  {}", faults.len(), faults.join("\n  ")),
    }
}

fn build_lab() -> Result<Lab> {
    let lab = Topology::new()
        .prefix(PREFIX)
        .host("client", &["192.168.122.70/24", "fd22::70/64"])
        .host("director", &["192.168.122.30/24", "fd22::30/64"])
        .host("rs1", &["192.168.122.45/24", "fd22::45/64"])
        .host("rs2", &["192.168.122.46/24", "fd22::46/64"])
        .build()
        .context("cannot make the lab")?;
    lab.web_file("big", scenes::BIG)?;
    for name in ["rs1", "rs2"] {
        serve(&lab, &lab.host(name))?;
    }
    Ok(lab)
}

/// A web server that is a process of its own: a thread would not outlive this one.
fn serve(lab: &Lab, host: &Host) -> Result<()> {
    if nginx().is_some() {
        return Ok(host.serve_http(80)?);
    }
    let mut command = host.command(std::env::current_exe()?);
    command.args(["helper", "http", host.name()]).arg(lab.dir().join("www")).arg("80");
    host.spawn("http", command)?;
    let line = "curl -s -o /dev/null --retry 20 --retry-connrefused --retry-delay 1 http://[::1]/";
    host.run(line)?;
    Ok(())
}

/// Ends the director and removes its data path, as an operator would.
fn take_down(stage: &mut Stage<'_>, director: &Director) -> Result<()> {
    stage.title("The end: rvsd stops, and `rvs down` removes what it left in the kernel");
    stage.remark("director# kill -TERM $(pidof rvsd)");
    let status: ExitStatus = director.process().terminate(Duration::from_secs(10))?;
    stage.check("rvsd's exit status", &status.code(), &Some(0));
    let (socket, pin) = (director.socket(), director.pin());
    let down = format!("rvs down --socket {} --pin {}", socket.display(), pin.display());
    let shown = stage.sh("director", &down)?;
    stage.check("the exit status of `rvs down`", &shown.code, &0);
    stage.check("whether pins are left", &pin.exists(), &false);
    Ok(())
}

fn explain(lab: &Lab, director: &Director) {
    println!("\nThe lab stays. To enter a host, with the programs at hand:");
    let programs = lab::binary("rvsd").ok().and_then(|path| Some(path.parent()?.to_owned()));
    let programs = programs.unwrap_or_default();
    for name in lab.host_names() {
        println!("  nsenter --net=/run/netns/{} bash", lab.host(name).namespace());
    }
    println!("In the director:");
    println!("  export RVS_SOCKET={}", director.socket().display());
    println!("  {}/ipvsadm -Ln", programs.display());
    println!("Logs are in {}. To remove it all:", lab.dir().display());
    println!("  cargo xtask demo --clean");
}

fn remove_kept() -> Result<()> {
    let labs = lab::clean_kept(PREFIX);
    if labs.is_empty() {
        say("no lab was kept");
    }
    for lab in labs {
        say(&format!("removed {lab}"));
    }
    Ok(())
}
