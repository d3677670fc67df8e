//! Figures that the paged processes leave in shared memory.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tmem_pager::names::Names;
use tmem_pager::stats::{MAGIC, Shared, Totals};

/// The shared memory, mapped here as long as this lives.
pub(crate) struct Figures {
    file: OwnedFd,
    shared: *const Shared,
}

impl Figures {
    /// Makes the memory file.
    pub(crate) fn new() -> io::Result<Figures> {
        // SAFETY: the name is a C string.
        let fd = unsafe { libc::memfd_create(c"tmem-stats".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and nobody else has it.
        let file = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: a plain call on a descriptor that is open.
        if unsafe { libc::ftruncate(file.as_raw_fd(), Shared::LEN as libc::off_t) } != 0 {
            return Err(io::Error::last_os_error());
        }
        let figures = Figures::map(file)?;
        figures.shared().magic.store(MAGIC, Relaxed);
        Ok(figures)
    }

    /// The memory of another process, by its [`Figures::path`].
    pub(crate) fn open(path: &OsStr) -> io::Result<Figures> {
        let file = fs::OpenOptions::new().read(true).write(true).open(path)?;
        // A shorter file could not be read to its end.
        if file.metadata()?.len() != Shared::LEN as u64 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Figures::map(file.into())
    }

    fn map(file: OwnedFd) -> io::Result<Figures> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping of a file of this length.
        let address = unsafe {
            let (shared, fd) = (libc::MAP_SHARED, file.as_raw_fd());
            libc::mmap(std::ptr::null_mut(), Shared::LEN, protection, shared, fd, 0)
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Figures {
            file,
            shared: address.cast(),
        })
    }

    /// What another process of this user opens to get at the figures.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// Has all processes share a budget.
    pub(crate) fn limit(&self, bytes: u64) {
        self.shared().family.limit(bytes);
    }

    /// The same memory once more, for another thread.
    pub(crate) fn again(&self) -> io::Result<Figures> {
        Figures::map(self.file.try_clone()?)
    }

    /// Where the processes find addresses of servers.
    pub(crate) fn names(&self) -> &Names {
        &self.shared().names
    }

    /// The figures of all processes so far.
    pub(crate) fn totals(&self) -> Totals {
        self.shared().totals()
    }

    fn shared(&self) -> &Shared {
        // SAFETY: mapped until drop, page-aligned, and atomics throughout,
        // for which any bytes are a value.
        unsafe { &*self.shared }
    }
}

// SAFETY: the mapping is this value's own wherever it is, and atomics throughout.
unsafe impl Send for Figures {}

impl Drop for Figures {
    fn drop(&mut self) {
        // SAFETY: the mapping is this one's and no reference to it is left.
        unsafe { libc::munmap(self.shared.cast_mut().cast(), Shared::LEN) };
    }
}

/// Writes the figures as JSON, whole or not at all.
pub(crate) fn write_json(path: &Path, totals: &Totals) -> io::Result<()> {
    let mut text = String::new();
    totals.write_json(&mut text).map_err(io::Error::other)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".tmp{}", std::process::id()));
    let beside = path.with_file_name(name);
    fs::write(&beside, text)
        .and_then(|()| fs::rename(&beside, path))
        .inspect_err(|_| drop(fs::remove_file(&beside)))
}

/// The figures for people.
pub(crate) fn summary(totals: &Totals, time: Duration) -> String {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    // Pages of files do not count there: of one large process it says less.
    let of_all = if totals.family_peak_bytes > totals.peak_resident_bytes {
        let (n, peak) = (totals.processes, mib(totals.family_peak_bytes));
        format!(" (all {n} processes: {peak:.1} MiB)")
    } else {
        String::new()
    };
    format!(
        "tmem: budget {:.1} MiB, peak resident {:.1} MiB{of_all}, remote at most {:.1} MiB\n\
         tmem: {} faults, {} pages fetched ({} ahead), {} evicted, {} lost\n\
         tmem: fault p50 {:.1} us, p99 {:.1} us; {:.3} s in all\n",
        mib(totals.local_budget_bytes),
        mib(totals.peak_resident_bytes),
        mib(totals.remote_bytes),
        totals.faults,
        totals.fetched_pages,
        totals.prefetched_pages,
        totals.evicted_pages,
        totals.lost_pages,
        totals.fault_us(0.5),
        totals.fault_us(0.99),
        time.as_secs_f64(),
    )
}
