//! Keeps a userfaultfd open as long as anybody uses the memory that it serves.
//!
//! When a userfaultfd is closed, absent pages read as zeros. A file descriptor is closed
//! when its task ends, but a mapping lives as long as the memory. So the userfaultfd is
//! registered with an io_uring that is used for nothing else, and one page of the io_uring
//! is mapped. The kernel closes both when the last user of the memory is gone, whichever
//! tasks were killed before. A thread that touches an absent page when nobody serves it any
//! more waits until it is killed.
//!
//! The kernel ignores an address that is asked for that page. A place that the kernel
//! chooses freely may be one that the program has unmapped and relies on. So the page lies
//! below 2 GiB, where the kernel places only what asks for it. A program that is linked to
//! low addresses (not position-independent) has its heap there. For such a program the page
//! is mapped before it runs, and its forked children have no such page.

use super::confined;
use super::fd::Fd;
use super::mem::{self, Region};
use super::syscall::syscall3;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use core::sync::atomic::{AtomicI32, AtomicUsize};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd};
use rustix::io::Errno;
use rustix::io_uring::{
    IORING_OFF_SQ_RING, IoringRegisterOp, io_uring_params, io_uring_register, io_uring_setup,
};
use rustix::mm::{MapFlags, ProtFlags};
use tmem_wire::PAGE_SIZE;

/// The address of the page, or 0.
static AT: AtomicUsize = AtomicUsize::new(0);
/// The io_uring in the engine's file table until the userfaultfd is registered with it, or
/// -1.
static RING: AtomicI32 = AtomicI32::new(-1);

/// `MAP_32BIT`: a place below 2 GiB.
const LOW: MapFlags = MapFlags::from_bits_retain(0x40);

/// Makes the io_uring early. Called by the engine of a program that does not run yet.
pub fn prepare() {
    if has_low_heap()
        && may_be()
        && let Ok(ring) = new_ring(MapFlags::empty())
    {
        RING.store(ring.raw(), Relaxed);
        core::mem::forget(ring);
    }
}

/// Keeps `uffd` open from now on, if the system supports it. Called once by an engine.
pub fn keep(uffd: BorrowedFd<'_>) {
    let prepared = RING.swap(-1, Relaxed);
    let ring = match prepared {
        // SAFETY: `prepare` opened it in this task's file table and does not own it any
        // more.
        0.. => Ok(unsafe { Fd::from_raw_fd(prepared) }),
        _ if has_low_heap() || !may_be() => return,
        _ => new_ring(LOW),
    };
    let files = [uffd.as_raw_fd()];
    let op = IoringRegisterOp::RegisterFiles;
    // SAFETY: one file descriptor, as the length says.
    let put = ring
        .and_then(|ring| unsafe { io_uring_register(ring.as_fd(), op, files.as_ptr().cast(), 1) });
    if put.is_err() {
        // Without it, the userfaultfd stays open only as long as one of the engine's tasks
        // lives.
        release();
    }
}

/// Tells whether an io_uring may be set up. A seccomp filter might kill for the attempt.
fn may_be() -> bool {
    !confined::is_confined() && !confined::is_filtered()
}

/// Tells whether the program's heap (`brk`) could grow into mappings below 2 GiB.
fn has_low_heap() -> bool {
    const BRK: usize = 12;
    // SAFETY: brk(0) changes nothing.
    (unsafe { syscall3(BRK, 0, 0, 0) }) < 1 << 31
}

/// Makes an io_uring and maps one of its pages.
fn new_ring(place: MapFlags) -> Result<Fd, Errno> {
    let mut params = io_uring_params::default();
    // SAFETY: nothing is ever submitted to it.
    let ring = Fd::from(unsafe { io_uring_setup(1, &mut params)? }).moved_up();
    let (none, flags) = (ProtFlags::empty(), MapFlags::SHARED | place);
    let (at, len) = (core::ptr::null_mut(), PAGE_SIZE);
    // SAFETY: a new mapping at an address that the kernel chooses.
    let at = unsafe { rustix::mm::mmap(at, len, none, flags, ring.as_fd(), IORING_OFF_SQ_RING)? };
    AT.store(at.addr(), Relaxed);
    // A child has memory of its own.
    mem::copied_by_forks(at.addr(), len, false).inspect_err(|_| release())?;
    Ok(ring)
}

/// Returns its address, for code that reads the list of mappings.
pub fn at() -> Option<usize> {
    Some(AT.load(Acquire)).filter(|at| *at != 0)
}

/// Lets the userfaultfd be closed with the engine, since none of the program's pages is
/// elsewhere.
pub fn release() {
    let (start, len) = (AT.swap(0, AcqRel), PAGE_SIZE);
    if start != 0 {
        Region { start, len }.unmap();
    }
}

/// Forgets the mapping in a process that was just forked, which does not have it.
pub fn reset_after_fork() {
    AT.store(0, Relaxed);
    RING.store(-1, Relaxed);
}
