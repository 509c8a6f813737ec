//! A BPF array map as memory (`BPF_F_MMAPABLE`).

use std::ffi::c_void;
use std::io;
use std::ops::Deref;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// The elements of an array map, shared with the kernel. `T` is a type of `rvs_core::layout`: all
/// that others write is in `Cell`s.
pub struct Mapped<T> {
    start: NonNull<T>,
    len: usize,
}

impl<T> Mapped<T> {
    /// Maps `len` elements of the array map `fd`, whose values are `T`s.
    pub fn new(fd: BorrowedFd<'_>, len: u32) -> io::Result<Self> {
        // The kernel rounds elements up to 8 bytes; a value type that is not a multiple of that
        // is the only element of its map, or four bytes wide and then mapped as the padded pair.
        let len = len as usize;
        let bytes = len * size_of::<T>();
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
        let start = unsafe { mmap(std::ptr::null_mut(), bytes, prot, flags, fd, 0)? };
        let start = NonNull::new(start.cast::<T>())
            .ok_or_else(|| io::Error::other("a map was mapped at address zero"))?;
        Ok(Self { start, len })
    }
}

impl<T> Deref for Mapped<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the mapping is `len` elements long and lives as long as `self`; it is aligned to
        // a page; the layout's types accept any bytes; what changes under us is in cells.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        let bytes = self.len * size_of::<T>();
        // SAFETY: the mapping was made in `new` and nothing borrows it any more.
        let _ = unsafe { munmap(self.start.as_ptr().cast::<c_void>(), bytes) };
    }
}
