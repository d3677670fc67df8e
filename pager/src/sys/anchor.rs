//! Keeps a userfaultfd open for as long as anybody uses the memory that it is for.
//!
//! Once a userfaultfd is closed, absent pages read as zeros. A descriptor goes with the task
//! that has it. A mapping goes with the memory: so the userfaultfd is put among the files of
//! an io_uring that is used for nothing else, and one page of that is mapped. The kernel
//! closes both when the last user of the memory is gone, whichever tasks were killed before.
//! Who touches an absent page when nobody serves it any more then waits until it is killed.
//!
//! The kernel takes no address for that page. What it chooses by itself may be a place that
//! the program has unmapped and relies on; so the page is below 2 GiB, where nothing is placed
//! that is not asked for there. A program that is linked to low addresses (not
//! position-independent) has its heap there: for such a one the page is mapped before it
//! runs, and children that it forks do without.

use super::fd::Fd;
use super::mem::{self, Region, syscall3};
use super::thread;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use core::sync::atomic::{AtomicI32, AtomicUsize};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd};
use rustix::io::Errno;
use rustix::io_uring::{
    IORING_OFF_SQ_RING, IoringRegisterOp, io_uring_params, io_uring_register, io_uring_setup,
};
use rustix::mm::{MapFlags, ProtFlags};
use tmem_wire::PAGE_SIZE;

/// The address of the page; 0 for none.
static AT: AtomicUsize = AtomicUsize::new(0);
/// The io_uring in the engine's file table, until the userfaultfd is put there; or -1.
static RING: AtomicI32 = AtomicI32::new(-1);

/// `MAP_32BIT`: below 2 GiB.
const LOW: MapFlags = MapFlags::from_bits_retain(0x40);

/// Called by the engine of a program that has not begun to run.
pub fn prepare() {
    if has_low_heap()
        && may_be()
        && let Ok(ring) = new_ring(MapFlags::empty())
    {
        RING.store(ring.raw(), Relaxed);
        core::mem::forget(ring);
    }
}

/// Keeps `uffd` open from now on, if this system has what it takes. Called once by an engine.
pub fn keep(uffd: BorrowedFd<'_>) {
    let prepared = RING.swap(-1, Relaxed);
    let ring = match prepared {
        // SAFETY: of this task's table, and forgotten by `prepare`.
        0.. => Ok(unsafe { Fd::from_raw_fd(prepared) }),
        _ if has_low_heap() || !may_be() => return,
        _ => new_ring(LOW),
    };
    let files = [uffd.as_raw_fd()];
    let op = IoringRegisterOp::RegisterFiles;
    // SAFETY: one descriptor, as said.
    let put = ring
        .and_then(|ring| unsafe { io_uring_register(ring.as_fd(), op, files.as_ptr().cast(), 1) });
    if put.is_err() {
        // Without it, it is open for as long as one of the engine's tasks lives.
        release();
    }
}

/// Whether nobody is ended for trying.
fn may_be() -> bool {
    !thread::is_confined() && !thread::is_filtered()
}

/// Whether the heap of the program (`brk`) would meet what is mapped below 2 GiB.
fn has_low_heap() -> bool {
    const BRK: usize = 12;
    // SAFETY: brk(0) changes nothing.
    (unsafe { syscall3(BRK, 0, 0, 0) }) < 1 << 31
}

/// Makes an io_uring, one page of which is mapped.
fn new_ring(place: MapFlags) -> Result<Fd, Errno> {
    let mut params = io_uring_params::default();
    // SAFETY: nothing is ever submitted to it.
    let ring = Fd::from(unsafe { io_uring_setup(1, &mut params)? }).moved_up();
    let (none, flags) = (ProtFlags::empty(), MapFlags::SHARED | place);
    let (at, len) = (core::ptr::null_mut(), PAGE_SIZE);
    // SAFETY: a new mapping at an address of the kernel's choice.
    let at = unsafe { rustix::mm::mmap(at, len, none, flags, ring.as_fd(), IORING_OFF_SQ_RING)? };
    AT.store(at.addr(), Relaxed);
    // A child has memory of its own.
    mem::copied_by_forks(at.addr(), len, false).inspect_err(|_| release())?;
    Ok(ring)
}

/// Where it is, for those that look what is mapped.
pub fn at() -> Option<usize> {
    Some(AT.load(Acquire)).filter(|at| *at != 0)
}

/// Lets the userfaultfd be closed with the engine: nothing of the program is elsewhere.
pub fn release() {
    let (start, len) = (AT.swap(0, AcqRel), PAGE_SIZE);
    if start != 0 {
        Region { start, len }.unmap();
    }
}

/// In a process that was just forked, which has no such mapping.
pub fn reset_after_fork() {
    AT.store(0, Relaxed);
    RING.store(-1, Relaxed);
}
