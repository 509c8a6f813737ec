//! The files of [`proc`](crate::proc) for programs under `rvs run`: a FUSE file system that is mounted
//! nowhere (fsopen(2)). Clients get a descriptor of its root by the control socket, whatever mount
//! namespace they are in, and so the kernel does what opening, writing and listing take.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use fuser::{BackgroundSession, Config, Session, SessionACL};
use rustix::fs::{Mode, OFlags, open};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};
use rustix::process::geteuid;
use rvs_director::FAMILY_ID;
use rvs_netlink::ipvs::command;
use rvs_netlink::message::Messages;

use crate::proc::Tree;

/// The file system, which nobody serves yet.
pub struct Unserved {
    root: OwnedFd,
    device: OwnedFd,
}

/// The file system; it ends when this is dropped.
pub struct Folder {
    root: OwnedFd,
    _session: BackgroundSession,
}

impl Unserved {
    /// Makes it. It takes CAP_SYS_ADMIN.
    pub fn make() -> Result<Self> {
        let device = open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
        let device = device.context("cannot open /dev/fuse")?;
        let root = mount(&device).context("cannot make a FUSE file system")?;
        Ok(Self { root, device })
    }

    /// Serves it, in threads of its own, by asking `socket`.
    pub fn serve(self, socket: &Path) -> Result<Folder> {
        let (tree, config) = (Tree::new(socket), Config::default());
        let session = Session::from_fd(tree, self.device, SessionACL::All, config);
        let session = session.and_then(Session::spawn).context("cannot serve FUSE")?;
        Ok(Folder { root: self.root, _session: session })
    }
}

fn mount(device: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    let context = fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let context = context.as_fd();
    let user = geteuid().as_raw().to_string();
    for (key, value) in [
        ("source", "rvs"),
        ("fd", &device.as_raw_fd().to_string()),
        ("rootmode", "40000"),
        ("user_id", &user),
        ("group_id", "0"),
    ] {
        fsconfig_set_string(context, key, value)?;
    }
    fsconfig_set_flag(context, "allow_other")?;
    fsconfig_set_flag(context, "default_permissions")?;
    fsconfig_create(context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

impl Folder {
    /// Its root folder.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }
}

/// Whether a client asks for the descriptor.
pub fn is_asked_for(request: &[u8]) -> bool {
    let first = Messages(request).next().filter(|message| message.kind == FAMILY_ID);
    first.and_then(|message| message.command()) == Some(command::GET_PROC)
}
