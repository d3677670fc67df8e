//! Allocations larger than the machine's memory.
//!
//! By its heuristic the kernel refuses memory that it could never have, unless
//! it is asked for with `MAP_NORESERVE`. What the program asks for is passed on
//! as it is; only a large request that was refused is made once more with that
//! flag.

use super::next::{Function, NEXT, find_and_jump, next};
use super::{ACTIVE, interpose};
use crate::errno;
use crate::start::has_mapped;
use core::arch::naked_asm;
use libc::{c_int, c_void, off_t, size_t};
use std::ptr::null_mut;
use tmem_pager::engine::exclusion::{Change, REPORTED, are_reported};
use tmem_pager::engine::map_throttle::{SMALLEST, wait_for_room};

/// A request of at least this many bytes that fails is made a second time.
const LARGE: usize = 1 << 28;
/// The C library may map a block of at least this many bytes by itself, not through a
/// function that is interposed.
const ROOM: usize = SMALLEST;
const PAGE: usize = 4096;
/// Before each block of the C library: the size of what lies before it, and its
/// own with flags.
const HEADER: usize = 16;
/// The flag of a block that is a mapping of its own (glibc's `IS_MMAPPED`).
const MAPPED: usize = 2;

type Malloc = unsafe extern "C" fn(size_t) -> *mut c_void;
type Free = unsafe extern "C" fn(*mut c_void);
type UsableSize = unsafe extern "C" fn(*mut c_void) -> size_t;
type Calloc = unsafe extern "C" fn(size_t, size_t) -> *mut c_void;
type Realloc = unsafe extern "C" fn(*mut c_void, size_t) -> *mut c_void;
pub(crate) type Mmap =
    unsafe extern "C" fn(*mut c_void, size_t, c_int, c_int, c_int, off_t) -> *mut c_void;

interpose! {
    /// `calloc(3)`.
    calloc => Calloc, own_calloc;
    /// `realloc(3)`.
    realloc => Realloc, own_realloc;
    /// `mmap(2)`.
    mmap => Mmap, own_mmap;
    /// `mmap64(2)`, which is the same on machines of 64 bits.
    mmap64 => Mmap64, own_mmap;
}

/// `malloc(3)`: a few instructions more than without this library.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn malloc(_size: size_t) -> *mut c_void {
    naked_asm!(
        "mov r11, qword ptr [rip + {next} + {at}]",
        "test r11, r11",
        "jz 2f",
        "cmp rdi, {room}",
        "jae 3f",
        "jmp r11",
        "2:",
        "mov r11d, {index}",
        "jmp {find}",
        "3:",
        "cmp byte ptr [rip + {active}], 0",
        "jne {slow}",
        "jmp r11",
        next = sym NEXT,
        at = const Function::Malloc as usize * size_of::<usize>(),
        room = const ROOM,
        index = const Function::Malloc as usize,
        find = sym find_and_jump,
        active = sym ACTIVE,
        slow = sym slow_malloc,
    )
}

unsafe extern "C" fn slow_malloc(size: size_t) -> *mut c_void {
    wait_for_room(size);
    let before = errno::get();
    // SAFETY: it is malloc; the caller vouches for the rest.
    let at = unsafe { std::mem::transmute::<usize, Malloc>(next(Function::Malloc))(size) };
    has_mapped(size);
    if at.is_null() && size >= LARGE {
        again(size, before)
    } else {
        at
    }
}

interpose! {
    /// `free(3)`. The C library unmaps large blocks by itself, for which see `exclusion`.
    free => Free, slow_free, REPORTED;
}

unsafe extern "C" fn slow_free(old: *mut c_void) {
    // SAFETY: a block, by the caller.
    let _change = unsafe { is_unmapped(old) }.then(Change::begin);
    // SAFETY: it is free; the caller vouches for the rest.
    unsafe { std::mem::transmute::<usize, Free>(next(Function::Free))(old) }
}

/// Whether the C library is to unmap, or move, a mapping of its own when this
/// block is given up, and the engine has to know.
///
/// # Safety
/// It is a block of `malloc`'s, or null.
unsafe fn is_unmapped(block: *mut c_void) -> bool {
    if block.is_null() || !are_reported() || !is_glibc() {
        return false;
    }
    // SAFETY: the word before a block of glibc's is its size with flags.
    unsafe { block.cast::<usize>().sub(1).read() & MAPPED != 0 }
}

unsafe extern "C" fn own_calloc(count: size_t, size: size_t) -> *mut c_void {
    wait_for_room(count.saturating_mul(size));
    let before = errno::get();
    // SAFETY: it is calloc; the caller vouches for the rest.
    let at = unsafe { std::mem::transmute::<usize, Calloc>(next(Function::Calloc))(count, size) };
    match count.checked_mul(size) {
        // A new mapping is zeros.
        Some(bytes) if at.is_null() && bytes >= LARGE => again(bytes, before),
        _ => at,
    }
}

unsafe extern "C" fn own_realloc(old: *mut c_void, size: size_t) -> *mut c_void {
    wait_for_room(size);
    let before = errno::get();
    // SAFETY: a block, by the caller.
    let change = unsafe { is_unmapped(old) }.then(Change::begin);
    // SAFETY: it is realloc; the caller vouches for the rest.
    let at = unsafe { std::mem::transmute::<usize, Realloc>(next(Function::Realloc))(old, size) };
    drop(change);
    if !at.is_null() || size < LARGE {
        return at;
    }
    let new = again(size, before);
    if !new.is_null() && !old.is_null() {
        // SAFETY: the old block is still there, as it was, and the new one is
        // another.
        unsafe {
            let usable = next(Function::UsableSize);
            let usable = std::mem::transmute::<usize, UsableSize>(usable);
            let len = usable(old).min(size);
            std::ptr::copy_nonoverlapping(old.cast::<u8>(), new.cast::<u8>(), len);
            slow_free(old);
        }
    }
    new
}

fn is_glibc() -> bool {
    next(Function::Malloc) == next(Function::LibcMalloc)
}

/// A block that glibc's `free` takes for one that it mapped itself, with `errno` as it was
/// before the request. Another allocator's would not, so that its refusal stands.
fn again(size: usize, errno: c_int) -> *mut c_void {
    let Some(total) = size
        .checked_add(HEADER)
        .and_then(|n| n.checked_next_multiple_of(PAGE))
    else {
        return null_mut();
    };
    if !is_glibc() {
        return null_mut();
    }
    let rw = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping; `mmap` sets errno as `malloc` would.
    let base = unsafe { real_mmap()(null_mut(), total, rw, flags, -1, 0) };
    if base == libc::MAP_FAILED {
        return null_mut();
    }
    errno::set(errno);
    // SAFETY: within the new mapping, which is aligned to a page.
    unsafe {
        base.cast::<usize>().add(1).write(total | MAPPED);
        base.byte_add(HEADER)
    }
}

pub(crate) fn real_mmap() -> Mmap {
    // SAFETY: it is mmap.
    unsafe { std::mem::transmute::<usize, Mmap>(next(Function::Mmap)) }
}

unsafe extern "C" fn own_mmap(
    at: *mut c_void,
    len: size_t,
    prot: c_int,
    flags: c_int,
    fd: c_int,
    offset: off_t,
) -> *mut c_void {
    let real = real_mmap();
    if prot & libc::PROT_WRITE != 0 && flags & libc::MAP_ANONYMOUS != 0 {
        wait_for_room(len);
    }
    let change = super::unmap::maps_over(flags).then(Change::begin);
    let before = errno::get();
    // SAFETY: by the caller.
    let got = unsafe { real(at, len, prot, flags, fd, offset) };
    // The engine is not kept from what is waited for below.
    drop(change);
    if prot & libc::PROT_WRITE != 0 && flags & libc::MAP_ANONYMOUS != 0 {
        has_mapped(len);
    }
    let wanted = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let refused = got == libc::MAP_FAILED && len >= LARGE && flags & wanted == wanted;
    if !refused || errno::get() != libc::ENOMEM {
        return got;
    }
    let flags = flags | libc::MAP_NORESERVE;
    // SAFETY: by the caller; the flag changes no more than what is counted.
    let got = unsafe { real(at, len, prot, flags, fd, offset) };
    if got != libc::MAP_FAILED {
        errno::set(before);
    }
    got
}
