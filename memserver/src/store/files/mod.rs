//! What outlives a server's process: its pages, the bits that say which are stored, and the
//! table of its sessions, in files of memory.
//!
//! Such files are in a folder on a tmpfs, or have no name and are handed from one process to
//! the next. Either way the next process finds them as the last one left them, also where that
//! was killed.

pub(crate) mod bits;
mod folder;
pub(crate) mod record;
pub(crate) mod state;
pub(crate) mod table;

use bits::Bits;
pub use folder::FolderError;
use record::Record;
use rustix::fs::{
    FallocateFlags, FlockOperation, MemfdFlags, fallocate, flock, fstatvfs, ftruncate, memfd_create,
};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
pub use table::TableError;
use table::{Identity, Table};
use tmem_wire::{PAGE_SIZE, Status};

/// The files of a server, as descriptors.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) table: OwnedFd,
    pub(crate) bits: OwnedFd,
    pub(crate) pages: OwnedFd,
    /// The folder, which is locked as long as this is open.
    pub(crate) lock: Option<OwnedFd>,
}

/// What is to be had of files: how many slabs, of how many pages, and how many places for bits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    pub(crate) slabs: u64,
    pub(crate) slab_pages: u32,
    pub(crate) places: u32,
}

/// Why files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The folder is not as it should be.
    #[error("the folder {0}")]
    Folder(#[from] FolderError),
    /// The session table cannot be read.
    #[error(
        "the session table of the last server cannot be used: {0}; what clients had there is lost: remove the files to begin anew"
    )]
    Table(#[from] TableError),
    /// They are of a server with other slabs.
    #[error(
        "the last server there had slabs of {0} bytes: give --slab-size {0}, or remove the files"
    )]
    SlabSize(u64),
    /// More is in use than there is to be.
    #[error(
        "clients have more there than this server is to give: give a --capacity of {0} bytes at least, or remove the files"
    )]
    Capacity(u64),
    /// The system failed.
    #[error("{0}")]
    System(#[from] io::Error),
}

/// The files of a server that runs.
#[derive(Debug)]
pub(crate) struct Files {
    table: Mutex<Table>,
    pub(crate) bits: Arc<Bits>,
    pub(crate) pages: OwnedFd,
    lock: Option<OwnedFd>,
    /// Another process goes on with them: nothing is noted any more.
    left: AtomicBool,
}

impl Opened {
    /// Those of a folder, which is made where there is none.
    pub(crate) fn folder(path: &Path) -> Result<Opened, FilesError> {
        Ok(folder::open(path)?)
    }

    /// Files without a name.
    pub(crate) fn unnamed() -> Result<Opened, FilesError> {
        let file = |name| memfd_create(name, MemfdFlags::CLOEXEC).map_err(io::Error::from);
        Ok(Opened {
            table: file("tmem-table")?,
            bits: file("tmem-bits")?,
            pages: file("tmem-pages")?,
            lock: None,
        })
    }

    /// Takes up what is in them; nothing of it is changed.
    pub(crate) fn load(self, geometry: Geometry, instance: [u8; 16]) -> Result<Files, FilesError> {
        let Geometry {
            slabs,
            slab_pages,
            places,
        } = geometry;
        let table = match Table::load(self.table.try_clone()?)? {
            Some(table) => table,
            None => {
                // Whatever else is there belongs to nobody.
                ftruncate(&self.pages, 0).map_err(io::Error::from)?;
                let identity = Identity {
                    instance,
                    slab_pages,
                };
                Table::create(self.table, identity)?
            }
        };
        let slab_bytes = |pages: u32| u64::from(pages) * PAGE_SIZE as u64;
        let had = table.identity().slab_pages;
        if had != slab_pages {
            return Err(FilesError::SlabSize(slab_bytes(had)));
        }
        let state = table.state();
        let slabs_held = state.slabs().last().map_or(0, |last| u64::from(*last) + 1);
        if slabs_held > slabs {
            return Err(FilesError::Capacity(slabs_held * slab_bytes(had)));
        }
        let places = places.max(state.last_place().map_or(0, |last| last + 1));
        if !state.fits(slabs, places) {
            return Err(TableError::Damaged(0).into());
        }
        let taken: Vec<u32> = state.places().collect();
        let bits = Bits::new(self.bits, places, slab_pages, taken.into_iter())?;
        Ok(Files {
            table: Mutex::new(table),
            bits,
            pages: self.pages,
            lock: self.lock,
            left: AtomicBool::new(false),
        })
    }
}

impl Files {
    /// The table; nothing is noted meanwhile.
    pub(crate) fn table(&self) -> MutexGuard<'_, Table> {
        // A change is noted whole, or the table says itself that it is stale.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a change before it happens.
    ///
    /// # Errors
    /// [`Status::Full`] when there is no room for the note.
    pub(crate) fn note(&self, record: &Record) -> Result<(), Status> {
        if self.left.load(Ordering::Acquire) {
            return Ok(());
        }
        self.table().append(record).map_err(|_| Status::Full)
    }

    /// The slabs that sessions hold.
    pub(crate) fn held(&self) -> BTreeSet<u32> {
        self.table().state().slabs()
    }

    /// Bytes of the file with the pages.
    pub(crate) fn pages_len(&self) -> u64 {
        let about = rustix::fs::fstat(&self.pages);
        about.map_or(0, |about| u64::try_from(about.st_size).unwrap_or(0))
    }

    /// Writes the table anew. Where there is no room for that, the next note tries again.
    pub(crate) fn settle(&self) {
        let _ = self.table().renew();
    }

    /// Another process goes on with the files, or none at all.
    pub(crate) fn leave(&self) {
        self.left.store(true, Ordering::Release);
    }

    /// The server's, by which clients know it.
    pub(crate) fn instance(&self) -> [u8; 16] {
        self.table().identity().instance
    }

    /// Removes them from their folder, and lets it go.
    pub(crate) fn remove(&self) {
        self.leave();
        if let Some(lock) = &self.lock {
            folder::remove(lock);
            // It ends with this process in any case.
            let _ = flock(lock, FlockOperation::Unlock);
        }
    }

    /// The descriptors by which another process goes on: table, bits, pages, and the lock of
    /// their folder.
    pub(crate) fn descriptors<R>(&self, f: impl FnOnce(&[BorrowedFd<'_>]) -> R) -> R {
        let table = self.table();
        let mut all = vec![
            table.file().as_fd(),
            self.bits.file().as_fd(),
            self.pages.as_fd(),
        ];
        all.extend(self.lock.as_ref().map(AsFd::as_fd));
        f(&all)
    }

    /// Takes memory for bytes of the pages, which could not be had when they are written.
    pub(crate) fn reserve(&self, at: u64, len: u64) -> Result<(), Status> {
        let flags = FallocateFlags::empty();
        rustix::io::retry_on_intr(|| fallocate(&self.pages, flags, at, len))
            .map_err(|_| Status::Full)
    }

    /// Gives the memory of bytes of the pages back; they are zeros then.
    pub(crate) fn punch(&self, at: u64, len: u64) {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        // A tmpfs does so for every range of a file that is there.
        let _ = rustix::io::retry_on_intr(|| fallocate(&self.pages, flags, at, len));
    }

    /// Whether their file system has room for so many bytes.
    pub(crate) fn has_room(&self, bytes: u64) -> bool {
        let Ok(system) = fstatvfs(&self.pages) else {
            return true;
        };
        // Without a limit it tells of no blocks at all.
        system.f_blocks == 0 || system.f_bavail.saturating_mul(system.f_frsize) >= bytes
    }
}
