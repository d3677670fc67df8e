//! `syscall`, by which a program can make any of the calls that other files see by name.

use super::fork;
use super::next::{Function, NEXT};
use crate::errno;
use crate::raw::raw_syscall;
use libc::{c_int, c_long, c_void};
use tmem_pager::engine::exclusion::Change;
use tmem_pager::engine::{credentials, lending};
use tmem_pager::sys::network;

super::interpose! {
    /// `syscall`, with what calls need that this library has to do with.
    syscall => Syscall, syscall_if_ours;
}

/// Goes on with [`own_syscall`] where the call is one that this library has to do with, and
/// else jumps to the next function: a child that the call makes may come back on a stack of
/// its own, or on the caller's.
#[unsafe(naked)]
unsafe extern "C" fn syscall_if_ours() {
    core::arch::naked_asm!(
        super::keeping_arguments!("call {is_ours}", "mov r11d, eax"),
        "test r11b, r11b",
        "jnz {own}",
        "jmp qword ptr [rip + {next} + {at}]",
        is_ours = sym is_ours,
        own = sym own_syscall,
        next = sym NEXT,
        at = const Function::Syscall as usize * size_of::<usize>(),
    )
}

/// Whether a system call is one that this library has to do with.
///
/// # Safety
/// The arguments are that call's.
unsafe extern "C" fn is_ours(number: c_long, a: usize, b: usize) -> bool {
    match number {
        libc::SYS_prctl => matches!(
            a as c_int,
            libc::PR_SET_SECCOMP | libc::PR_SET_CHILD_SUBREAPER
        ),
        libc::SYS_fork | libc::SYS_clone | libc::SYS_clone3 => {
            // SAFETY: by the caller.
            unsafe { forks(number, a, b).0 }
        }
        libc::SYS_seccomp
        | libc::SYS_mincore
        | libc::SYS_munmap
        | libc::SYS_mremap
        | libc::SYS_mmap
        | libc::SYS_madvise
        | libc::SYS_mlockall
        | libc::SYS_ioctl
        | libc::SYS_process_madvise
        | libc::SYS_vmsplice
        | libc::SYS_setsockopt
        | libc::SYS_io_uring_setup
        | libc::SYS_io_uring_register => true,
        number => super::credentials::may_give_up(number),
    }
}

/// Whether a system call copies the address space and has the child come back here, and the
/// flags of `clone` that it is made with.
///
/// # Safety
/// The arguments are that call's.
unsafe fn forks(number: c_long, a: usize, b: usize) -> (bool, u64) {
    match number {
        libc::SYS_fork => (true, 0),
        // With a stack of its own the child does not come back here.
        libc::SYS_clone => (a & libc::CLONE_VM as usize == 0 && b == 0, a as u64),
        libc::SYS_clone3 if b >= 48 => {
            // SAFETY: by the caller: a `struct clone_args` of `b` bytes.
            let arg = |at: usize| unsafe { ((a as *const u64).wrapping_add(at)).read() };
            (arg(0) & libc::CLONE_VM as u64 == 0 && arg(5) == 0, arg(0))
        }
        _ => (false, 0),
    }
}

/// Makes a call of `syscall`, prepares the fork if it is one, and keeps it apart from zaps
/// if it unmaps or empties memory.
///
/// # Safety
/// As for the C library's `syscall`.
unsafe extern "C" fn own_syscall(
    number: c_long,
    a: usize,
    b: usize,
    c: usize,
    d: usize,
    e: usize,
    f: usize,
) -> c_long {
    let b = match number {
        libc::SYS_seccomp => super::seccomp::for_whom(a, b, c),
        libc::SYS_prctl => {
            super::seccomp::before(a as c_int, b, c);
            b
        }
        _ => b,
    };
    // SAFETY: by the caller.
    unsafe { super::lend::before(number, b, c) };
    if number == libc::SYS_process_madvise {
        lending::advises();
    }
    if number == libc::SYS_mincore {
        // SAFETY: by the caller.
        return unsafe { super::mincore::own_mincore(a as *mut c_void, b, c as *mut u8).into() };
    }
    if super::credentials::may_give_up(number) {
        credentials::given_up();
    }
    // SAFETY: by the caller.
    let (forks, flags) = unsafe { forks(number, a, b) };
    let shares_files = flags & libc::CLONE_FILES as u64 != 0;
    let forks = forks && fork::is_prepared();
    let changes = match number {
        libc::SYS_munmap => true,
        libc::SYS_mmap => super::unmap::maps_over(d as c_int),
        libc::SYS_madvise => super::unmap::empties(c as c_int),
        _ => false,
    };
    let _change = match number {
        libc::SYS_mremap => Some(super::mremap::begin(d as c_int)),
        _ => changes.then(Change::begin),
    };
    // SAFETY: by the caller; the handlers are called as they are meant to be.
    let result = unsafe {
        if forks {
            fork::prepare_fork(shares_files);
        }
        let call = || raw_syscall(number, [a, b, c, d, e, f]);
        let result = match number {
            libc::SYS_ioctl => super::user_uffd::ceding(b, c, call),
            libc::SYS_mlockall => super::mlock::lock_all(a as c_int),
            libc::SYS_io_uring_register => super::io_uring::registering(b, c, d, call),
            _ => call(),
        };
        if number == libc::SYS_landlock_restrict_self && result == 0 {
            network::restrict();
        }
        if number == libc::SYS_madvise && result == 0 {
            super::unmap::advised(a, b, c as c_int);
        }
        match result {
            _ if !forks => {}
            0 => fork::in_child(),
            _ => fork::in_parent(),
        }
        result
    };
    if (-4095..0).contains(&result) {
        errno::set(-result as c_int);
        return -1;
    }
    result as c_long
}
