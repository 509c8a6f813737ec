//! The memory of the program whose system call is answered.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::io::Errno;

/// The most that is read or written at a time: more than any message of netlink has.
pub const MOST: usize = 1 << 20;
/// Longest path, with its NUL.
const PATH_MAX: usize = 4096;

/// A process's memory, by `/proc/PID/mem`.
pub struct Memory(File);

/// Parts of memory: addresses and lengths.
pub type Parts = Vec<(u64, usize)>;

impl Memory {
    /// That of the process that has this thread.
    pub fn of(thread: u32) -> Result<Self, Errno> {
        let file = File::options().read(true).write(true).open(format!("/proc/{thread}/mem"));
        file.map(Self).map_err(|_| Errno::PERM)
    }

    /// Bytes; `EFAULT` where there is no memory.
    pub fn read(&self, at: u64, length: usize) -> Result<Vec<u8>, Errno> {
        if length > MOST {
            return Err(Errno::MSGSIZE);
        }
        let mut bytes = vec![0; length];
        self.0.read_exact_at(&mut bytes, at).map_err(|_| Errno::FAULT)?;
        Ok(bytes)
    }

    /// A number.
    pub fn word(&self, at: u64) -> Result<u32, Errno> {
        let mut bytes = [0; 4];
        self.0.read_exact_at(&mut bytes, at).map_err(|_| Errno::FAULT)?;
        Ok(u32::from_ne_bytes(bytes))
    }

    /// A string that ends with a NUL, which is left out.
    pub fn string(&self, at: u64) -> Result<Vec<u8>, Errno> {
        let (mut text, mut at) = (Vec::new(), at);
        while text.len() < PATH_MAX {
            // To the end of its page: the next may not be there.
            let mut piece = vec![0; PATH_MAX - (at as usize % PATH_MAX)];
            let length = self.0.read_at(&mut piece, at).map_err(|_| Errno::FAULT)?;
            let piece = piece.get(..length).filter(|p| !p.is_empty()).ok_or(Errno::FAULT)?;
            if let Some(end) = piece.iter().position(|byte| *byte == 0) {
                text.extend_from_slice(&piece[..end]);
                return Ok(text);
            }
            text.extend_from_slice(piece);
            at += length as u64;
        }
        Err(Errno::NAMETOOLONG)
    }

    /// Writes bytes; `EFAULT` where there is no memory.
    pub fn write(&self, at: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.0.write_all_at(bytes, at).map_err(|_| Errno::FAULT)
    }

    /// The bytes of parts, one after another.
    pub fn gather(&self, parts: &Parts) -> Result<Vec<u8>, Errno> {
        if parts.iter().fold(0usize, |sum, (_, length)| sum.saturating_add(*length)) > MOST {
            return Err(Errno::MSGSIZE);
        }
        let read = |(at, length): &(u64, usize)| self.read(*at, *length);
        Ok(parts.iter().map(read).collect::<Result<Vec<_>, _>>()?.concat())
    }

    /// Writes bytes into parts, as far as they go.
    pub fn scatter(&self, parts: &Parts, mut bytes: &[u8]) -> Result<(), Errno> {
        for (at, length) in parts {
            let (now, rest) = bytes.split_at((*length).min(bytes.len()));
            self.write(*at, now)?;
            bytes = rest;
        }
        Ok(())
    }
}
