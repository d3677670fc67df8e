//! `read`, `write` and similar calls. Two kinds of descriptors need more than the call: files
//! that are read directly ([`super::direct`]), and the program's own memory
//! ([`super::mem_file`]).
//!
//! A thread may be cancelled in these calls. With a frame of this library on its stack the
//! program would end. So calls for other descriptors are passed on by a jump. For these two
//! kinds, a pending cancellation is acted on before the call.

use super::next::{Function, next};
use super::{direct, interpose, mem_file};
use core::arch::naked_asm;
use libc::{c_int, c_void, iovec, off_t, size_t, ssize_t};
use tmem_pager::engine::exclusion::{COPYING, is_needed};

unsafe extern "C" {
    fn pthread_testcancel();
}

interpose! {
    /// `read(2)`.
    read => Read, read_if_ours, COPYING, mem_file::OPENED;
    /// `pread(2)`.
    pread => Pread, pread_if_ours, COPYING, mem_file::OPENED;
    /// `pread64(2)`, which is the same on machines of 64 bits.
    pread64 => Pread64, pread_if_ours, COPYING, mem_file::OPENED;
    /// `readv(2)`.
    readv => Readv, readv_if_ours, COPYING, mem_file::OPENED;
    /// `preadv(2)`.
    preadv => Preadv, preadv_if_ours, COPYING, mem_file::OPENED;
    /// `preadv64(2)`, which is the same on machines of 64 bits.
    preadv64 => Preadv64, preadv_if_ours, COPYING, mem_file::OPENED;
    /// `write(2)`.
    write => Write, write_if_ours, mem_file::OPENED;
    /// `pwrite(2)`.
    pwrite => Pwrite, pwrite_if_ours, mem_file::OPENED;
    /// `pwrite64(2)`, which is the same on machines of 64 bits.
    pwrite64 => Pwrite64, pwrite_if_ours, mem_file::OPENED;
    /// `writev(2)`.
    writev => Writev, writev_if_ours, mem_file::OPENED;
    /// `pwritev(2)`.
    pwritev => Pwritev, pwritev_if_ours, mem_file::OPENED;
    /// `pwritev64(2)`, which is the same on machines of 64 bits.
    pwritev64 => Pwritev64, pwritev_if_ours, mem_file::OPENED;
}

interpose! {
    /// `read(2)` as it is compiled where the size of the buffer is known.
    __read_chk => ReadChk, read_chk_if_ours, COPYING, mem_file::OPENED;
    /// `pread(2)` likewise.
    __pread_chk => PreadChk, pread_chk_if_ours, COPYING, mem_file::OPENED;
    /// `pread64(2)` likewise.
    __pread64_chk => Pread64Chk, pread64_chk_if_ours, COPYING, mem_file::OPENED;
}

/// Defines a function that goes on with `own` where `is_ours` says so of the descriptor, and
/// else jumps to the next function.
macro_rules! if_ours {
    ($($name:ident => $function:ident, $own:path, $is_ours:path;)*) => {$(
        #[unsafe(naked)]
        unsafe extern "C" fn $name() {
            naked_asm!(
                ".cfi_startproc",
                "push rdi",
                "push rsi",
                "push rdx",
                "push rcx",
                "push r8",
                ".cfi_adjust_cfa_offset 40",
                "call {is_ours}",
                "test al, al",
                "jz 2f",
                // While it reads or writes it cannot be cancelled.
                "call qword ptr [rip + {testcancel}@GOTPCREL]",
                "mov al, 1",
                "2:",
                "pop r8",
                "pop rcx",
                "pop rdx",
                "pop rsi",
                "pop rdi",
                ".cfi_adjust_cfa_offset -40",
                "test al, al",
                "jnz {own}",
                "jmp qword ptr [rip + {next} + {at}]",
                ".cfi_endproc",
                is_ours = sym $is_ours,
                testcancel = sym pthread_testcancel,
                own = sym $own,
                next = sym super::next::NEXT,
                at = const Function::$function as usize * size_of::<usize>(),
            )
        }
    )*};
}

if_ours! {
    read_if_ours => Read, own_read, is_read_by_us;
    pread_if_ours => Pread, own_pread, is_read_by_us;
    readv_if_ours => Readv, own_readv, is_read_by_us;
    preadv_if_ours => Preadv, own_preadv, is_read_by_us;
    write_if_ours => Write, own_write, is_written_by_us;
    pwrite_if_ours => Pwrite, own_pwrite, is_written_by_us;
    writev_if_ours => Writev, own_writev, is_written_by_us;
    pwritev_if_ours => Pwritev, own_pwritev, is_written_by_us;
    read_chk_if_ours => ReadChk, own_read_chk, is_read_by_us;
    pread_chk_if_ours => PreadChk, own_pread_chk, is_read_by_us;
    pread64_chk_if_ours => Pread64Chk, own_pread_chk, is_read_by_us;
}

extern "C" fn is_read_by_us(fd: c_int) -> bool {
    is_needed() && direct::is_direct(fd) || mem_file::is_own(fd)
}

extern "C" fn is_written_by_us(fd: c_int) -> bool {
    mem_file::is_own(fd)
}

/// The descriptor is ours: whether it is the program's memory, and not a file that is read
/// directly.
fn is_memory(fd: c_int) -> bool {
    mem_file::is_own(fd)
}

unsafe extern "C" fn own_read(fd: c_int, to: *mut c_void, len: size_t) -> ssize_t {
    // SAFETY: by the caller.
    unsafe {
        match is_memory(fd) {
            true => mem_file::read(fd, to, len, None),
            false => direct::read(fd, to, len),
        }
    }
}

unsafe extern "C" fn own_pread(fd: c_int, to: *mut c_void, len: size_t, at: off_t) -> ssize_t {
    // SAFETY: by the caller.
    unsafe {
        match is_memory(fd) {
            true => mem_file::read(fd, to, len, Some(at)),
            false => direct::pread(fd, to, len, at),
        }
    }
}

unsafe extern "C" fn own_readv(fd: c_int, to: *const iovec, n: c_int) -> ssize_t {
    // SAFETY: by the caller.
    unsafe {
        match is_memory(fd) {
            true => mem_file::readv(fd, to, n, None),
            false => direct::readv(fd, to, n),
        }
    }
}

unsafe extern "C" fn own_preadv(fd: c_int, to: *const iovec, n: c_int, at: off_t) -> ssize_t {
    // SAFETY: by the caller.
    unsafe {
        match is_memory(fd) {
            true => mem_file::readv(fd, to, n, Some(at)),
            false => direct::preadv(fd, to, n, at),
        }
    }
}

unsafe extern "C" fn own_write(fd: c_int, from: *const c_void, len: size_t) -> ssize_t {
    // SAFETY: by the caller.
    unsafe { mem_file::write(fd, from, len, None) }
}

unsafe extern "C" fn own_pwrite(fd: c_int, from: *const c_void, len: size_t, at: off_t) -> ssize_t {
    // SAFETY: by the caller.
    unsafe { mem_file::write(fd, from, len, Some(at)) }
}

unsafe extern "C" fn own_writev(fd: c_int, from: *const iovec, n: c_int) -> ssize_t {
    // SAFETY: by the caller.
    unsafe { mem_file::writev(fd, from, n, None) }
}

unsafe extern "C" fn own_pwritev(fd: c_int, from: *const iovec, n: c_int, at: off_t) -> ssize_t {
    // SAFETY: by the caller.
    unsafe { mem_file::writev(fd, from, n, Some(at)) }
}

unsafe extern "C" fn own_read_chk(
    fd: c_int,
    to: *mut c_void,
    len: size_t,
    room: size_t,
) -> ssize_t {
    type Real = unsafe extern "C" fn(c_int, *mut c_void, size_t, size_t) -> ssize_t;
    // SAFETY: by the caller; the C library's function of that name ends the program where
    // there is too little room.
    unsafe {
        match len > room {
            true => std::mem::transmute::<usize, Real>(next(Function::ReadChk))(fd, to, len, room),
            false => own_read(fd, to, len),
        }
    }
}

unsafe extern "C" fn own_pread_chk(
    fd: c_int,
    to: *mut c_void,
    len: size_t,
    at: off_t,
    room: size_t,
) -> ssize_t {
    type Real = unsafe extern "C" fn(c_int, *mut c_void, size_t, off_t, size_t) -> ssize_t;
    // SAFETY: as above.
    unsafe {
        match len > room {
            true => {
                let real = std::mem::transmute::<usize, Real>(next(Function::PreadChk));
                real(fd, to, len, at, room)
            }
            false => own_pread(fd, to, len, at),
        }
    }
}
