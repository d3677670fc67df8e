//! The two roots from which the engine opens everything else: the folder `/proc` and the
//! device `/dev/userfaultfd`.
//!
//! Both are opened while the program may still do so, stay open, and are handed to forked
//! children, because a program may change its root directory, its mounts, or its user.

use super::confined;
use super::fd::Fd;
use core::ffi::CStr;
use core::sync::atomic::AtomicI32;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

/// Their numbers in the file tables of the engine's tasks, or [`NONE`].
static PROC: AtomicI32 = AtomicI32::new(NONE);
static DEVICE: AtomicI32 = AtomicI32::new(NONE);
const NONE: i32 = -1;

/// A root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// The folder `/proc`.
    Proc,
    /// The device that creates userfaultfds, also for users who may not open the device
    /// itself.
    Device,
}

impl Root {
    fn place(self) -> &'static AtomicI32 {
        match self {
            Root::Proc => &PROC,
            Root::Device => &DEVICE,
        }
    }

    fn open(self) -> Result<Fd, Errno> {
        let (path, flags) = match self {
            Root::Proc => (c"/proc", OFlags::PATH | OFlags::DIRECTORY),
            Root::Device => (c"/dev/userfaultfd", OFlags::RDWR),
        };
        rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).map(Fd::from)
    }

    /// Keeps a file descriptor for good. Called once by each engine's thread.
    pub fn keep(self, fd: Fd) {
        let fd = fd.moved_up();
        self.place().store(fd.raw(), Release);
        core::mem::forget(fd);
    }

    /// Returns the file descriptor, in a task of the engine.
    pub fn get<'a>(self) -> Option<BorrowedFd<'a>> {
        let raw = self.place().load(Acquire);
        // SAFETY: it is never closed.
        (raw != NONE).then(|| unsafe { BorrowedFd::borrow_raw(raw) })
    }
}

/// Opens the roots that were not handed over. One that cannot be opened now is opened by
/// its path when it is needed.
pub fn open_missing() {
    for root in [Root::Proc, Root::Device] {
        if root.get().is_none()
            && let Ok(fd) = root.open()
        {
            root.keep(fd);
        }
    }
}

/// Forgets both in a process that was just forked, whose engine has another file table.
pub fn reset_after_fork() {
    PROC.store(NONE, Relaxed);
    DEVICE.store(NONE, Relaxed);
}

/// Returns the inode of a file below `/proc`.
pub fn inode(path: &CStr) -> Option<u64> {
    let stat = rustix::fs::statat(Root::Proc.get()?, path, AtFlags::empty()).ok()?;
    Some(stat.st_ino)
}

/// Opens a file to write at its end, by its path below `/proc`.
pub fn open_to_write(path: &str) -> Option<Fd> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::NOCTTY | OFlags::CLOEXEC;
    let proc = Root::Proc.get()?;
    let opened = rustix::fs::openat(proc, path, flags | OFlags::NONBLOCK, Mode::empty());
    opened.ok().map(Fd::from)
}

/// Opens a file for reading, by its path below `/proc`.
///
/// # Errors
/// Those of the kernel. `PERM` if the engine must open nothing.
pub fn open_in_proc(path: &CStr) -> Result<Fd, Errno> {
    if confined::opens_nothing() {
        return Err(Errno::PERM);
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let opened = match Root::Proc.get() {
        Some(proc) => rustix::fs::openat(proc, path, flags, Mode::empty()),
        None => {
            let flags_of_folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let proc = rustix::fs::openat(CWD, c"/proc", flags_of_folder, Mode::empty())?;
            let proc = Fd::from(proc);
            rustix::fs::openat(proc.as_fd(), path, flags, Mode::empty())
        }
    };
    opened.map(Fd::from)
}
