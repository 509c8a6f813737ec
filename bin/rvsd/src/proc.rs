//! `--proc DIR`: a small `/proc` for programs that read ip_vs there and can be told where it is. A
//! FUSE mount with `net/ip_vs*` and `sys/net/ipv4/vs/*`; every file's text is made as it is opened,
//! by asking the control socket as any client would.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem,
    FopenFlags, Generation, INodeNo, LockOwner, MountOption, OpenAccMode, OpenFlags, ReplyAttr,
    ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, SessionACL,
    TimeOrNow, WriteFlags,
};
use rustix::fs::OFlags;
use rustix::mount::{UnmountFlags, unmount};
use rvs_compat::path::Node;
use rvs_compat::proc::File;
use rvs_compat::sysctl;
use rvs_netlink::{Client, ClientError};

/// How long the kernel may keep names and attributes: they never change.
const FOR_LONG: Duration = Duration::from_secs(3600);

/// Folders, each with the index of the one that it is in: the root first.
const FOLDERS: [(&str, usize); 6] =
    [("", 0), ("net", 0), ("sys", 0), ("net", 2), ("ipv4", 3), ("vs", 4)];
/// Index of the folder with ip_vs's files.
const NET: usize = 1;
/// Index of the folder with the settings.
const SETTINGS: usize = 5;

/// Mounts the files at `folder` until the value is dropped.
pub fn mount(folder: &Path, socket: &Path) -> Result<BackgroundSession> {
    // What an rvsd that was killed left there. (stat(2) may be answered from memory.)
    if matches!(rustix::fs::statfs(folder), Err(rustix::io::Errno::NOTCONN)) {
        unmount(folder, UnmountFlags::DETACH)
            .with_context(|| format!("cannot unmount {}", folder.display()))?;
    }
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut config = Config::default();
    config.acl = SessionACL::All;
    config.mount_options = vec![
        MountOption::FSName("rvs".into()),
        MountOption::NoDev,
        MountOption::NoSuid,
        MountOption::NoExec,
        MountOption::DefaultPermissions,
    ];
    fuser::spawn_mount(Tree::new(socket), folder, &config)
        .with_context(|| format!("cannot mount at {} (it takes FUSE)", folder.display()))
}

/// A file or folder; its number in the file system is its index and 1.
struct Entry {
    name: &'static str,
    parent: usize,
    /// Nothing for a folder.
    file: Option<Node>,
}

/// An open file.
struct Open {
    text: Vec<u8>,
    /// Opened to append: bytes written. The kernel's settings have no end to append to; a write goes
    /// on where the last one ended.
    appended: Option<u64>,
}

/// The tree of files.
pub struct Tree {
    entries: Vec<Entry>,
    socket: PathBuf,
    open: Mutex<HashMap<u64, Open>>,
    opened: AtomicU64,
    started: SystemTime,
}

impl Tree {
    /// Files that say what the rvsd at `socket` does.
    pub fn new(socket: &Path) -> Self {
        let folders = FOLDERS.map(|(name, parent)| Entry { name, parent, file: None });
        let files = File::ALL.map(|file| (file.name(), NET, Node::Proc(file)));
        let settings = sysctl::names().map(|name| (name, SETTINGS, Node::Setting(name)));
        let files = files.into_iter().chain(settings);
        let files = files.map(|(name, parent, file)| Entry { name, parent, file: Some(file) });
        Self {
            entries: folders.into_iter().chain(files).collect(),
            socket: socket.to_owned(),
            open: Mutex::default(),
            opened: AtomicU64::new(0),
            started: SystemTime::now(),
        }
    }

    fn entry(&self, number: INodeNo) -> Option<(usize, &Entry)> {
        let index = usize::try_from(u64::from(number)).ok()?.checked_sub(1)?;
        self.entries.get(index).map(|entry| (index, entry))
    }

    fn attributes(&self, index: usize, entry: &Entry) -> FileAttr {
        let is_folder = entry.file.is_none();
        let time = self.started;
        FileAttr {
            ino: INodeNo(index as u64 + 1),
            // As in /proc, where a text is as long as it turns out to be.
            size: 0,
            blocks: 0,
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind: if is_folder { FileType::Directory } else { FileType::RegularFile },
            perm: match entry.file {
                None => 0o555,
                Some(Node::Setting(_)) => 0o644,
                Some(_) => 0o444,
            },
            nlink: if is_folder { 2 } else { 1 },
            uid: 0,
            gid: 0,
            rdev: 0,
            flags: 0,
            blksize: 4096,
        }
    }

    /// What is in a folder.
    fn children(&self, folder: usize) -> impl Iterator<Item = (usize, &Entry)> {
        let inside = move |(index, entry): &(usize, &Entry)| *index != 0 && entry.parent == folder;
        self.entries.iter().enumerate().filter(inside)
    }

    fn text(&self, node: Node) -> Result<Vec<u8>, Errno> {
        match node {
            Node::Setting(name) => {
                self.ask(name, |client| sysctl::text(client, name)).map(String::into_bytes)
            }
            Node::Settings => Err(Errno::EISDIR),
            Node::Proc(file) => self.ask(file.name(), |client| file.text(client)),
        }
    }

    /// Asks the control socket; what it refuses has its errno.
    fn ask<T>(
        &self,
        file: &str,
        question: impl FnOnce(&mut Client) -> Result<T, ClientError>,
    ) -> Result<T, Errno> {
        let answer = Client::connect_to(&self.socket).and_then(|mut client| question(&mut client));
        answer.map_err(|error| match error.errno() {
            Some(errno) => {
                tracing::info!(file, "{error}");
                Errno::from_i32(errno)
            }
            None => {
                tracing::warn!(file, "{error}");
                Errno::EIO
            }
        })
    }

    /// Where a write begins.
    fn position(&self, handle: FileHandle, offset: u64, length: usize) -> u64 {
        let mut open = self.open.lock().expect("no panic while locked");
        let appended = open.get_mut(&handle.into()).and_then(|file| file.appended.as_mut());
        appended.map_or(offset, |end| std::mem::replace(end, *end + length as u64))
    }

    /// The setting that a file is.
    fn setting(&self, number: INodeNo) -> Option<&'static str> {
        match self.entry(number)?.1.file? {
            Node::Setting(name) => Some(name),
            _ => None,
        }
    }
}

impl Filesystem for Tree {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self
            .entry(parent)
            .and_then(|(folder, _)| self.children(folder).find(|(_, entry)| entry.name == name));
        match found {
            Some((index, entry)) => {
                reply.entry(&FOR_LONG, &self.attributes(index, entry), Generation(0));
            }
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.entry(number) {
            Some((index, entry)) => reply.attr(&FOR_LONG, &self.attributes(index, entry)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        mode: Option<u32>,
        user: Option<u32>,
        group: Option<u32>,
        _: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        // Truncated before it is written; otherwise as it is.
        match self.entry(number).filter(|_| self.setting(number).is_some()) {
            Some((index, entry)) if mode.or(user).or(group).is_none() => {
                reply.attr(&FOR_LONG, &self.attributes(index, entry));
            }
            _ => reply.error(Errno::EACCES),
        }
    }

    fn open(&self, _: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let Some(node) = self.entry(number).and_then(|(_, entry)| entry.file) else {
            return reply.error(Errno::ENOENT);
        };
        // Root passes the check of the mode.
        if flags.acc_mode() != OpenAccMode::O_RDONLY && self.setting(number).is_none() {
            return reply.error(Errno::EACCES);
        }
        match self.text(node) {
            Ok(text) => {
                let handle = self.opened.fetch_add(1, Ordering::Relaxed);
                let flags = OFlags::from_bits_retain(flags.0.cast_unsigned());
                let appended = flags.contains(OFlags::APPEND).then_some(0);
                let file = Open { text, appended };
                self.open.lock().expect("no panic while locked").insert(handle, file);
                reply.opened(FileHandle(handle), FopenFlags::FOPEN_DIRECT_IO);
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let open = self.open.lock().expect("no panic while locked");
        let Some(Open { text, .. }) = open.get(&handle.into()) else {
            return reply.error(Errno::EBADF);
        };
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
        let end = start.saturating_add(size as usize).min(text.len());
        reply.data(text.get(start..end).unwrap_or_default());
    }

    /// Each write is a value, as in `/proc/sys`: what does not begin at the start is ignored.
    fn write(
        &self,
        _: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let Some(name) = self.setting(number) else { return reply.error(Errno::EACCES) };
        let Ok(text) = std::str::from_utf8(data) else { return reply.error(Errno::EINVAL) };
        let offset = self.position(handle, offset, data.len());
        let set = |client: &mut Client| sysctl::set(client, name, text);
        match if offset == 0 { self.ask(name, set) } else { Ok(()) } {
            Ok(()) => reply.written(data.len() as u32),
            Err(errno) => reply.error(errno),
        }
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.open.lock().expect("no panic while locked").remove(&handle.into());
        reply.ok();
    }

    fn readdir(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let Some((folder, entry)) = self.entry(number).filter(|(_, e)| e.file.is_none()) else {
            return reply.error(Errno::ENOTDIR);
        };
        let selves = [(folder, "."), (entry.parent, "..")];
        let children = self.children(folder).map(|(index, child)| (index, child.name));
        let names = selves.into_iter().chain(children).enumerate();
        for (position, (index, name)) in names.skip(usize::try_from(offset).unwrap_or(usize::MAX)) {
            let is_folder = self.entries.get(index).is_some_and(|entry| entry.file.is_none());
            let kind = if is_folder { FileType::Directory } else { FileType::RegularFile };
            if reply.add(INodeNo(index as u64 + 1), position as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }
}
