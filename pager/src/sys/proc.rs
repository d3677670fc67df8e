//! What the kernel says of the process in `/proc`.
//!
//! Paths go by `thread-self`: the entries of the process itself are empty once
//! its first thread has ended.

use super::fd::Fd;
use super::roots::open_in_proc;
use crate::maps::{self, Flags};
use alloc::string::String;
use alloc::vec::Vec;
use core::ffi::CStr;
use core::ops::Range;
use rustix::io::Errno;
use rustix::ioctl::{self, Opcode};
use tmem_wire::PAGE_SIZE;

/// Files of `/proc` that stay open.
#[derive(Debug)]
pub struct Proc {
    statm: Fd,
    status: Fd,
    /// What was resident when `status` was read last, and how often it was asked for
    /// since.
    read: Option<Resident>,
    asked: u32,
    pagemap: Fd,
    mem: Fd,
    has_scan: bool,
    /// `aio-nr`, where there is such a thing.
    aio: Option<Fd>,
    /// The `stat` of the thread that was asked for last.
    stat: Option<(u32, Fd)>,
    /// Of a process that may not open its own: what the engine of its parent has
    /// opened for it.
    lists: Option<Lists>,
}

/// Memory of the process that is resident, by its kinds, in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resident {
    /// Private memory: anonymous, and what was changed of private mappings of files.
    pub private: u64,
    /// Memory that may be shared with other processes and has no file on a disk:
    /// anonymous memory of shared mappings, System V segments, files of `tmpfs`.
    pub shared: u64,
    /// Pages of files, which the kernel can take back by itself.
    pub files: u64,
    /// What of the address space is locked (`mlock`), or pinned for devices.
    pub locked: u64,
    /// Huge pages that were set aside (`hugetlbfs`), which are in none of the others.
    pub huge: u64,
}

impl Resident {
    /// What the kernel reports as the resident size.
    pub fn all(&self) -> u64 {
        self.private + self.shared + self.files
    }

    /// What counts against a budget: pages of files do not, since the kernel takes
    /// them back when memory is short.
    pub fn counted(&self) -> u64 {
        self.private + self.shared
    }

    /// The kinds that only `status` tells, from its text.
    fn of_status(text: &str) -> Option<Resident> {
        let pages = |name: &str| kib(text, name).map(|kib| kib / 4);
        Some(Resident {
            private: 0,
            shared: pages("RssShmem:")?,
            files: pages("RssFile:")?,
            locked: pages("VmLck:")? + pages("VmPin:").unwrap_or(0),
            huge: pages("HugetlbPages:").unwrap_or(0),
        })
    }
}

/// The number of KiB that a line of `text` gives behind `name`.
fn kib(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.trim().strip_suffix("kB"));
    number.and_then(|n| n.trim().parse::<u64>().ok())
}

/// Memory of the process that other processes may have as well, in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shares {
    /// Private memory, and what is left of it when each page counts for as much less as
    /// more processes have it.
    pub private: (u64, u64),
    /// What is left in that way of shared memory.
    pub shared: u64,
}

/// `status` is read again when so many pages of files and shared memory have come or
/// gone, or after so many looks: it takes six times as long as `statm`, which does not
/// tell one from the other.
const CHANGED: u64 = 64;
const LOOKS: u32 = 16;
/// Files that are opened each time they are read, where that may be.
#[derive(Debug)]
struct Lists {
    maps: Fd,
    smaps: Fd,
    rollup: Fd,
}

/// The files of a process that its engine needs, in the order of
/// [`Proc::of`].
pub const FILES: [&CStr; 8] = [
    c"statm",
    c"status",
    c"pagemap",
    c"mem",
    c"maps",
    c"smaps",
    c"smaps_rollup",
    // For all processes; they can do without.
    c"../sys/fs/aio-nr",
];

/// A run of present pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PresentRun {
    /// First address.
    pub start: usize,
    /// End.
    pub end: usize,
}

#[repr(C)]
struct ScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    inverted: u64,
    mask: u64,
    anyof_mask: u64,
    return_mask: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct ScanRegion {
    start: u64,
    end: u64,
    categories: u64,
}

const IOC_SCAN: Opcode = ioctl::opcode::read_write::<ScanArg>(b'f', 16);
const IS_PRESENT: u64 = 1 << 3;
const IS_SWAPPED: u64 = 1 << 4;
const PAGEMAP_PRESENT: u64 = 1 << 63;
const PAGEMAP_SWAPPED: u64 = 1 << 62;

/// Opens a file that stays open.
fn keep(path: &CStr) -> Result<Fd, Errno> {
    open_in_proc(path).map(Fd::moved_up)
}

impl Proc {
    /// Opens the files; called by the engine's thread.
    ///
    /// # Errors
    /// The kernel's: `/proc` is not mounted, for instance.
    pub fn open() -> Result<Proc, Errno> {
        let statm = keep(c"thread-self/statm")?;
        let status = keep(c"thread-self/status")?;
        let pagemap = keep(c"thread-self/pagemap")?;
        let mem = keep(c"thread-self/mem")?;
        let aio = keep(c"sys/fs/aio-nr").ok();
        Ok(Proc::with([statm, status, pagemap, mem], aio, None))
    }

    /// The same with [`FILES`] that the engine of another process has opened. `None`
    /// where they are not this process's, or one is missing that it cannot do without.
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
        proc.has_scan = proc.scan(0x1000, 0x2000, IS_PRESENT, &mut none).is_ok();
        proc
    }

    /// Whether a word that only this process has is found where it lies.
    fn is_of_this_process(&self) -> bool {
        let word = super::now_ns() ^ u64::from(super::thread::id()) << 40;
        let here = core::hint::black_box(word);
        let mut found = [0];
        self.words((&raw const here).addr(), &mut found) == 1 && found[0] == word
    }

    /// What of the process is resident.
    ///
    /// # Errors
    /// The kernel's.
    pub fn resident(&mut self) -> Result<Resident, Errno> {
        let [_, all, others] = self.statm()?;
        // They are not read at one moment.
        let others = others.min(all);
        self.asked += 1;
        let changed = |r: &Resident| (r.shared + r.files).abs_diff(others) >= CHANGED;
        if self.asked >= LOOKS || self.read.as_ref().is_none_or(changed) {
            let mut buf = [0u8; 4096];
            let n = rustix::io::pread(&self.status, &mut buf, 0)?;
            let text = core::str::from_utf8(&buf[..n]).ok();
            self.read = text.and_then(Resident::of_status);
            self.asked = 0;
        }
        let read = self.read.unwrap_or(Resident {
            // Where the kernel does not say which is which, all counts.
            shared: others,
            ..Resident::default()
        });
        let shared = read.shared.min(others);
        Ok(Resident {
            private: all - others,
            shared,
            files: others - shared,
            ..read
        })
    }

    /// Pages of address space that are mapped.
    ///
    /// # Errors
    /// The kernel's.
    pub fn size_pages(&self) -> Result<u64, Errno> {
        self.statm().map(|[size, ..]| size)
    }

    /// The first numbers of `statm`.
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

    /// What other processes may have as well. The kernel goes through all page tables
    /// for that.
    ///
    /// # Errors
    /// The kernel's.
    pub fn shares(&self) -> Result<Shares, Errno> {
        let mut buf = [0u8; 2048];
        let n = match &self.lists {
            Some(lists) => rustix::io::pread(&lists.rollup, &mut buf, 0)?,
            None => {
                let fd = open_in_proc(c"thread-self/smaps_rollup")?;
                rustix::io::read(&fd, &mut buf)?
            }
        };
        let text = core::str::from_utf8(&buf[..n]).map_err(|_| Errno::INVAL)?;
        let pages = |name: &str| kib(text, name).map(|kib| kib / 4).ok_or(Errno::INVAL);
        Ok(Shares {
            private: (pages("Anonymous:")?, pages("Pss_Anon:")?),
            shared: pages("Pss_Shmem:")?,
        })
    }

    /// How many requests of `io_submit` the whole system has room for; changes
    /// whenever some process sets up or gives up such room.
    pub fn asynchronous_requests(&self) -> Option<u64> {
        let mut buf = [0u8; 24];
        let n = rustix::io::pread(self.aio.as_ref()?, &mut buf, 0).ok()?;
        core::str::from_utf8(&buf[..n]).ok()?.trim().parse().ok()
    }

    /// The whole of `maps`.
    ///
    /// # Errors
    /// The kernel's.
    pub fn text_of_maps() -> Result<Vec<u8>, Errno> {
        let mut text = Vec::new();
        whole(&open_in_proc(c"thread-self/maps")?, &mut text)?;
        Ok(text)
    }

    /// The same into a vector that is used again.
    ///
    /// # Errors
    /// The kernel's.
    pub fn maps(&self, out: &mut Vec<u8>) -> Result<(), Errno> {
        match &self.lists {
            Some(lists) => whole(&lists.maps, out),
            None => whole(&open_in_proc(c"thread-self/maps")?, out),
        }
    }

    /// All mappings and what of them forked children are to have. The kernel goes
    /// through all page tables for that.
    ///
    /// # Errors
    /// The kernel's.
    pub fn flags(&self) -> Result<Vec<(Range<usize>, Flags)>, Errno> {
        Ok(maps::flags(&self.smaps()?).collect())
    }

    /// The whole of `smaps`. The kernel goes through all page tables for that.
    ///
    /// # Errors
    /// The kernel's.
    pub fn smaps(&self) -> Result<Vec<u8>, Errno> {
        let mut text = Vec::new();
        match &self.lists {
            Some(lists) => whole(&lists.smaps, &mut text)?,
            None => whole(&open_in_proc(c"thread-self/smaps")?, &mut text)?,
        }
        Ok(text)
    }

    /// The present pages between `start` and `end`, appended to `out` in order.
    ///
    /// # Errors
    /// The kernel's.
    pub fn present(
        &self,
        start: usize,
        end: usize,
        out: &mut Vec<PresentRun>,
    ) -> Result<(), Errno> {
        self.find(start, end, (IS_PRESENT, PAGEMAP_PRESENT), out)
    }

    /// The pages between `start` and `end` that hold something, in memory or in
    /// the kernel's swap, appended to `out` in order.
    ///
    /// # Errors
    /// The kernel's.
    pub fn occupied(
        &self,
        start: usize,
        end: usize,
        out: &mut Vec<PresentRun>,
    ) -> Result<(), Errno> {
        let kinds = (IS_PRESENT | IS_SWAPPED, PAGEMAP_PRESENT | PAGEMAP_SWAPPED);
        self.find(start, end, kinds, out)
    }

    /// The pages of any of `kinds`, which are named as PAGEMAP_SCAN names them
    /// and as the entries of the page map do.
    fn find(
        &self,
        start: usize,
        end: usize,
        kinds: (u64, u64),
        out: &mut Vec<PresentRun>,
    ) -> Result<(), Errno> {
        if self.has_scan {
            self.scan(start, end, kinds.0, out)
        } else {
            self.read_pagemap(start, end, kinds.1, out)
        }
    }

    /// By PAGEMAP_SCAN (Linux 6.7), which skips what has no page tables.
    fn scan(
        &self,
        start: usize,
        end: usize,
        any_of: u64,
        out: &mut Vec<PresentRun>,
    ) -> Result<(), Errno> {
        let mut found = [ScanRegion::default(); 64];
        let mut at = start;
        while at < end {
            let mut arg = ScanArg {
                size: size_of::<ScanArg>() as u64,
                flags: 0,
                start: at as u64,
                end: end as u64,
                walk_end: 0,
                vec: found.as_mut_ptr() as u64,
                vec_len: found.len() as u64,
                max_pages: 0,
                inverted: 0,
                mask: 0,
                anyof_mask: any_of,
                // One kind of region is told apart from the next by this.
                return_mask: IS_PRESENT,
            };
            // SAFETY: `struct pm_scan_arg`, whose vector the kernel fills with
            // up to `vec_len` regions. It returns how many.
            let n = unsafe { ioctl::ioctl(&self.pagemap, ScanCall(&mut arg)) }?;
            for r in &found[..(n as usize).min(found.len())] {
                push(out, r.start as usize, r.end as usize);
            }
            let next = arg.walk_end as usize;
            if next <= at {
                break;
            }
            at = next;
        }
        Ok(())
    }

    fn read_pagemap(
        &self,
        start: usize,
        end: usize,
        any_of: u64,
        out: &mut Vec<PresentRun>,
    ) -> Result<(), Errno> {
        let mut buf = [0u8; 8 * 512];
        let mut at = start;
        while at < end {
            let want = ((end - at) / PAGE_SIZE).min(512) * 8;
            let n =
                rustix::io::pread(&self.pagemap, &mut buf[..want], (at / PAGE_SIZE * 8) as u64)?
                    / 8;
            if n == 0 {
                break;
            }
            for (i, entry) in buf[..n * 8].as_chunks::<8>().0.iter().enumerate() {
                if u64::from_le_bytes(*entry) & any_of != 0 {
                    let page = at + i * PAGE_SIZE;
                    push(out, page, page + PAGE_SIZE);
                }
            }
            at += n * PAGE_SIZE;
        }
        Ok(())
    }

    /// The processor that a thread of the process runs on, or ran on last.
    pub fn cpu_of(&mut self, tid: u32) -> Option<u32> {
        let mut buf = [0u8; 512];
        if self.stat.as_ref().is_none_or(|(of, _)| *of != tid) {
            self.stat = Some((tid, open_of_thread(tid, "stat")?));
        }
        let (_, fd) = self.stat.as_ref()?;
        match rustix::io::pread(fd, &mut buf, 0) {
            Ok(n) if n > 0 => processor(&buf[..n]),
            _ => {
                // It has ended. Another may have its number.
                self.stat = None;
                None
            }
        }
    }

    /// Copies memory of the program without touching it: what is not there
    /// is an error, not a fault of this thread's.
    ///
    /// # Errors
    /// The kernel's.
    ///
    /// # Safety
    /// `dst` points to `len` writable bytes of the engine's own.
    pub unsafe fn copy_out(&self, src: usize, dst: usize, len: usize) -> Result<(), Errno> {
        // SAFETY: by the caller.
        let out = unsafe { core::slice::from_raw_parts_mut(dst as *mut u8, len) };
        match rustix::io::pread(&self.mem, out, src as u64)? {
            n if n == len => Ok(()),
            _ => Err(Errno::IO),
        }
    }

    /// Reads words of the program's memory from `src` on without touching it, up to
    /// the first that is not there; how many.
    pub fn words(&self, src: usize, words: &mut [u64]) -> usize {
        let len = size_of_val(words);
        // SAFETY: words are bytes, of any value.
        let bytes = unsafe { core::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), len) };
        let read = rustix::io::pread::<_, &mut [u8]>(&self.mem, bytes, src as u64);
        read.unwrap_or(0) / size_of::<u64>()
    }
}

/// Opens what there is to read of the calling thread, to be kept open.
pub fn status() -> Option<Fd> {
    keep(c"thread-self/status").ok()
}

/// Whether system calls of the thread whose status that is are filtered, as far as can
/// be told.
pub fn is_filtered(status: &Fd) -> bool {
    let mut text = [0; 4096];
    let len = rustix::io::pread(status, &mut text[..], 0).unwrap_or(0);
    let lines = text[..len].split(|b| *b == b'\n');
    let mode = lines.filter_map(|l| l.strip_prefix(b"Seccomp:")).next();
    mode.is_none_or(|mode| mode.trim_ascii() != b"0")
}

/// How many descriptors the file table of a thread of this process has room for.
pub fn table_of(tid: u32) -> Option<usize> {
    let status = open_of_thread(tid, "status")?;
    let mut text = [0; 4096];
    let len = rustix::io::pread(&status, &mut text[..], 0).ok()?;
    let text = core::str::from_utf8(&text[..len]).ok()?;
    let size = text.lines().find_map(|line| line.strip_prefix("FDSize:"));
    size?.trim().parse().ok()
}

/// The name of the program, as the kernel has it.
pub fn command() -> Option<String> {
    let file = open_of_thread(super::program::id(), "comm")?;
    let mut name = [0; 64];
    let len = rustix::io::read(&file, &mut name[..]).ok()?;
    let name = String::from_utf8_lossy(&name[..len]);
    Some(String::from(name.trim_end()))
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

/// The wait status that the process's first thread has left with, if it has, and
/// no thread is left but the `own` ones of this library: by `exit(2)`, which the C
/// library does not call for a process, or by what a filter of system calls does
/// to a single thread.
pub fn left_with(own: usize) -> Option<i32> {
    let mut buf = [0u8; 512];
    let fd = open_of_thread(super::program::id(), "stat")?;
    let n = rustix::io::pread(&fd, &mut buf, 0).ok()?;
    left(&buf[..n], own)
}

/// The same of the text of `stat`: the state is its third field, then come the
/// number of threads as the 20th and the wait status as the 52nd.
fn left(stat: &[u8], own: usize) -> Option<i32> {
    let threads: usize = field(stat, 20)?.parse().ok()?;
    let status: i32 = field(stat, 52)?.parse().ok()?;
    // The first one is counted for as long as others are there.
    (field(stat, 3)? == "Z" && threads == own + 1).then_some(status)
}

/// How many threads the process has, those of this library included.
pub fn threads() -> Option<usize> {
    // Their folder has a link for each thread beside the two that every folder has.
    let folder = rustix::fs::stat(c"/proc/thread-self/..").ok()?;
    usize::try_from(folder.st_nlink).ok()?.checked_sub(2)
}

/// What a thread of the process waits for.
#[derive(Debug)]
pub struct Waits(Fd);

impl Waits {
    /// Of the thread `tid`.
    pub fn of(tid: u32) -> Option<Waits> {
        open_of_thread(tid, "wchan").map(Waits)
    }

    /// Of another process, where that may be inspected.
    pub fn of_process(pid: u32) -> Option<Waits> {
        // Of one that may not it is told that it waits for nothing. Its root is asked
        // for because all that is about its memory, which may be this one's, is open.
        open_beside_threads(format_args!("../../{pid}/root"))?;
        open_beside_threads(format_args!("../../{pid}/wchan")).map(Waits)
    }

    /// Whether it waits in a function of the kernel whose name begins so, as far
    /// as the kernel says so.
    pub fn within(&self, name: &[u8]) -> bool {
        let mut buf = [0u8; 64];
        match rustix::io::pread(&self.0, &mut buf, 0) {
            Ok(n) => buf[..n].starts_with(name),
            Err(_) => false,
        }
    }
}

/// Opens a file of a thread of the program, or of the calling task.
pub(super) fn open_of_thread(tid: u32, file: &str) -> Option<Fd> {
    match tid == super::thread::id() || !super::program::is_apart() {
        true => open_beside_threads(format_args!("{tid}/{file}")),
        false => open_of_process(tid, file),
    }
}

/// Opens a file of a process, or of any thread, by its number.
pub(super) fn open_of_process(id: u32, file: &str) -> Option<Fd> {
    use core::fmt::Write;
    let mut path = Path::default();
    write!(path, "{id}/{file}\0").ok()?;
    let path = core::ffi::CStr::from_bytes_until_nul(&path.bytes).ok()?;
    open_in_proc(path).ok()
}

/// Calls `found` with the number of each thread of a process.
pub(super) fn tasks_of(id: u32, found: impl FnMut(u32)) {
    use core::fmt::Write;
    let mut path = Path::default();
    if write!(path, "{id}/task\0").is_ok()
        && let Ok(path) = core::ffi::CStr::from_bytes_until_nul(&path.bytes)
    {
        super::program::each_number(path, found);
    }
}

/// Opens a path that begins at the folder of this process's threads.
fn open_beside_threads(file: core::fmt::Arguments<'_>) -> Option<Fd> {
    use core::fmt::Write;
    let mut path = Path::default();
    // By the thread that asks: the process has no entry of its own once its
    // first thread has ended.
    write!(path, "thread-self/../{file}\0").ok()?;
    let path = core::ffi::CStr::from_bytes_until_nul(&path.bytes).ok()?;
    open_in_proc(path).ok()
}

/// A path, without the heap.
struct Path {
    bytes: [u8; 48],
    len: usize,
}

impl Default for Path {
    fn default() -> Path {
        Path {
            bytes: [0; 48],
            len: 0,
        }
    }
}

impl core::fmt::Write for Path {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        let end = self.len + text.len();
        let room = self.bytes.get_mut(self.len..end).ok_or(core::fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

/// The processor in the text of a thread's `stat`: the 39th field.
fn processor(stat: &[u8]) -> Option<u32> {
    field(stat, 39)?.parse().ok()
}

/// The field `number` of the text of a `stat`, beyond the second, which is a name
/// that may have anything in it but ends with the last `)`.
fn field(stat: &[u8], number: usize) -> Option<&str> {
    let after = stat.iter().rposition(|b| *b == b')')?;
    let field = stat[after..].split(|b| *b == b' ').nth(number - 2)?;
    Some(core::str::from_utf8(field).ok()?.trim())
}

fn push(out: &mut Vec<PresentRun>, start: usize, end: usize) {
    match out.last_mut() {
        Some(last) if last.end == start => last.end = end,
        _ => out.push(PresentRun { start, end }),
    }
}

/// PAGEMAP_SCAN, which returns a number.
struct ScanCall<'a>(&'a mut ScanArg);

// SAFETY: the argument is `struct pm_scan_arg`, read and written.
unsafe impl ioctl::Ioctl for ScanCall<'_> {
    type Output = i32;
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        IOC_SCAN
    }

    fn as_ptr(&mut self) -> *mut rustix::ffi::c_void {
        core::ptr::from_mut(self.0).cast()
    }

    unsafe fn output_from_ptr(
        out: ioctl::IoctlOutput,
        _: *mut rustix::ffi::c_void,
    ) -> rustix::io::Result<i32> {
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resident_memory_is_told_by_its_kinds() {
        let mut proc = Proc::open().unwrap();
        let before = proc.resident().unwrap();
        let len = 8 << 20;
        let pages = (len / PAGE_SIZE) as u64;
        let shared = crate::sys::mem::Region::shared(len).unwrap();
        let private = crate::sys::mem::Region::anywhere(len).unwrap();
        for region in [&shared, &private] {
            for at in (region.start..region.end()).step_by(PAGE_SIZE) {
                // SAFETY: fresh mappings.
                unsafe { core::ptr::write_volatile(at as *mut u8, 1) };
            }
        }
        let after = proc.resident().unwrap();
        // Other tests run beside this one; kernels before 6.17 tell of some pages late.
        let slack = 1024;
        assert!(
            after.shared + slack >= before.shared + pages,
            "{before:?} {after:?}"
        );
        assert!(
            after.private + slack >= before.private + pages,
            "{before:?} {after:?}"
        );
        assert!(after.counted() + after.files == after.all());
        shared.unmap();
        private.unmap();
    }

    #[test]
    fn kinds_of_memory_are_found_in_the_text_of_the_status() {
        let text = "Name:\tx\nVmLck:\t      8 kB\nVmPin:\t      4 kB\nRssAnon:\t  104 kB\n\
            RssFile:\t    1340 kB\nRssShmem:\t      12 kB\nHugetlbPages:\t    2048 kB\n";
        let expected = Resident {
            private: 0,
            shared: 3,
            files: 335,
            locked: 3,
            huge: 512,
        };
        assert_eq!(Resident::of_status(text), Some(expected));
        assert_eq!(Resident::of_status("RssFile: 3 kB\n"), None);
    }

    #[test]
    fn the_processor_is_found_behind_any_name() {
        let stat = b"7 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 \
            24 25 26 27 28 29 30 31 32 33 34 35 63 37 38\n";
        assert_eq!(processor(stat), Some(63));
        assert_eq!(processor(b"7 (a"), None);
        assert_eq!(left_with(0), None);
        let mut proc = Proc::open().unwrap();
        let tid = rustix::thread::gettid().as_raw_nonzero().get() as u32;
        assert!(proc.cpu_of(tid).is_some_and(|cpu| cpu < 1024));
    }

    #[test]
    fn threads_are_counted() {
        let before = std::fs::read_dir("/proc/self/task").unwrap().count();
        let counted = threads().unwrap();
        let after = std::fs::read_dir("/proc/self/task").unwrap().count();
        // Tests run beside this one.
        assert!((before.min(after)..=before.max(after)).contains(&counted) || before != after);
    }

    #[test]
    fn a_process_has_been_left_when_only_own_threads_remain() {
        let stat = |state, threads: &str| {
            let before = alloc::format!("7 (a) {state} {} {threads} ", ["0"; 16].join(" "));
            alloc::format!("{before}{} 1280\n", ["0"; 31].join(" "))
        };
        assert_eq!(left(stat("Z", "3").as_bytes(), 2), Some(5 << 8));
        assert_eq!(left(stat("Z", "4").as_bytes(), 2), None);
        assert_eq!(left(stat("S", "3").as_bytes(), 2), None);
        assert_eq!(left(b"7 (a) Z 0", 0), None);
    }
}
