//! Files of `/proc` that a program opens: files in memory with the text of the moment. Settings are
//! not written this way: `rvs sysctl` and `rvsd --proc` do that.

use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, fcntl_add_seals, memfd_create, open};
use rvs_netlink::Client;

use crate::path::Node;

const ENOENT: i32 = 2;
const EIO: i32 = 5;
const EACCES: i32 = 13;

/// Opens what `node` names, as `open(2)` with `flags` would; an error is an errno.
pub fn open_node(node: Node, client: &mut Client, flags: OFlags) -> Result<OwnedFd, i32> {
    if flags.intersects(OFlags::WRONLY | OFlags::RDWR) {
        return Err(EACCES);
    }
    let text = match node {
        Node::Proc(file) => file.text(client).map_err(|error| crate::errno(&error, EIO))?,
        Node::Setting(name) => crate::sysctl::text(client, name)
            .map_err(|error| crate::errno(&error, EIO))?
            .into_bytes(),
        Node::Settings => return Err(ENOENT),
    };
    in_memory(&text, flags).map_err(|error| error.raw_os_error().unwrap_or(EIO))
}

fn in_memory(text: &[u8], flags: OFlags) -> std::io::Result<OwnedFd> {
    let options = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = std::fs::File::from(memfd_create("rvs", options)?);
    file.write_all(text)?;
    fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK)?;
    // Opened anew: at its start, for reading, and with the flags that were asked for.
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(open(path, flags & (OFlags::CLOEXEC | OFlags::NONBLOCK), Mode::empty())?)
}
