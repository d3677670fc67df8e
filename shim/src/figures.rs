//! Where figures are kept: in memory that `tmem run` shares, or in memory of
//! this process, which then tells of them at its end.

use std::fmt::Write;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::ptr::null_mut;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use tmem_config::write_file;
use tmem_pager::live::Live;
use tmem_pager::own::Own;
use tmem_pager::stats::{MAGIC, Shared, Slot, Totals};
use tmem_pager::sys::thread;

/// What to tell at the end, and of what.
struct Report {
    slot: &'static Slot,
    pid: u32,
    file: Option<PathBuf>,
    summary: bool,
    /// A forked child has something to tell once it pages; one that only starts a program
    /// has not.
    forked: bool,
}

/// That of this process, a leaked box; null without one.
static REPORT: AtomicPtr<Report> = AtomicPtr::new(null_mut());

/// The memory that processes share.
pub(crate) fn shared(memory: &OwnedFd) -> Option<&'static Shared> {
    map(memory.as_raw_fd()).filter(|s| s.magic.load(Relaxed) == MAGIC)
}

fn map(fd: libc::c_int) -> Option<&'static Shared> {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: room for the answer; all zeros is a value.
    let size = unsafe {
        libc::fstat(fd, stat.as_mut_ptr());
        stat.assume_init().st_size
    };
    // A file of another release may be shorter.
    if usize::try_from(size).ok()? < Shared::LEN {
        return None;
    }
    let rw = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping of a file that is long enough.
    let at = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            Shared::LEN,
            rw,
            libc::MAP_SHARED,
            fd,
            0,
        )
    };
    // SAFETY: mapped for good, page-aligned, and atomics throughout.
    (at != libc::MAP_FAILED).then(|| unsafe { &*at.cast::<Shared>() })
}

/// Figures, where the process shows itself if that is not in memory of the family, and the
/// descriptor that the engine is to hold for those who look.
pub(crate) type Kept = (&'static Slot, Option<&'static Live>, Option<OwnedFd>);

/// Figures of this process alone, told at its end where the user asks for that.
pub(crate) fn own(file: Option<PathBuf>, summary: bool) -> Kept {
    let pid = std::process::id();
    let (slot, live, fd) = match visible() {
        Some((own, fd)) => {
            own.begin(pid);
            (&own.slot, Some(&own.live), Some(fd))
        }
        None => (hidden(), None, None),
    };
    slot.pid.store(pid, Relaxed);
    if file.is_some() || summary {
        // Only the constructor comes here, and each forked child once.
        let forked = !REPORT.load(Acquire).is_null();
        let report = Box::leak(Box::new(Report {
            slot,
            pid,
            file,
            summary: summary && !forked,
            forked,
        }));
        REPORT.store(report, Release);
    }
    (slot, live, fd)
}

/// Memory for figures that others can look at while the process runs, as far as the kernel
/// lets them look at this process, and the descriptor by which they do.
fn visible() -> Option<(&'static Own, OwnedFd)> {
    if thread::is_confined() {
        // A filter of system calls may end the process for it.
        return None;
    }
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: the name is a C string.
    let fd = unsafe { libc::memfd_create(c"tmem-own".as_ptr(), flags) };
    if fd < 0 {
        return None;
    }
    // SAFETY: the descriptor was just made and nobody else has it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: plain calls on a descriptor that is open. The file gets its length before it is
    // mapped, and keeps it: nobody who looks is to get a SIGBUS.
    let at = unsafe {
        let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
        if libc::ftruncate(fd.as_raw_fd(), Own::LEN as libc::off_t) != 0
            || libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) != 0
        {
            return None;
        }
        let (rw, shared) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        let at = libc::mmap(null_mut(), Own::LEN, rw, shared, fd.as_raw_fd(), 0);
        // It is nothing of the program's.
        libc::madvise(at, Own::LEN, libc::MADV_DONTDUMP);
        at
    };
    // SAFETY: mapped for good, page-aligned, and atomics throughout; all zeros is a value.
    (at != libc::MAP_FAILED).then(|| (unsafe { &*at.cast::<Own>() }, fd))
}

/// Memory of this process alone.
fn hidden() -> &'static Slot {
    let layout = std::alloc::Layout::new::<Slot>();
    // SAFETY: the layout is that of a slot, which is not empty.
    let slot = unsafe { std::alloc::alloc_zeroed(layout) }.cast::<Slot>();
    if slot.is_null() {
        std::alloc::handle_alloc_error(layout);
    }
    // SAFETY: allocated just now and for good; all zeros is a valid value of every field.
    unsafe { &*slot }
}

#[used]
#[unsafe(link_section = ".fini_array")]
static AT_END: extern "C" fn() = tell;

/// At the end of the process, when it ends in the usual way.
extern "C" fn tell() {
    // SAFETY: null, or a leaked box.
    if let Some(report) = unsafe { REPORT.load(Acquire).as_ref() } {
        crate::heap::undisturbed(|| report.tell());
    }
}

impl Report {
    fn tell(&self) {
        let pages = self.slot.paging.load(Relaxed) != 0;
        if self.pid != std::process::id() || (self.forked && !pages) {
            return;
        }
        let mut totals = Totals::new();
        totals.add(self.slot);
        if let Some(path) = &self.file {
            let mut text = String::new();
            let written = totals
                .write_json(&mut text)
                .map_err(std::io::Error::other)
                .and_then(|()| write_file(path, text.as_bytes()));
            if let Err(error) = written {
                let text = format!("statistics not written to {}: {error}", path.display());
                crate::start::say(&text);
            }
        }
        if self.summary {
            let mut text = String::new();
            // Text in memory takes everything.
            let _ = write!(
                text,
                "memory: budget {} MiB, peak {} MiB; file pages {} MiB, not counted; on servers at \
                 most {} MiB; pages: {} faults, {} fetched, {} evicted, {} lost",
                totals.local_budget_bytes >> 20,
                totals.peak_counted_bytes >> 20,
                totals.files_bytes >> 20,
                totals.remote_bytes >> 20,
                totals.faults,
                totals.fetched_pages,
                totals.evicted_pages,
                totals.lost_pages,
            );
            crate::start::say(&text);
        }
    }
}
