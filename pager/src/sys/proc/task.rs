//! What `/proc` tells of a thread, or of a whole process.

use super::path::{open_beside_threads, open_of_process, open_of_thread};
use super::{Proc, keep};
use crate::sys::fd::Fd;
use crate::sys::program;
use alloc::string::String;

impl Proc {
    /// Returns the CPU that a thread of the process runs on, or last ran on.
    pub fn cpu_of(&mut self, tid: u32) -> Option<u32> {
        let mut buf = [0u8; 512];
        if self.stat.as_ref().is_none_or(|(of, _)| *of != tid) {
            self.stat = Some((tid, open_of_thread(tid, "stat")?));
        }
        let (_, fd) = self.stat.as_ref()?;
        match rustix::io::pread(fd, &mut buf, 0) {
            Ok(n) if n > 0 => processor(&buf[..n]),
            _ => {
                // The thread has ended, and another may have its number.
                self.stat = None;
                None
            }
        }
    }
}

/// Opens the status file of the calling thread, to be kept open.
pub fn status() -> Option<Fd> {
    keep(c"thread-self/status").ok()
}

/// Tells whether a seccomp filter applies to the thread of a status file, as far as is
/// known.
pub fn is_filtered(status: &Fd) -> bool {
    let mut text = [0; 4096];
    let len = rustix::io::pread(status, &mut text[..], 0).unwrap_or(0);
    let lines = text[..len].split(|b| *b == b'\n');
    let mode = lines.filter_map(|l| l.strip_prefix(b"Seccomp:")).next();
    mode.is_none_or(|mode| mode.trim_ascii() != b"0")
}

/// Reads a status file, and returns what `parse` makes of its text.
pub(in crate::sys) fn text_of_status<T>(
    status: &Fd,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Option<T> {
    let mut text = [0; 4096];
    let len = rustix::io::pread(status, &mut text[..], 0).ok()?;
    parse(core::str::from_utf8(&text[..len]).ok()?)
}

/// Returns the size of the file table of a thread of this process.
pub fn table_of(tid: u32) -> Option<usize> {
    text_of_status(&open_of_thread(tid, "status")?, |text| {
        let size = text.lines().find_map(|line| line.strip_prefix("FDSize:"));
        size?.trim().parse().ok()
    })
}

/// Returns the name of the program, as the kernel has it.
pub fn command() -> Option<String> {
    let file = open_of_thread(program::id(), "comm")?;
    let mut name = [0; 64];
    let len = rustix::io::read(&file, &mut name[..]).ok()?;
    let name = String::from_utf8_lossy(&name[..len]);
    Some(String::from(name.trim_end()))
}

/// Returns the wait status of the process's first thread, if it has ended, and only the
/// `own` threads of this library are left. A first thread ends alone by `exit(2)`, which
/// the C library does not use for a process, or by a seccomp filter.
pub fn left_with(own: usize) -> Option<i32> {
    let mut buf = [0u8; 512];
    let fd = open_of_thread(program::id(), "stat")?;
    let n = rustix::io::pread(&fd, &mut buf, 0).ok()?;
    left(&buf[..n], own)
}

/// Returns the wait status of a process that ends or has ended; 0 while it lives.
pub(in crate::sys) fn wait_status(pid: u32) -> Option<i32> {
    let mut buf = [0u8; 512];
    let fd = open_of_process(pid, "stat")?;
    let n = rustix::io::pread(&fd, &mut buf, 0).ok()?;
    ended_with(&buf[..n])
}

/// Parses the same. While a process is stopped, the kernel shows there what has stopped it.
fn ended_with(stat: &[u8]) -> Option<i32> {
    match field(stat, 3)? {
        "T" | "t" => Some(0),
        _ => field(stat, 52)?.parse().ok(),
    }
}

/// Parses the text of `stat`: the state is field 3, the number of threads field 20, and the
/// wait status field 52.
fn left(stat: &[u8], own: usize) -> Option<i32> {
    let threads: usize = field(stat, 20)?.parse().ok()?;
    let status: i32 = field(stat, 52)?.parse().ok()?;
    // The first thread counts while others exist.
    (field(stat, 3)? == "Z" && threads == own + 1).then_some(status)
}

/// Returns how many threads the process has, including those of this library.
pub fn threads() -> Option<usize> {
    // The folder of threads has one link for each thread, and two more.
    let folder = rustix::fs::stat(c"/proc/thread-self/..").ok()?;
    usize::try_from(folder.st_nlink).ok()?.checked_sub(2)
}

/// What a thread of the process waits for.
#[derive(Debug)]
pub struct Waits(Fd);

impl Waits {
    /// Opens the file of thread `tid`.
    pub fn of(tid: u32) -> Option<Waits> {
        open_of_thread(tid, "wchan").map(Waits)
    }

    /// Opens the file of another process, if that may be inspected.
    pub fn of_process(pid: u32) -> Option<Waits> {
        // The kernel shows that a process which may not be inspected waits for nothing. So
        // its root is opened as a test. Files about its memory, which may be this
        // process's, can always be opened.
        open_beside_threads(format_args!("../../{pid}/root"))?;
        open_beside_threads(format_args!("../../{pid}/wchan")).map(Waits)
    }

    /// Tells whether the thread waits in a kernel function whose name begins with `name`,
    /// as far as the kernel says.
    pub fn within(&self, name: &[u8]) -> bool {
        let mut buf = [0u8; 64];
        match rustix::io::pread(&self.0, &mut buf, 0) {
            Ok(n) => buf[..n].starts_with(name),
            Err(_) => false,
        }
    }
}

/// Returns the CPU in the text of a thread's `stat`: field 39.
fn processor(stat: &[u8]) -> Option<u32> {
    field(stat, 39)?.parse().ok()
}

/// Returns field `number` of the text of a `stat`, beyond the second. The second is a name
/// that may hold anything, but ends with the last `)`.
fn field(stat: &[u8], number: usize) -> Option<&str> {
    let after = stat.iter().rposition(|b| *b == b')')?;
    let field = stat[after..].split(|b| *b == b' ').nth(number - 2)?;
    Some(core::str::from_utf8(field).ok()?.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

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
        // Other tests run at the same time.
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
        assert_eq!(ended_with(stat("Z", "1").as_bytes()), Some(5 << 8));
        assert_eq!(ended_with(stat("t", "1").as_bytes()), Some(0));
        assert_eq!(ended_with(b"7 (a) Z 0"), None);
    }
}
