//! What unmaps or empties memory, which must not meet a zap: see `tmem_pager::engine::apart`.

use crate::large::next;
use libc::{c_int, c_void, size_t};
use std::sync::atomic::AtomicUsize;
use tmem_pager::engine::Ask;
use tmem_pager::engine::apart::Change;

const PAGE: usize = 4096;

type Munmap = unsafe extern "C" fn(*mut c_void, size_t) -> c_int;
type Madvise = unsafe extern "C" fn(*mut c_void, size_t, c_int) -> c_int;

static MUNMAP: AtomicUsize = AtomicUsize::new(0);
static MADVISE: AtomicUsize = AtomicUsize::new(0);

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
    ];
    kinds.contains(&advice)
}

/// Whether `mmap` with these flags unmaps what is there.
pub(crate) fn maps_over(flags: c_int) -> bool {
    // With both the kernel takes it for the second, which unmaps nothing.
    flags & (libc::MAP_FIXED | libc::MAP_FIXED_NOREPLACE) == libc::MAP_FIXED
}

/// `munmap(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn munmap(at: *mut c_void, len: size_t) -> c_int {
    let real = next(&MUNMAP, c"munmap", raw_munmap as *const () as usize);
    // SAFETY: it is munmap.
    let real = unsafe { std::mem::transmute::<usize, Munmap>(real) };
    let _change = Change::begin();
    // SAFETY: by the caller.
    unsafe { real(at, len) }
}

/// `madvise(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn madvise(at: *mut c_void, len: size_t, advice: c_int) -> c_int {
    let real = next(&MADVISE, c"madvise", raw_madvise as *const () as usize);
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

/// Tells the engine what it has to know of advice that was taken.
pub(crate) fn advised(at: usize, len: usize, advice: c_int) {
    let what = match advice {
        libc::MADV_FREE => return give_up(at, len),
        libc::MADV_WIPEONFORK => Ask::Wipe(true),
        libc::MADV_KEEPONFORK => Ask::Wipe(false),
        libc::MADV_DONTFORK => Ask::Withhold(true),
        libc::MADV_DOFORK => Ask::Withhold(false),
        _ => return,
    };
    let range = at..at + len.next_multiple_of(PAGE);
    if !range.is_empty() {
        crate::heap::undisturbed(|| tmem_pager::engine::ask(what, range));
    }
}

/// Gives up at once what the program let the kernel take when it wants to.
/// Nobody could tell later whether such a page was written again, so that none
/// could be evicted. The call that this is part of has not returned: what other
/// threads write by now is given up as rightly as what they wrote before.
fn give_up(at: usize, len: usize) {
    if tmem_pager::engine::apart::are_reported() {
        let args = [at, len, libc::MADV_DONTNEED as usize, 0, 0, 0];
        // SAFETY: all of it is private anonymous memory, or MADV_FREE would have
        // failed, whose contents the program has given up. Should it fail, the
        // pages stay.
        let _ = unsafe { crate::fork::raw_syscall(libc::SYS_madvise, args) };
    }
}

unsafe extern "C" fn raw_madvise(at: *mut c_void, len: size_t, advice: c_int) -> c_int {
    // SAFETY: by the caller.
    unsafe { libc::syscall(libc::SYS_madvise, at, len, advice) as c_int }
}

unsafe extern "C" fn raw_munmap(at: *mut c_void, len: size_t) -> c_int {
    // SAFETY: by the caller.
    unsafe { libc::syscall(libc::SYS_munmap, at, len) as c_int }
}
