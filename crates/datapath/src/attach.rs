//! Attaching the programs to interfaces: links that are pinned, so that they outlive rvsd, and
//! that a later rvsd takes over by exchanging the program in them.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use aya::programs::links::{FdLink, LinkOrder, PinnedLink};
use aya::programs::tc::{
    NlOptions, SchedClassifierLink, TcAttachOptions, TcAttachType, TcHandle, qdisc_add_clsact,
};
use aya::programs::xdp::{XdpLink, XdpMode};
use aya::programs::{ProgramError, SchedClassifier};
use rvs_core::layout::{INTERFACE_KNOWN, INTERFACE_NO_TX, INTERFACE_XDP, Interface};

use crate::maps::Maps;
use crate::object::{Object, OpenError};

/// Priority and handle of the filter on kernels without TCX (before 6.6).
const PRIORITY: u16 = 1;
const HANDLE: TcHandle = TcHandle::new(0, 1);

/// Which hook the operator asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Mode {
    /// XDP on devices that do it natively and without loss, TC on all others.
    #[default]
    Auto,
    /// Native XDP, and TC for what XDP hands on; an error where the driver has none.
    Xdp,
    /// TC only.
    Tc,
}

/// The hook that an interface got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Native XDP, with TC behind it.
    Xdp,
    /// TC.
    Tc,
    /// TC of a device whose packets have no Ethernet header.
    Bare,
    /// TC egress, for what the director itself sends; beside one of the others.
    Egress,
    /// In its place while connections are tracked: it sees replies, too.
    Replies,
    /// TC egress of the device that marked packets are routed to.
    Marked,
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Xdp => "xdp",
            Self::Tc => "tc",
            Self::Bare => "bare",
            Self::Egress => "egress",
            Self::Replies => "replies",
            Self::Marked => "marked",
        })
    }
}

/// An interface to attach to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Index.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Kind of a virtual device ("veth", "bridge" ...); `None` for hardware and virtio.
    pub kind: Option<String>,
    /// MAC address, if it is an Ethernet device.
    pub mac: Option<[u8; 6]>,
    /// Whether packets come by it without any header before that of IP.
    pub bare: bool,
}

/// What an interface got, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The hook.
    pub hook: Hook,
    /// One clause for the log.
    pub why: String,
}

/// Why an interface could not be attached to.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The kernel or the driver refused.
    #[error("cannot attach {hook} to {interface}: {reason}")]
    Refused {
        /// The hook.
        hook: Hook,
        /// The interface.
        interface: String,
        /// What the kernel said.
        reason: String,
    },
    /// The programs are not there.
    #[error(transparent)]
    Object(#[from] OpenError),
}

/// Attaches to `target` as `mode` says, or exchanges the programs of an earlier rvsd there.
pub fn attach(
    object: &mut Object,
    maps: &Maps,
    target: &Target,
    mode: Mode,
) -> Result<Attached, AttachError> {
    attach_tc(object, target, ingress(target))?;
    let (xdp, why) = match (mode, &target.kind) {
        _ if target.bare => (false, "its packets have no Ethernet header".to_owned()),
        (Mode::Tc, _) => (false, "asked for".to_owned()),
        // No VLAN device does XDP by itself; its frames come by its parent's.
        (_, Some(kind)) if kind == "vlan" => (false, "VLAN devices have no XDP".to_owned()),
        (Mode::Xdp, Some(kind)) if kind == "veth" => (
            true,
            "asked for; on veth the senders need `ethtool -K DEV tx off` and the receiving peers \
             `gro on`, or frames are lost"
                .to_owned(),
        ),
        (Mode::Xdp, _) => (true, "asked for".to_owned()),
        (Mode::Auto, Some(kind)) => (false, format!("{kind} devices lose offloads under XDP")),
        (Mode::Auto, None) => (true, "the driver has native XDP".to_owned()),
    };
    let attached = if !xdp {
        let _ = std::fs::remove_file(pin_path(&object.pin, Hook::Xdp, target.index));
        Attached { hook: Hook::Tc, why }
    } else {
        match (attach_xdp(object, target), mode) {
            (Ok(()), _) => Attached { hook: Hook::Xdp, why },
            (Err(error), Mode::Auto) => {
                Attached { hook: Hook::Tc, why: format!("no native XDP here: {error}") }
            }
            (Err(error), _) => return Err(error),
        }
    };
    publish(maps, target, attached.hook);
    Ok(attached)
}

/// The hook by which all that TC is to see comes.
fn ingress(target: &Target) -> Hook {
    if target.bare { Hook::Bare } else { Hook::Tc }
}

/// Detaches everything from an interface.
pub fn detach_all(object: &Object, target: &Target) {
    for hook in [ingress(target), Hook::Xdp, Hook::Egress] {
        detach(object, target.index, &target.name, hook);
    }
}

/// Attaches to the ingress of the loopback, by which the director's own packets come.
pub fn attach_loopback(object: &mut Object, target: &Target) -> Result<(), AttachError> {
    attach_tc(object, target, Hook::Tc)
}

/// Attaches to the egress of `target`, for what the director itself sends there ([`Hook::Egress`]) and for
/// replies ([`Hook::Replies`]); one in place of the other.
pub fn attach_egress(object: &mut Object, target: &Target, hook: Hook) -> Result<(), AttachError> {
    attach_tc(object, target, hook)
}

/// Attaches to the device that marked packets are routed to.
pub fn attach_marked(object: &mut Object, target: &Target) -> Result<(), AttachError> {
    attach_tc(object, target, Hook::Marked)
}

/// Detaches one hook from an interface.
pub fn detach(object: &Object, index: u32, name: &str, hook: Hook) {
    if std::fs::remove_file(pin_path(&object.pin, hook, index)).is_ok() {
        return;
    }
    // Without a link it is a filter of clsact, of either program that egress may have.
    let filters: &[Hook] = match hook {
        Hook::Xdp => &[],
        Hook::Egress => &[Hook::Egress, Hook::Replies],
        _ => &[hook],
    };
    filters.iter().for_each(|hook| detach_filter(name, *hook));
}

/// Tells the programs about the interface: its MAC address, and whether it takes XDP frames.
pub fn publish(maps: &Maps, target: &Target, hook: Hook) {
    let Some(place) = maps.interfaces.get(target.index as usize) else { return };
    let known = if target.mac.is_some() { INTERFACE_KNOWN } else { 0 };
    let xdp = if hook == Hook::Xdp { INTERFACE_XDP } else { 0 };
    let no_tx = if target.kind.as_deref() == Some("veth") { INTERFACE_NO_TX } else { 0 };
    place.set(Interface { mac: target.mac.unwrap_or_default(), flags: known | xdp | no_tx });
}

/// Removes the pins of interfaces that are gone, so that their numbers can come back.
pub fn forget(pin: &Path, maps: &Maps, is_gone: impl Fn(u32) -> bool) {
    for (path, index) in pinned(pin) {
        if is_gone(index) {
            let _ = std::fs::remove_file(path);
            if let Some(place) = maps.interfaces.get(index as usize) {
                place.set(Interface::default());
            }
        }
    }
}

/// Takes the data path down: detaches from every interface and removes every pin below `pin`.
pub fn remove(pin: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(pin.join("links")).into_iter().flatten().flatten() {
        std::fs::remove_file(entry.path())?;
    }
    for entry in std::fs::read_dir(pin.join("maps")).into_iter().flatten().flatten() {
        std::fs::remove_file(entry.path())?;
    }
    for folder in ["links", "maps", ""] {
        match std::fs::remove_dir(pin.join(folder)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Detaches the TC filters from an interface of a kernel without TCX.
pub fn detach_clsact(interface: &str) {
    for hook in [Hook::Tc, Hook::Bare, Hook::Egress, Hook::Replies] {
        detach_filter(interface, hook);
    }
}

fn detach_filter(interface: &str, hook: Hook) {
    let (_, name) = program(hook);
    // No filter is what is wanted.
    let _ = aya::programs::tc::qdisc_detach_program(interface, direction(hook), name);
}

/// How a TC hook's program is found in the object.
type Program = fn(&mut Object) -> Result<&mut SchedClassifier, OpenError>;

/// The program of a TC hook, and its name.
fn program(hook: Hook) -> (Program, &'static str) {
    match hook {
        Hook::Xdp | Hook::Tc => (Object::tc, "rvs_tc"),
        Hook::Bare => (Object::bare, "rvs_bare"),
        Hook::Egress => (Object::local, "rvs_local"),
        Hook::Replies => (Object::replies, "rvs_replies"),
        Hook::Marked => (Object::marked, "rvs_marked"),
    }
}

fn direction(hook: Hook) -> TcAttachType {
    match hook {
        Hook::Xdp | Hook::Tc | Hook::Bare => TcAttachType::Ingress,
        Hook::Egress | Hook::Replies | Hook::Marked => TcAttachType::Egress,
    }
}

/// Pinned links and the indices of their interfaces.
pub fn pinned(pin: &Path) -> Vec<(PathBuf, u32)> {
    let entries = std::fs::read_dir(pin.join("links")).into_iter().flatten().flatten();
    let index = |path: &Path| path.file_name()?.to_str()?.split_once('-')?.1.parse().ok();
    entries.filter_map(|e| Some((e.path(), index(&e.path())?))).collect()
}

fn pin_path(pin: &Path, hook: Hook, index: u32) -> PathBuf {
    // One link, in which the programs are exchanged.
    let hook = if hook == Hook::Replies { Hook::Egress } else { hook };
    pin.join("links").join(format!("{hook}-{index}"))
}

fn refused(hook: Hook, target: &Target, reason: impl ToString) -> AttachError {
    AttachError::Refused { hook, interface: target.name.clone(), reason: reason.to_string() }
}

fn attach_xdp(object: &mut Object, target: &Target) -> Result<(), AttachError> {
    let path = pin_path(&object.pin, Hook::Xdp, target.index);
    let failed = |reason: String| refused(Hook::Xdp, target, reason);
    let program = object.xdp()?;
    if let Ok(pinned) = PinnedLink::from_pin(&path) {
        let link = XdpLink::try_from(FdLink::from(pinned)).map_err(|e| failed(e.to_string()))?;
        match program.attach_to_link(link) {
            // Dropped, the link only closes: its pin keeps it.
            Ok(id) => return program.take_link(id).map(drop).map_err(|e| failed(chain(&e))),
            // The device is gone and another one has its number.
            Err(_) => std::fs::remove_file(&path).map_err(|e| failed(e.to_string()))?,
        }
    }
    let id = program.attach(&target.name, XdpMode::Driver).map_err(|e| failed(chain(&e)))?;
    let link = program.take_link(id).map_err(|e| failed(chain(&e)))?;
    let link = FdLink::try_from(link).map_err(|e| failed(e.to_string()))?;
    link.pin(&path).map(drop).map_err(|e| failed(e.to_string()))
}

fn attach_tc(object: &mut Object, target: &Target, hook: Hook) -> Result<(), AttachError> {
    let path = pin_path(&object.pin, hook, target.index);
    let failed = |reason: String| refused(hook, target, reason);
    let (program, _) = program(hook);
    let program = program(object)?;
    if let Ok(pinned) = PinnedLink::from_pin(&path) {
        let link = SchedClassifierLink::try_from(FdLink::from(pinned))
            .map_err(|e| failed(e.to_string()))?;
        match program.attach_to_link(link) {
            Ok(id) => return program.take_link(id).map(drop).map_err(|e| failed(chain(&e))),
            Err(_) => std::fs::remove_file(&path).map_err(|e| failed(e.to_string()))?,
        }
    }
    let order = TcAttachOptions::TcxOrder(LinkOrder::first());
    match program.attach_with_options(&target.name, direction(hook), order) {
        Ok(id) => {
            let link = program.take_link(id).map_err(|e| failed(chain(&e)))?;
            let link = FdLink::try_from(link).map_err(|e| failed(e.to_string()))?;
            link.pin(&path).map(drop).map_err(|e| failed(e.to_string()))
        }
        Err(_) => attach_clsact(program, target, direction(hook)).map_err(|e| failed(chain(&e))),
    }
}

/// Attaches the program that puts frames back to rvsd's own device, for as long as that lives.
pub fn attach_back(object: &mut Object, name: &str) -> Result<(), AttachError> {
    let target = Target { index: 0, name: name.to_owned(), kind: None, mac: None, bare: false };
    let program = object.back()?;
    let order = TcAttachOptions::TcxOrder(LinkOrder::first());
    match program.attach_with_options(name, TcAttachType::Ingress, order) {
        // It stays with the program.
        Ok(_) => Ok(()),
        Err(_) => attach_clsact(program, &target, TcAttachType::Ingress)
            .map_err(|e| refused(Hook::Tc, &target, chain(&e))),
    }
}

/// A filter of the clsact queueing discipline, which stays when the process ends; one that is
/// there already is exchanged in place.
fn attach_clsact(
    program: &mut SchedClassifier,
    target: &Target,
    direction: TcAttachType,
) -> Result<(), ProgramError> {
    // Fails if the qdisc is there already; if it fails otherwise, so does what follows.
    let _ = qdisc_add_clsact(&target.name);
    let ours = SchedClassifierLink::attached(&target.name, direction, PRIORITY, HANDLE, None);
    let id = match ours.ok().map(|link| program.attach_to_link(link)) {
        Some(Ok(id)) => id,
        _ => {
            let options = NlOptions { priority: PRIORITY, handle: HANDLE, ..Default::default() };
            let options = TcAttachOptions::Netlink(options);
            program.attach_with_options(&target.name, direction, options)?
        }
    };
    // Dropping the link would remove the filter.
    std::mem::forget(program.take_link(id)?);
    Ok(())
}

/// An error and what caused it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
