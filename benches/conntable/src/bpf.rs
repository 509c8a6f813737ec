//! What aya has no call for: batch commands, and an array map as memory.

use std::io;
use std::ops::Deref;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

use anyhow::{Context, Result};
use aya_obj::generated::{bpf_attr, bpf_cmd};
use conntable_ebpf::{Key, Value};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// An entry as user space sees it.
pub type Entry = conntable_ebpf::Entry<AtomicU32, AtomicU64>;

const CHUNK: usize = 1 << 16;

/// Runs a batch command; how many elements it did, and whether it reached the map's end.
fn batch(command: bpf_cmd, fill: impl FnOnce(&mut bpf_attr)) -> io::Result<(u32, bool)> {
    // SAFETY: all zero is a valid `bpf_attr`.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    fill(&mut attr);
    // SAFETY: the callers below pass pointers to buffers of `count` elements that outlive the call.
    let code = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut attr, size_of_val(&attr)) };
    let error = io::Error::last_os_error();
    if code < 0 && error.raw_os_error() != Some(libc::ENOENT) {
        return Err(error);
    }
    // SAFETY: the kernel writes it in any case.
    Ok((unsafe { attr.batch.count }, code < 0))
}

/// Reads every element of a hash map; the sum of their words and expiries, and their number.
pub fn scan(map: BorrowedFd<'_>) -> Result<(u64, u64)> {
    let mut keys: Vec<Key> = vec![[0; 2]; CHUNK];
    let mut values = vec![Value::default(); CHUNK];
    // Where to go on: for hash maps a 32-bit bucket number.
    let mut position: Option<u32> = None;
    let (mut sum, mut total) = (0, 0);
    loop {
        let mut next = 0u32;
        let (count, end) = batch(bpf_cmd::BPF_MAP_LOOKUP_BATCH, |attr| {
            attr.batch.in_batch = position.as_ref().map_or(0, |p| std::ptr::from_ref(p) as u64);
            attr.batch.out_batch = &raw mut next as u64;
            attr.batch.keys = keys.as_mut_ptr() as u64;
            attr.batch.values = values.as_mut_ptr() as u64;
            attr.batch.count = CHUNK as u32;
            attr.batch.map_fd = map.as_raw_fd() as u32;
        })
        .context("read a batch")?;
        for value in &values[..count as usize] {
            sum += (value.word + value.expires) as u64;
        }
        total += count as u64;
        if end {
            return Ok((sum, total));
        }
        position = Some(next);
    }
}

/// Deletes `keys` from a hash map.
pub fn delete(map: BorrowedFd<'_>, keys: &[Key]) -> Result<()> {
    let (count, _) = batch(bpf_cmd::BPF_MAP_DELETE_BATCH, |attr| {
        attr.batch.keys = keys.as_ptr() as u64;
        attr.batch.count = keys.len() as u32;
        attr.batch.map_fd = map.as_raw_fd() as u32;
    })
    .context("delete a batch")?;
    anyhow::ensure!(count as usize == keys.len(), "deleted {count} of {}", keys.len());
    Ok(())
}

/// The set-associative table, shared with the kernel.
pub struct Mapped {
    start: NonNull<Entry>,
    len: usize,
}

// SAFETY: a mapping belongs to the process, and its contents are atomics.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Maps the `len` entries of the array map `map`.
    pub fn new(map: BorrowedFd<'_>, len: usize) -> Result<Self> {
        let (prot, flags) =
            (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::POPULATE);
        let bytes = len * size_of::<Entry>();
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let start = unsafe { mmap(std::ptr::null_mut(), bytes, prot, flags, map, 0) };
        let start = NonNull::new(start.context("map the table")?.cast()).context("address zero")?;
        Ok(Self { start, len })
    }
}

impl Deref for Mapped {
    type Target = [Entry];

    fn deref(&self) -> &[Entry] {
        // SAFETY: the mapping is that long, lives as long as `self`, and holds atomics only.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: made in `new`; nothing borrows it any more.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len * size_of::<Entry>()) };
    }
}
