//! Direct input (`O_DIRECT`) on kernels that cannot move pages; see
//! `tmem_pager::engine::exclusion`. Elsewhere, and of all other files, these calls are passed on
//! without a frame of this library on the stack: a thread may be cancelled in them.

use super::interpose;
use super::next::{Function, next};
use crate::raw::raw_syscall;
use core::arch::naked_asm;
use libc::{c_int, c_void, iovec, off_t, size_t, ssize_t};
use tmem_pager::engine::exclusion::{COPYING, Direct};

/// Bytes that are read at a time: while they are, nothing is evicted.
const PIECE: usize = 1 << 20;

type Read = unsafe extern "C" fn(c_int, *mut c_void, size_t) -> ssize_t;
type Pread = unsafe extern "C" fn(c_int, *mut c_void, size_t, off_t) -> ssize_t;
type Readv = unsafe extern "C" fn(c_int, *const iovec, c_int) -> ssize_t;
type Preadv = unsafe extern "C" fn(c_int, *const iovec, c_int, off_t) -> ssize_t;

unsafe extern "C" {
    fn pthread_testcancel();
    fn pthread_setcancelstate(state: c_int, old: *mut c_int) -> c_int;
}

interpose! {
    /// `read(2)`.
    read => Read, read_if_direct, COPYING;
    /// `pread(2)`.
    pread => Pread, pread_if_direct, COPYING;
    /// `pread64(2)`, which is the same on machines of 64 bits.
    pread64 => Pread64, pread_if_direct, COPYING;
    /// `readv(2)`.
    readv => Readv, readv_if_direct, COPYING;
    /// `preadv(2)`.
    preadv => Preadv, preadv_if_direct, COPYING;
    /// `preadv64(2)`, which is the same on machines of 64 bits.
    preadv64 => Preadv64, preadv_if_direct, COPYING;
}

/// Defines a function that goes on with `own` where the descriptor is read directly, and
/// else jumps to the next function.
macro_rules! if_direct {
    ($($name:ident => $function:ident, $own:path;)*) => {$(
        #[unsafe(naked)]
        unsafe extern "C" fn $name() {
            naked_asm!(
                ".cfi_startproc",
                "push rdi",
                "push rsi",
                "push rdx",
                "push rcx",
                "sub rsp, 8",
                ".cfi_adjust_cfa_offset 40",
                "call {is_direct}",
                "test al, al",
                "jz 2f",
                // The call is one in which a thread may be cancelled. While it reads, it
                // cannot be: nothing would be evicted any more.
                "call qword ptr [rip + {testcancel}@GOTPCREL]",
                "mov al, 1",
                "2:",
                "add rsp, 8",
                "pop rcx",
                "pop rdx",
                "pop rsi",
                "pop rdi",
                ".cfi_adjust_cfa_offset -40",
                "test al, al",
                "jnz {own}",
                "jmp qword ptr [rip + {next} + {at}]",
                ".cfi_endproc",
                is_direct = sym is_direct,
                testcancel = sym pthread_testcancel,
                own = sym $own,
                next = sym super::next::NEXT,
                at = const Function::$function as usize * size_of::<usize>(),
            )
        }
    )*};
}

if_direct! {
    read_if_direct => Read, own_read;
    pread_if_direct => Pread, own_pread;
    readv_if_direct => Readv, own_readv;
    preadv_if_direct => Preadv, own_preadv;
}

/// Whether a descriptor is read by a device into the caller's memory.
extern "C" fn is_direct(fd: c_int) -> bool {
    let args = [fd as usize, libc::F_GETFL as usize, 0, 0, 0, 0];
    // SAFETY: takes numbers only.
    let flags = unsafe { raw_syscall(libc::SYS_fcntl, args) };
    flags >= 0 && flags as c_int & libc::O_DIRECT != 0
}

/// Reads, and meanwhile nothing is zapped and the thread is not cancelled.
fn undisturbed(read: impl FnOnce() -> ssize_t) -> ssize_t {
    /// `PTHREAD_CANCEL_DISABLE`.
    const DISABLE: c_int = 1;
    let mut state = 0;
    // SAFETY: room for the answer.
    unsafe { pthread_setcancelstate(DISABLE, &raw mut state) };
    let direct = Direct::begin();
    let got = read();
    drop(direct);
    // SAFETY: what it was; nothing is asked for. A cancellation waits for the next call.
    unsafe { pthread_setcancelstate(state, std::ptr::null_mut()) };
    got
}

/// Reads piece by piece, so that memory can be evicted in between.
fn pieces(len: usize, read: impl Fn(usize, usize) -> ssize_t) -> ssize_t {
    let mut done = 0;
    loop {
        let want = (len - done).min(PIECE);
        let got = undisturbed(|| read(done, want));
        if got < 0 {
            // What was read before is there, and is told first.
            return if done > 0 { done as ssize_t } else { got };
        }
        done += got as usize;
        if (got as usize) < want || done == len {
            return done as ssize_t;
        }
    }
}

unsafe extern "C" fn own_read(fd: c_int, to: *mut c_void, len: size_t) -> ssize_t {
    // SAFETY: it is read.
    let real = unsafe { std::mem::transmute::<usize, Read>(next(Function::Read)) };
    // SAFETY: by the caller; each piece lies within what was given.
    pieces(len, |at, n| unsafe { real(fd, to.byte_add(at), n) })
}

unsafe extern "C" fn own_pread(fd: c_int, to: *mut c_void, len: size_t, at: off_t) -> ssize_t {
    // SAFETY: it is pread.
    let real = unsafe { std::mem::transmute::<usize, Pread>(next(Function::Pread)) };
    pieces(len, |done, n| {
        let at = at.saturating_add(done as off_t);
        // SAFETY: by the caller; each piece lies within what was given.
        unsafe { real(fd, to.byte_add(done), n, at) }
    })
}

unsafe extern "C" fn own_readv(fd: c_int, to: *const iovec, n: c_int) -> ssize_t {
    // SAFETY: it is readv.
    let real = unsafe { std::mem::transmute::<usize, Readv>(next(Function::Readv)) };
    // SAFETY: by the caller.
    undisturbed(|| unsafe { real(fd, to, n) })
}

unsafe extern "C" fn own_preadv(fd: c_int, to: *const iovec, n: c_int, at: off_t) -> ssize_t {
    // SAFETY: it is preadv.
    let real = unsafe { std::mem::transmute::<usize, Preadv>(next(Function::Preadv)) };
    // SAFETY: by the caller.
    undisturbed(|| unsafe { real(fd, to, n, at) })
}
