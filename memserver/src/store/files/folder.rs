//! The folder in which a server keeps its files.

use super::Opened;
use rustix::fs::{
    AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, flock, fstat, fstatfs, mkdirat, openat,
    unlinkat,
};
use rustix::process::geteuid;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};
use thiserror::Error;

/// What `statfs` says of a tmpfs.
const TMPFS: i64 = 0x0102_1994;

/// How long another server may take to let go of the folder: one that was killed is still giving
/// its memory back.
const PATIENCE: Duration = Duration::from_secs(2);

/// The files in it.
const NAMES: [&str; 3] = ["table", "bits", "pages"];

/// Why a folder cannot be used.
#[derive(Debug, Error)]
pub enum FolderError {
    /// It cannot be had.
    #[error("cannot be opened: {0}")]
    Open(io::Error),
    /// It is on a disk, or on a network.
    #[error("is not on a tmpfs, where memory is; give a folder below /dev/shm")]
    NotMemory,
    /// Somebody else's.
    #[error("belongs to another user (uid {0}); name a folder of your own")]
    Owner(u32),
    /// Others may look into it.
    #[error("can be entered by others; `chmod 700` it, once it is sure that nobody has changed it")]
    Mode,
    /// Another server runs there.
    #[error("is in use by another server; end that one, or name another folder")]
    Locked,
    /// A file in it is not as a server makes it.
    #[error("has a file `{name}` that {what}; remove it")]
    File {
        /// Its name.
        name: &'static str,
        /// What is wrong with it.
        what: String,
    },
}

/// Opens a folder, or makes it, and takes its lock; and the files in it.
pub(super) fn open(path: &Path) -> Result<Opened, FolderError> {
    match mkdirat(CWD, path, Mode::RWXU) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(FolderError::Open(error.into())),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = openat(CWD, path, flags, Mode::empty()).map_err(opened)?;
    let system = fstatfs(&folder).map_err(opened)?;
    if system.f_type != TMPFS {
        return Err(FolderError::NotMemory);
    }
    let about = fstat(&folder).map_err(opened)?;
    if about.st_uid != geteuid().as_raw() {
        return Err(FolderError::Owner(about.st_uid));
    }
    if about.st_mode & 0o077 != 0 {
        return Err(FolderError::Mode);
    }
    lock(&folder)?;
    let [table, bits, pages] = NAMES.map(|name| file(&folder, name));
    Ok(Opened {
        table: table?,
        bits: bits?,
        pages: pages?,
        lock: Some(folder),
    })
}

/// Removes what [`open`] has made, but not the folder.
pub(super) fn remove(folder: &OwnedFd) {
    for name in NAMES {
        // What is not there need not be removed.
        let _ = unlinkat(folder, name, AtFlags::empty());
    }
}

fn opened(error: rustix::io::Errno) -> FolderError {
    FolderError::Open(error.into())
}

/// Takes the lock, which ends with the last descriptor of the folder that has it.
fn lock(folder: &OwnedFd) -> Result<(), FolderError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match flock(folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(20));
            }
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(FolderError::Locked),
            Err(error) => return Err(opened(error)),
        }
    }
}

/// A file of the folder, made where there is none.
fn file(folder: &OwnedFd, name: &'static str) -> Result<OwnedFd, FolderError> {
    let wrong = |what: String| FolderError::File { name, what };
    let flags =
        OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file =
        openat(folder, name, flags, Mode::RUSR | Mode::WUSR).map_err(|error| match error {
            rustix::io::Errno::LOOP => wrong("is a symbolic link".to_owned()),
            error => wrong(format!("cannot be opened: {error}")),
        })?;
    let about = fstat(&file).map_err(opened)?;
    if FileType::from_raw_mode(about.st_mode) != FileType::RegularFile {
        return Err(wrong("is no regular file".to_owned()));
    }
    if about.st_uid != geteuid().as_raw() {
        return Err(wrong(format!(
            "belongs to another user (uid {})",
            about.st_uid
        )));
    }
    if about.st_mode & 0o077 != 0 {
        return Err(wrong("others may open".to_owned()));
    }
    if about.st_nlink != 1 {
        return Err(wrong("has another name too".to_owned()));
    }
    Ok(file)
}
