//! `rvs status`: what the data path holds.

use anyhow::{Context, Result};
use rvs_core::control::Datapath;
use rvs_datapath::{BpfDatapath, Maps, attach};
use rvs_host::Host;
use rvs_netlink::Client;

use crate::Place;

/// Prints it.
pub fn status(place: &Place, reasons: bool) -> Result<()> {
    let pins = place.pins()?;
    let maps = Maps::open(pins.place())?;
    if reasons {
        print_reasons(maps);
        return Ok(());
    }
    let serves = Client::connect_to(&place.socket).is_ok();
    println!("rvsd:         {}", if serves { "serves" } else { "does not run" });
    let names = Host::open()?.interfaces().context("cannot list interfaces")?;
    for (path, index) in attach::pinned(pins.place()) {
        let name = names.iter().find(|i| i.index == index).map_or("(gone)", |i| i.name.as_str());
        let hook = path.file_name().map(|f| f.to_string_lossy().into_owned()).unwrap_or_default();
        let hook = hook.split('-').next().unwrap_or_default().to_owned();
        println!("attached:     {name} {hook}");
    }
    // Only looks: nothing in the maps differs afterwards, whoever serves them.
    let (mut services, mut dests, mut conns) = (0, 0, 0);
    let datapath = BpfDatapath::view(maps);
    datapath.for_each_service(&mut |_, _, d| {
        services += 1;
        dests += d.len();
    });
    datapath.for_each_conn(&mut |_| {
        conns += 1;
        true
    });
    println!("services:     {services}");
    println!("destinations: {dests}");
    println!("connections:  {conns} of {}", datapath.conn_capacity());
    Ok(())
}

/// Every packet once, by what became of it, and their sum.
fn print_reasons(maps: Maps) {
    let reasons = maps.reasons();
    let (inward, outward) = BpfDatapath::view(maps).forwarded();
    let alone = reasons.iter().filter(|(reason, _)| reason.is_alone()).map(|(_, count)| count);
    let seen = inward + outward + alone.sum::<u64>();
    let named = reasons.iter().map(|(reason, count)| (reason.name(), *count));
    let forwarded = [("forward.in", inward), ("forward.out", outward)];
    for (name, count) in forwarded.into_iter().chain(named).chain([("seen", seen)]) {
        println!("{name:<24} {count}");
    }
}
