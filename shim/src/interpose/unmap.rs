//! What unmaps or empties memory, which must not meet a zap: see `tmem_pager::engine::exclusion`.

use super::next::{Function, NEXT, next};
use super::{interpose, noted};
use libc::{c_int, c_void, size_t};
use tmem_pager::engine::Ask;
use tmem_pager::engine::exclusion::{Change, are_reported};

const PAGE: usize = 4096;

/// Linux 6.13: every touch is refused, and what was there is given up.
const GUARD_INSTALL: c_int = 102;

type Munmap = unsafe extern "C" fn(*mut c_void, size_t) -> c_int;
type Madvise = unsafe extern "C" fn(*mut c_void, size_t, c_int) -> c_int;

interpose! {
    /// `munmap(2)`.
    munmap => Munmap, own_munmap;
    /// `madvise(2)`.
    madvise => Madvise, own_madvise;
    /// `process_madvise(2)`, which since Linux 6.13 takes any advice on the caller's memory.
    process_madvise => ProcessMadvise, noted_process_madvise;
}

noted! {
    noted_process_madvise => ProcessMadvise, advises;
}

extern "C" fn advises() {
    tmem_pager::engine::lending::advises();
}

/// Whether `madvise` of this kind gives contents up. Its reports could be taken
/// for those of a zap.
pub(crate) fn empties(advice: c_int) -> bool {
    // Linux 5.18; what is locked is given up, too.
    const DONTNEED_LOCKED: c_int = 24;
    let kinds = [
        libc::MADV_DONTNEED,
        libc::MADV_FREE,
        libc::MADV_REMOVE,
        DONTNEED_LOCKED,
        GUARD_INSTALL,
    ];
    kinds.contains(&advice)
}

/// Whether `mmap` with these flags unmaps what is there.
pub(crate) fn maps_over(flags: c_int) -> bool {
    // With both the kernel takes it for the second, which unmaps nothing.
    flags & (libc::MAP_FIXED | libc::MAP_FIXED_NOREPLACE) == libc::MAP_FIXED
}

/// `munmap(2)`, apart from zaps.
///
/// # Safety
/// As for the C library's.
pub(crate) unsafe extern "C" fn own_munmap(at: *mut c_void, len: size_t) -> c_int {
    let real = next(Function::Munmap);
    // SAFETY: it is munmap.
    let real = unsafe { std::mem::transmute::<usize, Munmap>(real) };
    let _change = Change::begin();
    // SAFETY: by the caller.
    unsafe { real(at, len) }
}

unsafe extern "C" fn own_madvise(at: *mut c_void, len: size_t, advice: c_int) -> c_int {
    let real = next(Function::Madvise);
    // SAFETY: it is madvise.
    let real = unsafe { std::mem::transmute::<usize, Madvise>(real) };
    let _change = empties(advice).then(Change::begin);
    // SAFETY: by the caller.
    let result = unsafe { real(at, len, advice) };
    if result == 0 {
        advised(at as usize, len, advice);
    }
    result
}

/// Tells the engine what it has to know of advice that was taken. What empties
/// memory is kept apart from zaps by the caller.
pub(crate) fn advised(at: usize, len: usize, advice: c_int) {
    let what = match advice {
        // What may be given up later is given up at once: nobody could tell later
        // whether such a page was written again, so that none could be evicted. The
        // call that this is part of has not returned: what other threads write by now
        // is given up as rightly as what they wrote before.
        libc::MADV_FREE if are_reported() => return give_up(at, len, &[libc::MADV_DONTNEED]),
        // The kernel does not report that guards take the place of memory, and the
        // engine would bring it back when they go. To give it up leaves guards alone;
        // then they are put again, where a page has come in between.
        GUARD_INSTALL if are_reported() => {
            return give_up(at, len, &[libc::MADV_DONTNEED, GUARD_INSTALL]);
        }
        libc::MADV_MERGEABLE => return tmem_pager::engine::fork::merges(),
        libc::MADV_WIPEONFORK => Ask::Wipe(true),
        libc::MADV_KEEPONFORK => Ask::Wipe(false),
        libc::MADV_DONTFORK => Ask::Withhold(true),
        libc::MADV_DOFORK => Ask::Withhold(false),
        _ => return,
    };
    let range = at..at + len.next_multiple_of(PAGE);
    if !range.is_empty() {
        crate::heap::undisturbed(|| tmem_pager::engine::ask(what, &range));
    }
}

/// Takes further advice on memory that the program has given up, in ways that are
/// reported to the engine.
fn give_up(at: usize, len: usize, advice: &[c_int]) {
    for advice in advice {
        let args = [at, len, *advice as usize, 0, 0, 0];
        // SAFETY: the caller's program has just given up what is there. Should it
        // fail, pages stay.
        unsafe { crate::raw::raw_syscall(libc::SYS_madvise, args) };
    }
}
