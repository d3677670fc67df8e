//! `mlockall`, which is to lock the program's memory and not tmem's.
//!
//! The kernel would lock all that is mapped, with the address space that tmem has set
//! aside, and have memory for all of that at once; and what is locked can neither be
//! given back to the kernel nor exchanged. So the program's mappings are locked one by
//! one. What is mapped later (`MCL_FUTURE`) is the kernel's to lock; what tmem maps it
//! unlocks, see `tmem_pager::sys::mem`.

use super::interpose;
use crate::raw::raw_syscall;
use libc::{c_int, c_long};
use std::ops::Range;
use tmem_pager::maps::{parse, subtract};
use tmem_pager::sys::mem;
use tmem_pager::sys::space::SPACE;

/// What the kernel knows.
const KNOWN: c_int = libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT;
/// What is mapped from here on is the kernel's own (`[vsyscall]`).
const KERNELS: usize = 1 << 63;
/// The right to lock any amount of memory.
const CAP_IPC_LOCK: u32 = 14;

interpose! {
    /// `mlockall(2)`.
    mlockall => LockAll, own_mlockall;
}

unsafe extern "C" fn own_mlockall(flags: c_int) -> c_int {
    match lock_all(flags) {
        refused @ -4095..0 => {
            // SAFETY: this thread's.
            unsafe { *libc::__errno_location() = -refused as c_int };
            -1
        }
        _ => 0,
    }
}

/// The same, with the kernel's answer.
pub(crate) fn lock_all(flags: c_int) -> isize {
    if flags & libc::MCL_FUTURE != 0 {
        // Before it is so: what is unlocked without need is as it was.
        mem::new_is_locked(true);
    }
    if flags & libc::MCL_CURRENT == 0 || flags & !KNOWN != 0 {
        return call(libc::SYS_mlockall, [flags as usize, 0, 0]);
    }
    let future = flags & !libc::MCL_CURRENT;
    crate::heap::undisturbed(|| {
        // Without `/proc` it is not known what is whose.
        let Some(mapped) = mapped() else {
            return -libc::EAGAIN as isize;
        };
        if let Some(error) = refused(mapped.iter().map(|r| r.len() as u64).sum()) {
            return -error as isize;
        }
        if future & libc::MCL_FUTURE != 0 {
            let answer = call(libc::SYS_mlockall, [future as usize, 0, 0]);
            if answer != 0 {
                return answer;
            }
        }
        let how = match flags & libc::MCL_ONFAULT {
            0 => 0,
            _ => libc::MLOCK_ONFAULT as usize,
        };
        for range in mapped {
            // As the kernel does, what cannot be had, or is not mapped any more, is passed
            // over.
            call(libc::SYS_mlock2, [range.start, range.len(), how]);
        }
        0
    })
}

/// The program's mappings.
fn mapped() -> Option<Vec<Range<usize>>> {
    let text = std::fs::read("/proc/thread-self/maps").ok()?;
    let lines = parse(&text).filter_map(Result::ok);
    let mut mapped: Vec<_> = lines.map(|m| m.start..m.end).collect();
    mapped.retain(|range| range.start < KERNELS);
    let mut own = crate::heap::ranges();
    own.push(SPACE.range());
    own.sort_unstable_by_key(|range| range.start);
    subtract(&mut mapped, &own);
    Some(mapped)
}

/// The error for which `bytes` more bytes may not be locked, if there is one.
fn refused(bytes: u64) -> Option<c_int> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: a limit to be written to; nothing is set.
    let known = unsafe {
        let none = std::ptr::null();
        super::rlimit::own_prlimit(0, libc::RLIMIT_MEMLOCK, none, &raw mut limit)
    };
    if known != 0 || bytes <= limit.rlim_cur || may_lock_all() {
        return None;
    }
    Some(match limit.rlim_cur {
        0 => libc::EPERM,
        _ => libc::ENOMEM,
    })
}

/// Whether the calling thread may lock more than its limit.
fn may_lock_all() -> bool {
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    // Each half of the capabilities has three sets: effective, permitted, inheritable.
    let mut sets = [[0u32; 3]; 2];
    let args = [header.as_ptr() as usize, sets.as_mut_ptr() as usize, 0];
    let answer = call(libc::SYS_capget, args);
    answer == 0 && sets[0][0] >> CAP_IPC_LOCK & 1 != 0
}

fn call(number: c_long, [a, b, c]: [usize; 3]) -> isize {
    // SAFETY: nothing is locked but what the program asked for, which changes no contents;
    // `capget` writes to what its caller has room for.
    unsafe { raw_syscall(number, [a, b, c, 0, 0, 0]) }
}
