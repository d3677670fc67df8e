//! Userfaultfds of the program's own: what it registers is relinquished by tmem, see
//! `tmem_pager::engine::relinquish`.

use super::interpose;
use super::next::{Function, next};
use crate::errno;
use crate::heap::undisturbed;
use libc::{c_int, c_ulong};
use tmem_pager::engine::exclusion::are_reported;
use tmem_pager::engine::relinquish;

/// `_IOWR(0xAA, 0, struct uffdio_register)`.
const REGISTER: c_ulong = 0xc020_aa00;
/// `_IOWR(0xAA, 5, struct uffdio_move)`.
const MOVE: c_ulong = 0xc028_aa05;

type Ioctl = unsafe extern "C" fn(c_int, c_ulong, usize) -> c_int;

interpose! {
    /// `ioctl(2)`.
    ioctl => Ioctl, own_ioctl;
}

/// `ioctl(2)`. Callers without a third argument leave anything there.
///
/// # Safety
/// As for the C library's.
unsafe extern "C" fn own_ioctl(fd: c_int, request: c_ulong, arg: usize) -> c_int {
    let real = next(Function::Ioctl);
    // SAFETY: it is ioctl, whose further argument is passed on like the others.
    let real = unsafe { std::mem::transmute::<usize, Ioctl>(real) };
    let before = errno::get();
    // SAFETY: by the caller.
    let call = || match unsafe { real(fd, request, arg) } {
        result if result < 0 => -errno::get() as isize,
        result => result as isize,
    };
    // SAFETY: by the caller.
    match unsafe { ceding(request as usize, arg, call) } {
        // It may have been refused at first.
        result if result >= 0 => {
            errno::set(before);
            result as c_int
        }
        error => {
            errno::set(-error as c_int);
            -1
        }
    }
}

/// Makes a call of `ioctl(2)`, which gives the kernel's answer, with tmem giving way
/// to it where it has to.
///
/// # Safety
/// As `ioctl(2)`.
pub(crate) unsafe fn ceding(request: usize, arg: usize, call: impl Fn() -> isize) -> isize {
    // SAFETY: by the caller: the argument is in memory.
    let range = |at: usize| unsafe {
        let (start, len) = words(arg + at);
        start..start.saturating_add(len)
    };
    match request as c_ulong {
        // It begins with a range.
        REGISTER => match call() {
            refused if refused == -libc::EBUSY as isize && are_reported() => undisturbed(|| {
                let ceded = relinquish(&range(0));
                ceded.map_or(refused, |_ceded| call())
            }),
            result => result,
        },
        // Where to comes first, then where from and how much. What is elsewhere would
        // count as absent.
        MOVE if are_reported() => undisturbed(|| {
            let _ceded = relinquish(&range(size_of::<u64>()));
            call()
        }),
        _ => call(),
    }
}

/// Two words of the caller's memory.
///
/// # Safety
/// They are readable, aligned as they are in the kernel's structures or not.
unsafe fn words(at: usize) -> (usize, usize) {
    let at = at as *const usize;
    // SAFETY: by the caller.
    unsafe { (at.read_unaligned(), at.add(1).read_unaligned()) }
}
