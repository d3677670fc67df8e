//! Processes that share the program's memory.
//!
//! Processes other than the program may share its memory (`vfork`, `clone` with
//! `CLONE_VM`), and outlive the program. The kernel has no list of them. So every process
//! in `/proc` is checked (`kcmp(2)`, or else the size of its address space).

use super::mem::Region;
use super::proc::path::{each_number, open_of_process, tasks_of};
use super::syscall::syscall3;
use super::{program, thread};
use rustix::io::Errno;
use tmem_wire::PAGE_SIZE;

/// Tells whether a thread of process `pid` uses the calling task's memory, if that is
/// known.
pub(super) fn any_shares(pid: u32) -> Option<bool> {
    let mut found = shares(pid);
    // The first thread may have ended before the others. It uses no memory then.
    if found == Some(false) && size_pages(pid) == Some(0) {
        tasks_of(pid, |tid| match (shares(tid), found) {
            (Some(false), _) | (_, Some(true)) => {}
            (other, _) => found = other,
        });
    }
    found
}

/// Tells whether task `tid` uses the calling task's memory, if that is known.
pub(super) fn shares(tid: u32) -> Option<bool> {
    const KCMP: usize = 312;
    const KCMP_VM: usize = 1;
    let own = thread::id() as usize;
    // SAFETY: kcmp(own, tid, KCMP_VM) touches no memory.
    match unsafe { syscall3(KCMP, own, tid as usize, KCMP_VM) } {
        0 => Some(true),
        result if result > 0 => Some(false),
        result if result == -(Errno::SRCH.raw_os_error() as isize) => Some(false),
        _ => grows_alike(tid),
    }
}

/// Tells the same by another way: whether the address space of `tid` is as large as the
/// calling task's, and grows with it.
fn grows_alike(tid: u32) -> Option<bool> {
    const GROWTH: [usize; 2] = [3, 5];
    let alike = || {
        // Another thread may change the size between the two reads.
        for _ in 0..4 {
            let own = size_pages(thread::id())?;
            if size_pages(tid)? == own {
                return Some(own > 0);
            }
        }
        Some(false)
    };
    for pages in GROWTH {
        if !alike()? {
            return Some(false);
        }
        let region = Region::anywhere(pages * PAGE_SIZE).ok()?;
        let grown = alike();
        region.unmap();
        if !grown? {
            return Some(false);
        }
    }
    Some(true)
}

/// Returns the size of a task's address space in pages.
fn size_pages(tid: u32) -> Option<u64> {
    let file = open_of_process(tid, "statm")?;
    let mut text = [0; 32];
    let len = rustix::io::read(&file, &mut text[..]).ok()?;
    let first = text[..len].split(|b| *b == b' ').next()?;
    core::str::from_utf8(first).ok()?.parse().ok()
}

/// Calls `found` with each process that uses the calling task's memory and is not the
/// engine's. Returns their number.
pub fn each_sharer(mut found: impl FnMut(u32)) -> usize {
    let mut count = 0;
    each_number(c".", |pid| {
        let is_own = program::tasks().any(|task| task == pid);
        if !is_own && any_shares(pid) == Some(true) {
            count += 1;
            found(pid);
        }
    });
    count
}

/// Tells whether no other task uses the calling task's memory, even one that `/proc` does
/// not show: only then does the kernel allow a task to stop sharing its memory.
pub fn is_alone() -> bool {
    const UNSHARE: usize = 272;
    const CLONE_VM: usize = 0x100;
    // SAFETY: a successful unshare(CLONE_VM) does nothing.
    unsafe { syscall3(UNSHARE, CLONE_VM, 0, 0) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_with_the_same_memory_is_told_from_others_in_both_ways() {
        let own = thread::id();
        std::thread::spawn(move || {
            // A thread of the process stands for another process with the same memory.
            assert_eq!((shares(own), grows_alike(own)), (Some(true), Some(true)));
        })
        .join()
        .unwrap();
        // The first process of the system, and a number without a process.
        assert_eq!((shares(1), grows_alike(1)), (Some(false), Some(false)));
        assert_eq!(shares(u32::MAX >> 1), Some(false));
        assert_eq!(grows_alike(u32::MAX >> 1), None);
    }

    #[test]
    fn memory_is_not_used_by_one_task_alone_while_there_is_another() {
        let (end, ends) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || ends.recv());
        assert!(!is_alone());
        drop(end);
        assert!(thread.join().unwrap().is_err());
    }
}
