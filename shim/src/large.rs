//! Allocations larger than the machine's memory.
//!
//! By its heuristic the kernel refuses memory that it could never have, unless
//! it is asked for with `MAP_NORESERVE`. What the program asks for is passed on
//! as it is; only a large request that was refused is made once more with that
//! flag.

use crate::start::has_mapped;
use core::arch::naked_asm;
use libc::{c_int, c_void, off_t, size_t};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering};
use tmem_pager::engine::apart::{Change, REPORTED, are_reported};
use tmem_pager::engine::room::{SMALLEST, wait_for_room};

/// Requests from so many bytes on are made a second time.
const LARGE: usize = 1 << 28;
/// From so many on the C library may map a block for itself, through no function
/// that is interposed.
const ROOM: usize = SMALLEST;
const PAGE: usize = 4096;
/// Before each block of the C library: the size of what lies before it, and its
/// own with flags.
const HEADER: usize = 16;
/// The flag of a block that is a mapping of its own (glibc's `IS_MMAPPED`).
const MAPPED: usize = 2;

unsafe extern "C" {
    fn __libc_malloc(size: size_t) -> *mut c_void;
    fn __libc_calloc(count: size_t, size: size_t) -> *mut c_void;
    fn __libc_realloc(old: *mut c_void, size: size_t) -> *mut c_void;
    fn __libc_free(old: *mut c_void);
}

type Malloc = unsafe extern "C" fn(size_t) -> *mut c_void;
type Free = unsafe extern "C" fn(*mut c_void);
type Calloc = unsafe extern "C" fn(size_t, size_t) -> *mut c_void;
type Realloc = unsafe extern "C" fn(*mut c_void, size_t) -> *mut c_void;
pub(crate) type Mmap =
    unsafe extern "C" fn(*mut c_void, size_t, c_int, c_int, c_int, off_t) -> *mut c_void;

/// The functions that would have been called without this library.
static MALLOC: AtomicUsize = AtomicUsize::new(0);
static FREE: AtomicUsize = AtomicUsize::new(0);
static CALLOC: AtomicUsize = AtomicUsize::new(0);
static REALLOC: AtomicUsize = AtomicUsize::new(0);
static MMAP: AtomicUsize = AtomicUsize::new(0);

/// Finds the next function of a name. While it looks, calls go to the C
/// library's own.
pub(crate) fn next(place: &AtomicUsize, name: &core::ffi::CStr, own: usize) -> usize {
    let found = place.load(Ordering::Relaxed);
    if found != 0 {
        return found;
    }
    place.store(own, Ordering::Relaxed);
    // SAFETY: a C string.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) } as usize;
    let found = if found == 0 { own } else { found };
    place.store(found, Ordering::Relaxed);
    found
}

/// `malloc(3)`: two instructions more than without this library.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn malloc(_size: size_t) -> *mut c_void {
    naked_asm!(
        "mov rax, qword ptr [rip + {real}]",
        "test rax, rax",
        "jz {slow}",
        "cmp rdi, {room}",
        "jae {slow}",
        "jmp rax",
        real = sym MALLOC,
        slow = sym slow_malloc,
        room = const ROOM,
    )
}

unsafe extern "C" fn slow_malloc(size: size_t) -> *mut c_void {
    let real = next(&MALLOC, c"malloc", __libc_malloc as *const () as usize);
    wait_for_room(size);
    // SAFETY: it is malloc; the caller vouches for the rest.
    let at = unsafe { std::mem::transmute::<usize, Malloc>(real)(size) };
    has_mapped(size);
    if at.is_null() && size >= LARGE {
        again(size, real == __libc_malloc as *const () as usize)
    } else {
        at
    }
}

/// `free(3)`: three instructions more than without this library. The C library
/// unmaps large blocks by itself, for which see `apart`.
#[unsafe(naked)]
#[unsafe(no_mangle)]
unsafe extern "C" fn free(_old: *mut c_void) {
    naked_asm!(
        "mov rax, qword ptr [rip + {real}]",
        "test rax, rax",
        "jz {slow}",
        "cmp byte ptr [rip + {reported}], 0",
        "jne {slow}",
        "jmp rax",
        real = sym FREE,
        reported = sym REPORTED,
        slow = sym slow_free,
    )
}

unsafe extern "C" fn slow_free(old: *mut c_void) {
    let real = next(&FREE, c"free", __libc_free as *const () as usize);
    // SAFETY: a block, by the caller.
    let _change = unsafe { is_unmapped(old) }.then(Change::begin);
    // SAFETY: it is free; the caller vouches for the rest.
    unsafe { std::mem::transmute::<usize, Free>(real)(old) }
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

/// `calloc(3)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn calloc(count: size_t, size: size_t) -> *mut c_void {
    let real = next(&CALLOC, c"calloc", __libc_calloc as *const () as usize);
    wait_for_room(count.saturating_mul(size));
    // SAFETY: it is calloc; the caller vouches for the rest.
    let at = unsafe { std::mem::transmute::<usize, Calloc>(real)(count, size) };
    match count.checked_mul(size) {
        // A new mapping is zeros.
        Some(bytes) if at.is_null() && bytes >= LARGE => again(bytes, is_glibc()),
        _ => at,
    }
}

/// `realloc(3)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn realloc(old: *mut c_void, size: size_t) -> *mut c_void {
    let real = next(&REALLOC, c"realloc", __libc_realloc as *const () as usize);
    wait_for_room(size);
    // SAFETY: a block, by the caller.
    let change = unsafe { is_unmapped(old) }.then(Change::begin);
    // SAFETY: it is realloc; the caller vouches for the rest.
    let at = unsafe { std::mem::transmute::<usize, Realloc>(real)(old, size) };
    drop(change);
    if !at.is_null() || size < LARGE {
        return at;
    }
    let new = again(size, is_glibc());
    if !new.is_null() && !old.is_null() {
        // SAFETY: the old block is still there, as it was, and the new one is
        // another.
        unsafe {
            let len = libc::malloc_usable_size(old).min(size);
            std::ptr::copy_nonoverlapping(old.cast::<u8>(), new.cast::<u8>(), len);
            libc::free(old);
        }
    }
    new
}

fn is_glibc() -> bool {
    let own = __libc_malloc as *const () as usize;
    next(&MALLOC, c"malloc", own) == own
}

/// A block that glibc's `free` takes for one that it mapped itself. Another
/// allocator's would not, so that its refusal stands.
fn again(size: usize, glibc: bool) -> *mut c_void {
    let Some(total) = size
        .checked_add(HEADER)
        .and_then(|n| n.checked_next_multiple_of(PAGE))
    else {
        return null_mut();
    };
    if !glibc {
        return null_mut();
    }
    let rw = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping; `mmap` sets errno as `malloc` would.
    let base = unsafe { real_mmap()(null_mut(), total, rw, flags, -1, 0) };
    if base == libc::MAP_FAILED {
        return null_mut();
    }
    // SAFETY: within the new mapping, which is aligned to a page.
    unsafe {
        base.cast::<usize>().add(1).write(total | MAPPED);
        base.byte_add(HEADER)
    }
}

pub(crate) fn real_mmap() -> Mmap {
    let real = next(&MMAP, c"mmap", raw_mmap as *const () as usize);
    // SAFETY: it is mmap.
    unsafe { std::mem::transmute::<usize, Mmap>(real) }
}

unsafe extern "C" fn raw_mmap(
    at: *mut c_void,
    len: size_t,
    prot: c_int,
    flags: c_int,
    fd: c_int,
    offset: off_t,
) -> *mut c_void {
    // SAFETY: by the caller.
    unsafe { libc::syscall(libc::SYS_mmap, at, len, prot, flags, fd, offset) as *mut c_void }
}

/// `mmap(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn mmap(
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
    let change = crate::unmap::maps_over(flags).then(Change::begin);
    // SAFETY: by the caller.
    let got = unsafe { real(at, len, prot, flags, fd, offset) };
    // The engine is not kept from what is waited for below.
    drop(change);
    if prot & libc::PROT_WRITE != 0 && flags & libc::MAP_ANONYMOUS != 0 {
        has_mapped(len);
    }
    let wanted = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    let refused = got == libc::MAP_FAILED && len >= LARGE && flags & wanted == wanted;
    // SAFETY: errno is the calling thread's.
    if refused && unsafe { *libc::__errno_location() } == libc::ENOMEM {
        // SAFETY: by the caller; the flag changes no more than what is counted.
        return unsafe { real(at, len, prot, flags | libc::MAP_NORESERVE, fd, offset) };
    }
    got
}

/// `mmap64(2)`, which is the same on machines of 64 bits.
#[unsafe(no_mangle)]
unsafe extern "C" fn mmap64(
    at: *mut c_void,
    len: size_t,
    prot: c_int,
    flags: c_int,
    fd: c_int,
    offset: off_t,
) -> *mut c_void {
    // SAFETY: by the caller.
    unsafe { mmap(at, len, prot, flags, fd, offset) }
}
