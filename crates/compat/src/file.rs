//! Files of `/proc` that a program opens: those of `/proc/net` are files in memory with the text of
//! the moment; settings are in a file system that rvsd serves, where the kernel sees to all that can
//! be done with files and folders. Where rvsd has none, settings are files in memory, too: they can
//! be read.

use std::ffi::{CStr, CString};
use std::io::{BufWriter, Write};
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, memfd_create, open};
use rvs_netlink::{Client, ClientError};

use crate::path::Node;

const ENOENT: i32 = 2;
const EIO: i32 = 5;
const EACCES: i32 = 13;

/// Where a setting, or the folder of all, lies in rvsd's file system.
pub struct Place {
    path: CString,
    node: Node,
    _root: OwnedFd,
}

impl Place {
    /// That of `node`; none for files of `/proc/net`, and where rvsd has no file system.
    pub fn of(node: Node, client: &mut Client) -> Option<Self> {
        let name = match node {
            Node::Proc(_) => return None,
            Node::Setting(name) => name,
            Node::Settings => "",
        };
        let root = client.proc_folder().ok()??;
        let path = format!("/proc/self/fd/{}/sys/net/ipv4/vs/{name}", root.as_raw_fd());
        Some(Self { path: CString::new(path).ok()?, node, _root: root })
    }

    /// What it is the place of.
    pub fn node(&self) -> Node {
        self.node
    }

    /// Its path, for this process, and while this lives.
    pub fn path(&self) -> &CStr {
        &self.path
    }
}

/// Opens what `node` names, for reading, as `open(2)` with `flags` would; an error is an errno.
pub fn open_node(node: Node, client: &mut Client, flags: OFlags) -> Result<OwnedFd, i32> {
    if flags.intersects(OFlags::WRONLY | OFlags::RDWR) {
        return Err(EACCES);
    }
    let failed = |error: std::io::Error| error.raw_os_error().unwrap_or(EIO);
    let asked = |error: ClientError| crate::errno(&error, EIO);
    let options = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = memfd_create("rvs", options).map_err(|errno| failed(errno.into()))?;
    let mut file = BufWriter::new(std::fs::File::from(file));
    let mut written = Ok(());
    match node {
        Node::Proc(proc) => proc.pieces(client, &mut |piece| {
            written = file.write_all(piece);
            written.is_ok()
        }),
        Node::Setting(name) => {
            crate::sysctl::text(client, name).map(|text| written = file.write_all(text.as_bytes()))
        }
        Node::Settings => return Err(ENOENT),
    }
    .map_err(asked)?;
    written.and_then(|()| seal(file.into_inner()?, flags)).map_err(failed)
}

/// A file as it is opened: nobody can change it.
fn seal(file: std::fs::File, flags: OFlags) -> std::io::Result<OwnedFd> {
    fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK)?;
    // Opened anew: at its start, for reading, and with the flags that were asked for.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(open(path, flags & (OFlags::CLOEXEC | OFlags::NONBLOCK), Mode::empty())?)
}
