//! The folder of the pins, on a BPF file system, from wherever a program is started.
//!
//! `ip netns exec` gives a program a mount namespace with a `/sys` of its own, in which no BPF file
//! system is mounted. Pins made on one mounted there would end with the program. So they go where
//! the rest of the machine has them: to the same path as those see it who started the program.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags};

/// Where BPF file systems are mounted.
const MOUNT_POINT: &str = "/sys/fs/bpf";
/// An open folder of pins.
pub struct PinFolder {
    place: PathBuf,
    path: PathBuf,
    folder: OwnedFd,
}

impl PinFolder {
    /// Makes the folder if it is not there, mounts a BPF file system on `/sys/fs/bpf` if `path` is
    /// below and none is mounted yet, and opens it.
    pub fn make(path: &Path) -> io::Result<Self> {
        let place = match find(path) {
            Some(place) => place,
            None => {
                mount(path);
                find(path).ok_or_else(|| {
                    io::Error::other(
                        "it is not on a BPF file system (mount -t bpf bpf /sys/fs/bpf)",
                    )
                })?
            }
        };
        std::fs::create_dir_all(&place)?;
        Self::open_at(path, &place)
    }

    /// Opens the folder, which must be there.
    pub fn open(path: &Path) -> io::Result<Self> {
        let place = find(path).ok_or(io::ErrorKind::NotFound)?;
        Self::open_at(path, &place)
    }

    fn open_at(path: &Path, place: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(place, flags, Mode::empty())?;
        // Through the open folder: another process may end, and without CAP_SYS_PTRACE nobody
        // passes by its root.
        let path = match place == path {
            true => path.to_owned(),
            false => format!("/proc/self/fd/{}", folder.as_raw_fd()).into(),
        };
        Ok(Self { place: place.to_owned(), path, folder })
    }

    /// Where it is; without CAP_SYS_PTRACE it may be out of reach.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// A path to the folder for this process, while `self` lives, whatever capabilities it has.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for PinFolder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }
}

/// The path under which `path` is on a BPF file system.
fn find(path: &Path) -> Option<PathBuf> {
    if is_bpf(path) {
        return Some(path.to_owned());
    }
    let rest = path.strip_prefix("/").ok()?;
    ancestors().map(|pid| root(pid).join(rest)).find(|path| is_bpf(path))
}

/// Whether `path` is on a BPF file system, or would be if it were made.
fn is_bpf(path: &Path) -> bool {
    const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
    let there = path.ancestors().find(|path| path.exists());
    let system = there.and_then(|path| rustix::fs::statfs(path).ok());
    system.is_some_and(|system| system.f_type as u64 == BPF_FS_MAGIC)
}

/// The root folder as a process sees it.
fn root(pid: u32) -> PathBuf {
    format!("/proc/{pid}/root").into()
}

/// The process that started this one, the one that started that, and so on to the first.
fn ancestors() -> impl Iterator<Item = u32> {
    std::iter::successors(Some(std::os::unix::process::parent_id()), |pid| parent(*pid))
        .take_while(|pid| *pid != 0)
}

fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may have spaces; after it come the state and the parent.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Mounts a BPF file system on `/sys/fs/bpf` in the outermost mount namespace that can be reached.
/// Whether that worked is seen afterwards.
fn mount(path: &Path) {
    if !path.starts_with(MOUNT_POINT) {
        return;
    }
    // Through the root of a process one sees whether its namespace can be entered.
    let outermost = ancestors().filter(|pid| root(*pid).join("sys").exists()).last();
    let mut command = match outermost {
        Some(pid) => {
            let mut command = Command::new("nsenter");
            command.args(["--target", &pid.to_string(), "--mount", "mount"]);
            command
        }
        None => Command::new("mount"),
    };
    command.args(["-t", "bpf", "bpf", MOUNT_POINT]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _ = command.status();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ancestors_lead_to_the_first_process() {
        let all: Vec<u32> = ancestors().collect();
        assert_eq!(all.first(), Some(&std::os::unix::process::parent_id()));
        // The first one's parent is outside of what can be seen.
        assert_eq!(all.last().and_then(|pid| parent(*pid)), Some(0));
    }

    #[test]
    fn only_a_bpf_file_system_will_do() {
        assert!(!is_bpf(Path::new("/proc/self")));
        assert!(!is_bpf(Path::new("/no/such/folder")));
    }
}
