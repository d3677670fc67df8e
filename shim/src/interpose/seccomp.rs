//! Filters of system calls (seccomp) that a program installs.
//!
//! A filter for all threads would hold for the engine too, and might end the process. A
//! program that has one thread means only that one, so its filter is installed for the
//! calling thread. For a program with several threads there is no other call.
//!
//! From the first filter on, threads of the program make no system calls for the engine's
//! sake, such as to sleep: the filter may not allow them.

use super::interpose;
use super::next::{Function, next};
use std::ffi::{c_int, c_uint, c_ulong, c_void};
use tmem_pager::filters::{self, Instruction};
use tmem_pager::sys::{confined, detached, proc, thread};

/// The operation that sets a filter.
const SET_FILTER: c_uint = 1;
/// For all threads, and how to tell that it failed.
const ALL: c_ulong = 1;
const ALL_OR_ERROR: c_ulong = 1 << 4;

/// The operation that allows next to nothing.
const SET_STRICT: c_uint = 0;

/// What to give to `seccomp(2)` as its flags.
pub(crate) fn for_whom(operation: usize, flags: usize, filter: usize) -> usize {
    match operation as c_uint {
        SET_STRICT => confine(None),
        SET_FILTER => confine(Some(filter)),
        _ => {}
    }
    let sets = operation as c_uint == SET_FILTER && flags as c_ulong & ALL != 0;
    if sets && crate::heap::undisturbed(is_alone) {
        flags & !(ALL | ALL_OR_ERROR) as usize
    } else {
        flags
    }
}

/// Called before `prctl(2)` with this option and these arguments.
pub(crate) fn before(option: c_int, a: usize, b: usize) {
    match (option, a as c_uint) {
        (libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_STRICT) => confine(None),
        (libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER) => confine(Some(b)),
        (libc::PR_SET_CHILD_SUBREAPER, _) => {
            detached::has_reaper();
            crate::family::has_reaper();
        }
        _ => {}
    }
}

/// Called before a filter is installed, of which this is the address, or none that allows
/// next to nothing.
fn confine(filter: Option<usize>) {
    crate::heap::undisturbed(|| match filter {
        None => filters::note_strict(),
        // The kernel refuses what cannot be read.
        Some(at) => _ = read_filter(at).map(|filter| filters::note(&filter)),
    });
    confined::confine();
}

/// Reads a `struct sock_fprog`, as far as that can be read.
fn read_filter(at: usize) -> Option<Vec<Instruction>> {
    let mut program = [0usize; 2];
    read(at, program.as_mut_ptr().cast(), size_of_val(&program))?;
    let len = program[0] & 0xffff;
    let nothing = Instruction {
        code: 0,
        jt: 0,
        jf: 0,
        k: 0,
    };
    let mut filter = vec![nothing; len];
    let bytes = len * size_of::<Instruction>();
    read(program[1], filter.as_mut_ptr().cast(), bytes)?;
    Some(filter)
}

/// Copies memory of the program, which may have given any address.
fn read(from: usize, to: *mut u8, len: usize) -> Option<()> {
    let vector = |base: usize| libc::iovec {
        iov_base: base as *mut c_void,
        iov_len: len,
    };
    let [local, remote] = [vector(to as usize), vector(from)];
    // SAFETY: there is so much room; what cannot be read is refused.
    let got = unsafe { libc::process_vm_readv(libc::getpid(), &local, 1, &remote, 1, 0) };
    (got == len as isize).then_some(())
}

interpose! {
    /// `prctl(2)`, which sets filters as well.
    prctl => Prctl, own_prctl;
}

unsafe extern "C" fn own_prctl(
    option: c_int,
    a: c_ulong,
    b: c_ulong,
    c: c_ulong,
    d: c_ulong,
) -> c_int {
    type Real = unsafe extern "C" fn(c_int, c_ulong, c_ulong, c_ulong, c_ulong) -> c_int;
    let real = next(Function::Prctl);
    before(option, a as usize, b as usize);
    // SAFETY: the C library's function of that name, which takes five words whatever the
    // option; by the caller.
    unsafe { std::mem::transmute::<usize, Real>(real)(option, a, b, c, d) }
}

/// Whether the calling thread is the program's only one.
fn is_alone() -> bool {
    proc::threads() == Some(thread::own() + 1)
}
