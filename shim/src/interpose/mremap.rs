//! `mremap` of memory that is adopted in part.
//!
//! It takes memory of one mapping only. Two mappings that lie together are one
//! for the kernel, unless only one of them is registered with a userfaultfd when
//! the other comes to be: a program that has them moved together is refused
//! where it would not be without tmem. So what is refused for that reason is
//! tried again once all memory is adopted, and then done mapping by mapping.

use super::interpose;
use super::malloc::real_mmap;
use super::next::{Function, next};
use crate::errno;
use libc::{c_int, c_void, size_t};
use std::ops::Range;
use tmem_pager::engine::exclusion::Change;
use tmem_pager::engine::map_throttle::wait_for_room;
use tmem_pager::maps::{eligible, parse};
use tmem_pager::sys::proc::Proc;

type Mremap = unsafe extern "C" fn(*mut c_void, size_t, size_t, c_int, *mut c_void) -> *mut c_void;

/// The next function of that name. What it takes away must not meet a zap: see
/// `tmem_pager::engine::exclusion`.
#[derive(Clone, Copy)]
struct Real(Mremap);

impl Real {
    unsafe fn call(
        self,
        old: *mut c_void,
        old_len: size_t,
        len: size_t,
        flags: c_int,
        new: *mut c_void,
    ) -> *mut c_void {
        let _change = begin(flags);
        // SAFETY: by the caller.
        unsafe { (self.0)(old, old_len, len, flags, new) }
    }
}

/// Begins a call with these flags. A move that keeps the old range is alone.
pub(super) fn begin(flags: c_int) -> Change {
    match flags & libc::MREMAP_DONTUNMAP {
        0 => Change::begin(),
        _ => Change::begin_alone(),
    }
}

const PAGE: usize = 4096;

interpose! {
    /// `mremap(2)`.
    mremap => Mremap, own_mremap;
}

/// `mremap(2)`; a caller without a fifth argument leaves anything there, which
/// the kernel does not look at.
unsafe extern "C" fn own_mremap(
    old: *mut c_void,
    old_len: size_t,
    len: size_t,
    flags: c_int,
    new: *mut c_void,
) -> *mut c_void {
    let real = next(Function::Mremap);
    // SAFETY: it is mremap, whose further argument is passed on like the others.
    let real = Real(unsafe { std::mem::transmute::<usize, Mremap>(real) });
    wait_for_room(len.saturating_sub(old_len));
    let before = errno::get();
    // SAFETY: by the caller.
    let got = unsafe { real.call(old, old_len, len, flags, new) };
    let is_refused = |got| got == libc::MAP_FAILED && errno::get() == libc::EFAULT;
    if !is_refused(got) || !tmem_pager::engine::adopt_all() {
        return got;
    }
    // SAFETY: by the caller; nothing was done the first time.
    let mut got = unsafe { real.call(old, old_len, len, flags, new) };
    if is_refused(got) {
        got = crate::heap::undisturbed(|| {
            // SAFETY: by the caller.
            unsafe { by_pieces(real, old, old_len, len, flags, new) }
        });
    }
    if got != libc::MAP_FAILED {
        errno::set(before);
    }
    got
}

/// The mappings that make up a range, if they would be one but for what tmem
/// does: private anonymous memory with the same permissions and no gap.
fn pieces(range: &Range<usize>) -> Option<Vec<Range<usize>>> {
    let text = Proc::text_of_maps().ok()?;
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut perms = None;
    for mapping in parse(&text) {
        let m = mapping.ok()?;
        let part = m.start.max(range.start)..m.end.min(range.end);
        if part.is_empty() {
            continue;
        }
        let follows = found.last().map_or(range.start, |p| p.end) == part.start;
        if !follows || !eligible(&m) || perms.is_some_and(|p| p != m.perms) {
            return None;
        }
        perms = Some(m.perms);
        found.push(part);
    }
    (found.last()?.end == range.end).then_some(found)
}

/// Moves, grows or shrinks several mappings as if they were one.
unsafe fn by_pieces(
    real: Real,
    old: *mut c_void,
    old_len: size_t,
    len: size_t,
    flags: c_int,
    new: *mut c_void,
) -> *mut c_void {
    let failed = |error: c_int| {
        errno::set(error);
        libc::MAP_FAILED
    };
    let (old_len, len) = (old_len.next_multiple_of(PAGE), len.next_multiple_of(PAGE));
    let start = old as usize;
    let Some(pieces) = pieces(&(start..start + old_len.min(len))) else {
        return failed(libc::EFAULT);
    };
    let Some(last) = pieces.last().cloned() else {
        return failed(libc::EFAULT);
    };
    let more = len.saturating_sub(old_len);
    let fixed = flags & libc::MREMAP_FIXED != 0;
    let keep = flags & libc::MREMAP_DONTUNMAP;
    if !fixed && keep == 0 && more > 0 {
        let (at, n) = (last.start as *mut c_void, last.len());
        // SAFETY: grows the caller's memory where it lies, if there is room.
        let got = unsafe { real.call(at, n, n + more, 0, std::ptr::null_mut()) };
        if got != libc::MAP_FAILED {
            return old;
        }
    }
    if flags & libc::MREMAP_MAYMOVE == 0 {
        return failed(libc::ENOMEM);
    }
    let to = if fixed {
        new
    } else {
        let none = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping, to be replaced piece by piece.
        unsafe { real_mmap()(std::ptr::null_mut(), len, libc::PROT_NONE, none, -1, 0) }
    };
    if to == libc::MAP_FAILED {
        return to;
    }
    for piece in &pieces {
        let grown = if *piece == last {
            piece.len() + more
        } else {
            piece.len()
        };
        let at = to.wrapping_byte_add(piece.start - start);
        let how = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | keep;
        // SAFETY: the caller's memory goes where the caller said, or where a
        // place was just made for it.
        let got = unsafe { real.call(piece.start as *mut c_void, piece.len(), grown, how, at) };
        if got == libc::MAP_FAILED {
            return got;
        }
    }
    if old_len > len && keep == 0 {
        // SAFETY: the caller gives the rest up.
        unsafe { super::unmap::own_munmap(old.byte_add(len), old_len - len) };
    }
    to
}
