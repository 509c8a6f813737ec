//! `rvs down`: takes the data path out of the kernel.

use anyhow::{Context, Result, bail};
use rvs_datapath::{Maps, attach};
use rvs_host::Host;
use rvs_netlink::Client;

use crate::Place;

/// Detaches the programs and removes every pin. Refuses while an rvsd serves.
pub fn down(place: &Place) -> Result<()> {
    if Client::connect_to(&place.socket).is_ok() {
        bail!("an rvsd serves at {}; stop it first", place.socket.display());
    }
    let pins = place.pins()?;
    // Not there if the pins are of another layout, or an rvsd was killed while it made them.
    let changed = Maps::open(pins.place()).map(|maps| maps.config().loopback.get()).unwrap_or(0);
    rvs_host::restore_loopback(changed)?;
    Host::open()?.forget_marked()?;
    // Kernels without TCX: filters have no pin and are removed by name.
    for interface in Host::open()?.interfaces()? {
        attach::detach_clsact(&interface.name);
    }
    attach::remove(pins.place()).with_context(|| format!("cannot remove {}", place.pin.display()))
}
