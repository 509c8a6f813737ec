//! The labs that exist on this machine, and their removal: on drop, on a signal, and, for labs
//! whose process was killed, when the next lab is made.
//!
//! A lab is the folder `/run/rvs-lab/NAME`, the namespaces `NAME-*` and the pins below
//! `/sys/fs/bpf/NAME`. The folder has the files `owner` (process id and start time), `pids` (the
//! processes started in the lab) and, for a lab that is to stay, `kept`.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, Once};

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::LabError;
use super::topology::batch;

const LABS: &str = "/run/rvs-lab";
const NAMESPACES: &str = "/run/netns";

/// The labs of this process that go away on a signal.
static LIVE: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// The folder of a lab.
pub(super) fn dir(lab: &str) -> PathBuf {
    Path::new(LABS).join(lab)
}

/// Where the data path of a lab's director is pinned.
pub(super) fn pin(lab: &str) -> PathBuf {
    Path::new("/sys/fs/bpf").join(lab)
}

/// Takes a new lab in. The first of a process also removes what dead processes left.
pub(super) fn register(lab: &str) -> Result<(), LabError> {
    static FIRST: Once = Once::new();
    FIRST.call_once(|| {
        clean_stale();
        clean_on_signal();
    });
    let folder = dir(lab);
    fs::create_dir_all(&folder).map_err(LabError::file(&folder))?;
    let owner = folder.join("owner");
    let id = std::process::id();
    let text = format!("{id} {}", start_time(id).unwrap_or_default());
    fs::write(&owner, text).map_err(LabError::file(&owner))?;
    LIVE.lock().expect("no panic while locked").push(lab.into());
    Ok(())
}

/// Notes a process that is to end with the lab.
pub(super) fn add_process(lab: &str, pid: u32) -> Result<(), LabError> {
    let path = dir(lab).join("pids");
    let file = OpenOptions::new().create(true).append(true).open(&path);
    file.and_then(|mut file| writeln!(file, "{pid}")).map_err(LabError::file(&path))
}

/// Takes a lab out of the care of this process.
pub(super) fn mark_kept(lab: &str) -> Result<(), LabError> {
    let path = dir(lab).join("kept");
    fs::write(&path, "").map_err(LabError::file(&path))?;
    forget(lab);
    Ok(())
}

/// Removes a lab: ends its processes, deletes its namespaces, pins and files. What is gone already
/// is no error.
pub fn clean(lab: &str) {
    let namespaces = namespaces(lab);
    let inodes: Vec<u64> = namespaces
        .iter()
        .filter_map(|name| fs::metadata(Path::new(NAMESPACES).join(name)).ok())
        .map(|meta| meta.ino())
        .collect();
    let pids = fs::read_to_string(dir(lab).join("pids")).unwrap_or_default();
    for pid in pids.lines().filter_map(|line| line.parse::<i32>().ok()) {
        // A number that a stranger's process got since is in none of the lab's namespaces.
        let namespace = fs::metadata(format!("/proc/{pid}/ns/net")).map(|meta| meta.ino());
        if namespace.is_ok_and(|inode| inodes.contains(&inode))
            && let Some(pid) = Pid::from_raw(pid)
        {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    let script: String = namespaces.iter().map(|name| format!("netns del {name}\n")).collect();
    if let Err(error) = batch(None, &script) {
        eprintln!("lab {lab}: {error}");
    }
    let _ = fs::remove_dir_all(pin(lab));
    let _ = fs::remove_dir_all(dir(lab));
    forget(lab);
}

/// Removes the labs whose names begin with `prefix-` and that were [kept](super::Lab::keep);
/// returns their names.
pub fn clean_kept(prefix: &str) -> Vec<String> {
    let prefix = format!("{prefix}-");
    let kept = |lab: &String| lab.starts_with(&prefix) && dir(lab).join("kept").exists();
    let labs: Vec<String> = labs().into_iter().filter(kept).collect();
    labs.iter().for_each(|lab| clean(lab));
    labs
}

/// Makes sure that a BPF file system is mounted where the pins go.
pub fn mount_bpffs() -> Result<(), LabError> {
    const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
    let path = Path::new("/sys/fs/bpf");
    let is_mounted = || rustix::fs::statfs(path).is_ok_and(|fs| fs.f_type as u64 == BPF_FS_MAGIC);
    if is_mounted() {
        return Ok(());
    }
    let _ = Command::new("mount").args(["-t", "bpf", "bpf", "/sys/fs/bpf"]).status();
    if is_mounted() {
        return Ok(());
    }
    Err(LabError::Missing("mount -t bpf bpf /sys/fs/bpf".into()))
}

fn forget(lab: &str) {
    LIVE.lock().expect("no panic while locked").retain(|other| other != lab);
}

fn namespaces(lab: &str) -> Vec<String> {
    let prefix = format!("{lab}-");
    entries(NAMESPACES).into_iter().filter(|name| name.starts_with(&prefix)).collect()
}

fn labs() -> Vec<String> {
    entries(LABS)
}

fn entries(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn clean_stale() {
    for lab in labs() {
        let owner = fs::read_to_string(dir(&lab).join("owner")).unwrap_or_default();
        let mut words = owner.split(' ');
        // A lab that is just being made has no owner file yet.
        let (Some(Ok(pid)), Some(start)) = (words.next().map(str::parse), words.next()) else {
            continue;
        };
        let alive = start_time(pid).is_some_and(|time| time == start);
        if !alive && !dir(&lab).join("kept").exists() {
            clean(&lab);
        }
    }
}

/// The start time of a process, field 22 of proc(5)'s `stat`, or `None` if there is none of that id.
fn start_time(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(") ")?;
    after_name.split(' ').nth(19).map(str::to_owned)
}

fn clean_on_signal() {
    let Ok(mut signals) = Signals::new([SIGINT, SIGTERM, SIGHUP]) else { return };
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            let labs = LIVE.lock().expect("no panic while locked").clone();
            labs.iter().for_each(|lab| clean(lab));
            std::process::exit(128 + signal);
        }
    });
}
