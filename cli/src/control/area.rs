//! The memory by which a process shows what it has, mapped here.

use std::fs::{File, OpenOptions};
use std::io;
use std::marker::PhantomData;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;

use tmem_pager::own::Own;
use tmem_pager::stats::{MAGIC, Shared};

/// Memory of this layout, as long as this lives.
pub(crate) struct Area<T> {
    at: *mut libc::c_void,
    of: PhantomData<T>,
}

/// A layout that is atomics throughout, for which any bytes are a value.
pub(crate) trait Layout {
    /// Whether the memory has this layout.
    fn is_one(&self) -> bool;
}

impl Layout for Shared {
    fn is_one(&self) -> bool {
        self.magic.load(Relaxed) == MAGIC
    }
}

impl Layout for Own {
    fn is_one(&self) -> bool {
        Own::is_one(self)
    }
}

impl<T: Layout> Area<T> {
    /// Maps the memory file at `path`.
    ///
    /// # Errors
    /// Those of the system; [`io::ErrorKind::InvalidData`] where it is none of this layout.
    pub(crate) fn open(path: &Path) -> io::Result<Area<T>> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let odd = || {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "it is of another release of tmem",
            )
        };
        if !is_sealed(&file) || file.metadata()?.len() < size_of::<T>() as u64 {
            return Err(odd());
        }
        let rw = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping of a file that is long enough, and stays so, as its seal says.
        let at = unsafe {
            let fd = file.as_raw_fd();
            libc::mmap(
                std::ptr::null_mut(),
                size_of::<T>(),
                rw,
                libc::MAP_SHARED,
                fd,
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let area: Area<T> = Area {
            at,
            of: PhantomData,
        };
        area.get().is_one().then_some(area).ok_or_else(odd)
    }

    /// The memory.
    pub(crate) fn get(&self) -> &T {
        // SAFETY: mapped until drop, page-aligned, and atomics throughout, for which any bytes
        // are a value.
        unsafe { &*self.at.cast() }
    }
}

/// Whether nobody can make the file shorter, so that looking at it ends in a SIGBUS.
fn is_sealed(file: &File) -> bool {
    // SAFETY: a plain call on a descriptor that is open.
    let seals = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) };
    seals >= 0 && seals & libc::F_SEAL_SHRINK != 0
}

impl<T> Drop for Area<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping is this one's and no reference to it is left.
        unsafe { libc::munmap(self.at, size_of::<T>()) };
    }
}
