//! What a program reads and writes of its own memory by `/proc/self/mem`, as those do that
//! make code and write it to pages that they may only read.
//!
//! The kernel does not wait there for what is elsewhere, but refuses it (`EIO`), or ends
//! before it. Then that page is brought, and the rest is read or written.

use crate::fork::raw_syscall;
use crate::heap::undisturbed;
use crate::large::next;
use libc::{c_int, c_void, off_t, size_t, ssize_t};
use std::io::Write;
use std::sync::atomic::AtomicUsize;
use tmem_pager::engine::apart::are_reported;
use tmem_pager::engine::bring;

const PAGE: usize = 4096;
/// A page that was brought may leave again before it is used.
const ATTEMPTS: usize = 64;
/// Bytes of the longest name of `/proc/PID/task/TID/mem`, and some.
const NAME: usize = 64;

type WriteFn = unsafe extern "C" fn(c_int, *const c_void, size_t) -> ssize_t;
type Pwrite = unsafe extern "C" fn(c_int, *const c_void, size_t, off_t) -> ssize_t;

static WRITE: AtomicUsize = AtomicUsize::new(0);
static PWRITE: AtomicUsize = AtomicUsize::new(0);

/// Reads or writes `len` bytes by `call`, which is given how many are done and how many
/// there are to do, from the position `at` of the descriptor on, or where it stands.
pub(crate) fn whole(
    fd: c_int,
    len: usize,
    at: Option<off_t>,
    call: impl Fn(usize, usize) -> ssize_t,
) -> ssize_t {
    let first = call(0, len);
    if !are_reported() || !may_be_refused(first, len, at) {
        return first;
    }
    let errno = errno();
    let more = if undisturbed(|| is_own(fd)) {
        go_on(fd, len, at, first, call)
    } else {
        first
    };
    if more < 0 {
        set_errno(errno);
    }
    more
}

/// Whether an answer is one that memory of this process may give that is elsewhere. Where
/// it stands at the position of its descriptor, who was told of less asks again.
fn may_be_refused(answer: ssize_t, len: usize, at: Option<off_t>) -> bool {
    match usize::try_from(answer) {
        Err(_) => errno() == libc::EIO,
        Ok(done) => done < len && at.is_some_and(|at| (at as usize + done).is_multiple_of(PAGE)),
    }
}

/// Brings page after page, and goes on from there.
fn go_on(
    fd: c_int,
    len: usize,
    at: Option<off_t>,
    first: ssize_t,
    call: impl Fn(usize, usize) -> ssize_t,
) -> ssize_t {
    let mut done = first.max(0) as usize;
    let mut attempts = 0;
    while done < len && attempts < ATTEMPTS {
        let place = match at {
            Some(at) => at as usize + done,
            // SAFETY: takes numbers only.
            None => unsafe { libc::lseek(fd, 0, libc::SEEK_CUR) as usize },
        };
        let page = place / PAGE * PAGE;
        if !undisturbed(|| bring(&(page..page + PAGE))) {
            break;
        }
        match call(done, len - done) {
            more @ 1.. => {
                done += more as usize;
                attempts = 0;
            }
            _ => attempts += 1,
        }
    }
    if done == 0 { first } else { done as ssize_t }
}

/// Whether a descriptor is this process' own memory.
fn is_own(fd: c_int) -> bool {
    let mut link = [0u8; NAME];
    let mut name = [0u8; NAME];
    if write!(&mut link[..], "/proc/self/fd/{fd}\0").is_err() {
        return false;
    }
    let args = [link.as_ptr() as usize, name.as_mut_ptr() as usize, NAME];
    let [a, b, c] = args;
    // SAFETY: a C string, and room for so many bytes.
    let len = unsafe { raw_syscall(libc::SYS_readlink, [a, b, c, 0, 0, 0]) };
    let name = usize::try_from(len).ok().and_then(|len| name.get(..len));
    name.is_some_and(|name| is_memory_of(name, std::process::id()))
}

/// Whether a file of that name is the memory of a process or of a thread of it.
fn is_memory_of(name: &[u8], process: u32) -> bool {
    let number = |text: &[u8]| str::from_utf8(text).ok()?.parse::<u32>().ok();
    let Some(rest) = name.strip_prefix(b"/proc/") else {
        return false;
    };
    let mut parts = rest.split(|b| *b == b'/');
    if parts.next().and_then(number) != Some(process) {
        return false;
    }
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(b"mem"), None, ..) => true,
        (Some(b"task"), Some(thread), Some(b"mem"), None) => number(thread).is_some(),
        _ => false,
    }
}

fn errno() -> c_int {
    // SAFETY: this thread's.
    unsafe { *libc::__errno_location() }
}

fn set_errno(value: c_int) {
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = value };
}

unsafe extern "C" fn raw_write(fd: c_int, from: *const c_void, len: size_t) -> ssize_t {
    // SAFETY: by the caller.
    unsafe { libc::syscall(libc::SYS_write, fd, from, len) as ssize_t }
}

unsafe extern "C" fn raw_pwrite(fd: c_int, from: *const c_void, len: size_t, at: off_t) -> ssize_t {
    // SAFETY: by the caller.
    unsafe { libc::syscall(libc::SYS_pwrite64, fd, from, len, at) as ssize_t }
}

/// `write(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn write(fd: c_int, from: *const c_void, len: size_t) -> ssize_t {
    let real = next(&WRITE, c"write", raw_write as *const () as usize);
    // SAFETY: it is write.
    let real = unsafe { std::mem::transmute::<usize, WriteFn>(real) };
    // SAFETY: by the caller; each piece lies within what was given.
    whole(fd, len, None, |done, n| unsafe {
        real(fd, from.byte_add(done), n)
    })
}

/// `pwrite(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite(fd: c_int, from: *const c_void, len: size_t, at: off_t) -> ssize_t {
    let real = next(&PWRITE, c"pwrite", raw_pwrite as *const () as usize);
    // SAFETY: it is pwrite.
    let real = unsafe { std::mem::transmute::<usize, Pwrite>(real) };
    whole(fd, len, Some(at), |done, n| {
        let at = at.saturating_add(done as off_t);
        // SAFETY: by the caller; each piece lies within what was given.
        unsafe { real(fd, from.byte_add(done), n, at) }
    })
}

/// `pwrite64(2)`, which is the same on machines of 64 bits.
#[unsafe(no_mangle)]
unsafe extern "C" fn pwrite64(fd: c_int, from: *const c_void, len: size_t, at: off_t) -> ssize_t {
    // SAFETY: by the caller.
    unsafe { pwrite(fd, from, len, at) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_this_process_is_told_by_its_name() {
        for name in ["/proc/12/mem", "/proc/12/task/13/mem"] {
            assert!(is_memory_of(name.as_bytes(), 12), "{name}");
        }
        for name in [
            "/proc/13/mem",
            "/proc/12/maps",
            "/proc/12/task/x/mem",
            "/proc/12/task/13/mem/x",
            "/tmp/proc/12/mem",
            "/proc/12/mem (deleted)",
            "",
        ] {
            assert!(!is_memory_of(name.as_bytes(), 12), "{name}");
        }
    }
}
