//! The process's files in `/proc`.
//!
//! Paths use `thread-self`, since a process's own entries are empty once its first thread
//! has ended.

pub(super) mod path;
mod resident;
mod scan;
mod task;

pub use resident::{Resident, Shares};
pub use scan::PresentRun;
pub use task::{Waits, command, is_filtered, left_with, status, table_of, threads};
pub(super) use task::{text_of_status, wait_status};

use super::fd::Fd;
use super::roots::open_in_proc;
use crate::maps::{self, Flags};
use alloc::vec::Vec;
use core::ffi::CStr;
use core::ops::Range;
use rustix::io::Errno;

/// Files of `/proc` that stay open.
#[derive(Debug)]
pub struct Proc {
    statm: Fd,
    status: Fd,
    /// The last content of `status`, and how often it was used since.
    read: Option<Resident>,
    asked: u32,
    pagemap: Fd,
    mem: Fd,
    has_scan: bool,
    /// `aio-nr`, if it exists.
    aio: Option<Fd>,
    /// The `stat` file of the thread that was last asked for.
    stat: Option<(u32, Fd)>,
    /// Files that the parent's engine has opened, in a process that may not open its own.
    lists: Option<Lists>,
}

/// Files that are opened each time they are read, if the process may.
#[derive(Debug)]
struct Lists {
    maps: Fd,
    smaps: Fd,
    rollup: Fd,
}

/// The files of a process that its engine needs, in the order of [`Proc::of`].
pub const FILES: [&CStr; 8] = [
    c"statm",
    c"status",
    c"pagemap",
    c"mem",
    c"maps",
    c"smaps",
    c"smaps_rollup",
    // A file for all processes, which is not indispensable.
    c"../sys/fs/aio-nr",
];

/// Opens a file that stays open.
fn keep(path: &CStr) -> Result<Fd, Errno> {
    open_in_proc(path).map(Fd::moved_up)
}

impl Proc {
    /// Opens the files. Called by the engine's thread.
    ///
    /// # Errors
    /// Those of the kernel, for instance if `/proc` is not mounted.
    pub fn open() -> Result<Proc, Errno> {
        let statm = keep(c"thread-self/statm")?;
        let status = keep(c"thread-self/status")?;
        let pagemap = keep(c"thread-self/pagemap")?;
        let mem = keep(c"thread-self/mem")?;
        let aio = keep(c"sys/fs/aio-nr").ok();
        Ok(Proc::with([statm, status, pagemap, mem], aio, None))
    }

    /// Takes [`FILES`] that the engine of another process has opened. Returns `None` if
    /// they are not this process's, or an indispensable one is missing.
    pub fn of(files: [Option<Fd>; 8]) -> Option<Proc> {
        let [a, b, c, d, e, f, g, aio] = files;
        let files = [a?, b?, c?, d?, e?, f?, g?];
        let [statm, status, pagemap, mem, maps, smaps, rollup] = files.map(Fd::moved_up);
        let aio = aio.map(Fd::moved_up);
        let lists = Lists {
            maps,
            smaps,
            rollup,
        };
        let proc = Proc::with([statm, status, pagemap, mem], aio, Some(lists));
        proc.is_of_this_process().then_some(proc)
    }

    fn with([statm, status, pagemap, mem]: [Fd; 4], aio: Option<Fd>, lists: Option<Lists>) -> Proc {
        let mut proc = Proc {
            statm,
            status,
            read: None,
            asked: 0,
            pagemap,
            mem,
            has_scan: true,
            aio,
            stat: None,
            lists,
        };
        let mut none = Vec::new();
        proc.has_scan = proc
            .scan(0x1000, 0x2000, scan::IS_PRESENT, &mut none)
            .is_ok();
        proc
    }

    /// Tells whether the files are this process's, by reading a word that only this process
    /// has.
    fn is_of_this_process(&self) -> bool {
        let word = super::now_ns() ^ u64::from(super::thread::id()) << 40;
        let here = core::hint::black_box(word);
        let mut found = [0];
        self.words((&raw const here).addr(), &mut found) == 1 && found[0] == word
    }

    /// Returns the size of all mappings in pages.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn size_pages(&self) -> Result<u64, Errno> {
        self.statm().map(|[size, ..]| size)
    }

    /// Reads the first numbers of `statm`.
    fn statm(&self) -> Result<[u64; 3], Errno> {
        let mut buf = [0u8; 128];
        let n = rustix::io::pread(&self.statm, &mut buf, 0)?;
        let mut numbers = [0; 3];
        let mut fields = buf[..n].split(|b| *b == b' ');
        for number in &mut numbers {
            let digits = fields.next().ok_or(Errno::INVAL)?.iter();
            *number = digits
                .take_while(|b| b.is_ascii_digit())
                .fold(0, |v, b| v * 10 + u64::from(b - b'0'));
        }
        Ok(numbers)
    }

    /// Returns how many requests all contexts of `io_submit` in the system have room for
    /// (`aio-nr`). It changes whenever a process creates or destroys one.
    pub fn asynchronous_requests(&self) -> Option<u64> {
        let mut buf = [0u8; 24];
        let n = rustix::io::pread(self.aio.as_ref()?, &mut buf, 0).ok()?;
        core::str::from_utf8(&buf[..n]).ok()?.trim().parse().ok()
    }

    /// Reads all of `maps`.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn text_of_maps() -> Result<Vec<u8>, Errno> {
        let mut text = Vec::new();
        whole(&open_in_proc(c"thread-self/maps")?, &mut text)?;
        Ok(text)
    }

    /// Reads all of `maps` into a vector that is reused.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn maps(&self, out: &mut Vec<u8>) -> Result<(), Errno> {
        match &self.lists {
            Some(lists) => whole(&lists.maps, out),
            None => whole(&open_in_proc(c"thread-self/maps")?, out),
        }
    }

    /// Returns all mappings, with the flags that concern forked children. The kernel walks
    /// all page tables for it.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn flags(&self) -> Result<Vec<(Range<usize>, Flags)>, Errno> {
        Ok(maps::flags(&self.smaps()?).collect())
    }

    /// Reads all of `smaps`. The kernel walks all page tables for it.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn smaps(&self) -> Result<Vec<u8>, Errno> {
        let mut text = Vec::new();
        match &self.lists {
            Some(lists) => whole(&lists.smaps, &mut text)?,
            None => whole(&open_in_proc(c"thread-self/smaps")?, &mut text)?,
        }
        Ok(text)
    }

    /// Copies memory of the program without touching it: an absent page is an error, not a
    /// fault of this thread.
    ///
    /// # Errors
    /// Those of the kernel.
    ///
    /// # Safety
    /// `dst` points to `len` writable bytes of the engine's own.
    pub unsafe fn copy_out(&self, src: usize, dst: usize, len: usize) -> Result<(), Errno> {
        // SAFETY: the caller's promise is the same.
        let out = unsafe { core::slice::from_raw_parts_mut(dst as *mut u8, len) };
        match rustix::io::pread(&self.mem, out, src as u64)? {
            n if n == len => Ok(()),
            _ => Err(Errno::IO),
        }
    }

    /// Reads words of the program's memory from `src` on without touching it, up to the
    /// first absent page. Returns how many.
    pub fn words(&self, src: usize, words: &mut [u64]) -> usize {
        let len = size_of_val(words);
        // SAFETY: words consist of bytes of any value.
        let bytes = unsafe { core::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), len) };
        let read = rustix::io::pread::<_, &mut [u8]>(&self.mem, bytes, src as u64);
        read.unwrap_or(0) / size_of::<u64>()
    }
}

/// Reads a file from its beginning to its end.
fn whole(fd: &Fd, out: &mut Vec<u8>) -> Result<(), Errno> {
    out.clear();
    loop {
        let at = out.len();
        out.resize(at + 64 * 1024, 0);
        let n = rustix::io::pread(fd, &mut out[at..], at as u64)?;
        out.truncate(at + n);
        if n == 0 {
            return Ok(());
        }
    }
}
