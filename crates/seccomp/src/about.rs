//! Calls that ask about a path, made about another one.

use std::ffi::{CStr, c_long};
use std::io;

use crate::Call;

/// Where such a call has what is of use here: indices of its arguments, and the length of what it
/// writes.
struct Form {
    path: usize,
    into: Option<(usize, usize)>,
    /// Index of the room there, if it is told.
    room: Option<usize>,
}

const STAT: usize = size_of::<libc::stat>();
const STATX: usize = size_of::<libc::statx>();

/// The calls of `stat(2)`, `statx(2)`, `access(2)` and `readlink(2)`; the last fails, as none of our
/// files is a link.
pub const ASKING: &[c_long] = &[
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
];

fn form(number: c_long) -> Option<Form> {
    let plain = Form { path: 0, into: None, room: None };
    Some(match number {
        libc::SYS_newfstatat => Form { path: 1, into: Some((2, STAT)), ..plain },
        libc::SYS_statx => Form { path: 1, into: Some((4, STATX)), ..plain },
        libc::SYS_faccessat | libc::SYS_faccessat2 => Form { path: 1, ..plain },
        #[cfg(target_arch = "x86_64")]
        libc::SYS_stat | libc::SYS_lstat => Form { into: Some((1, STAT)), ..plain },
        #[cfg(target_arch = "x86_64")]
        libc::SYS_access => plain,
        libc::SYS_readlinkat => Form { path: 1, into: Some((2, STATX)), room: Some(3) },
        #[cfg(target_arch = "x86_64")]
        libc::SYS_readlink => Form { path: 0, into: Some((1, STATX)), room: Some(2) },
        _ => return None,
    })
}

impl Call {
    /// Where the path is that one of [`ASKING`] asks about, and the folder that it begins at if that
    /// is named.
    pub fn asks_about(&self) -> Option<(Option<u64>, u64)> {
        let form = form(self.number)?;
        let folder = form.path.checked_sub(1).and_then(|index| self.args.get(index)).copied();
        Some((folder, *self.args.get(form.path)?))
    }

    /// Makes one of [`ASKING`] here, about `path`: where in the caller's memory its result goes, and
    /// the result.
    pub fn about(&self, path: &CStr) -> io::Result<Option<(u64, Vec<u8>)>> {
        let form = form(self.number).ok_or(io::ErrorKind::Unsupported)?;
        let (mut args, mut result) = (self.args, vec![0u8; STAT.max(STATX)]);
        let mut put = |index: usize, value: u64| args.get_mut(index).map(|arg| *arg = value);
        put(form.path, path.as_ptr() as u64);
        if let Some((index, length)) = form.into {
            put(index, result.as_mut_ptr() as u64);
            form.room.and_then(|index| put(index, length as u64));
        }
        let [a, b, c, d, e, _] = args;
        // SAFETY: one of the calls above: it reads the path, which ends with a NUL, and writes no more
        // than the longer of its structures, to where `result` has room for it; its other arguments
        // are numbers.
        if unsafe { libc::syscall(self.number, a, b, c, d, e) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(form.into.map(|(index, length)| {
            result.truncate(length);
            (self.args.get(index).copied().unwrap_or_default(), result)
        }))
    }
}
