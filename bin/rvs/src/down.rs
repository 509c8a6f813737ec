//! `rvs down`: takes the data path out of the kernel.

use anyhow::{Context, Result, bail};
use rvs_core::layout::Config;
use rvs_core::sysctl::Sysctl;
use rvs_datapath::{Maps, attach};
use rvs_host::{Host, Netfilter};
use rvs_netlink::Client;

use crate::Place;

/// Detaches the programs and removes every pin. Refuses while an rvsd serves.
pub fn down(place: &Place) -> Result<()> {
    if Client::connect_to(&place.socket).is_ok() {
        bail!("an rvsd serves at {}; stop it first", place.socket.display());
    }
    let pins = place.pins()?;
    // Not there if the pins are of another layout, or an rvsd was killed while it made them.
    let maps = Maps::open(pins.place()).ok();
    let config = maps.as_ref().map(Maps::config);
    rvs_host::restore_loopback(config.map_or(0, |config| config.loopback.get()))?;
    let tracks =
        |config: &Config| config.sysctl(Sysctl::Conntrack) != 0 || config.tracked.get() != 0;
    if config.is_some_and(tracks) {
        Netfilter::open()?.remove_table()?;
    }
    Host::open()?.forget_marked()?;
    // Kernels without TCX: filters have no pin and are removed by name.
    for interface in Host::open()?.interfaces()? {
        attach::detach_clsact(&interface.name);
    }
    attach::remove(pins.place()).with_context(|| format!("cannot remove {}", place.pin.display()))
}
