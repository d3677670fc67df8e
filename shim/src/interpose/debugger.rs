//! Memory of other processes, for programs that debug them.
//!
//! The kernel refuses what is elsewhere to `ptrace` and to reads and writes of
//! `/proc/PID/mem`, as if nothing was there. It does not refuse it to `process_vm_readv`, which
//! has an engine bring it: also that of a process all threads of which are stopped, where the
//! engine is a process of its own. So what is refused is read in that way, and then asked for
//! once more.
//!
//! This is for a program that is paged itself, and for one that `tmem debug` has started.

use super::ACTIVE;
use super::interpose;
use super::next::{Function, next};
use crate::errno;
use libc::{c_int, c_long, c_void, pid_t};
use std::fs;
use std::path::Path;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicI32};

/// How often memory is brought that has left again before it could be used.
const ATTEMPTS: usize = 1 << 10;

/// This program debugs others, and is not paged.
pub(super) static DEBUGS: AtomicBool = AtomicBool::new(false);

/// The thread that was asked for last, and whether its memory is served.
static LAST: AtomicI32 = AtomicI32::new(0);
static IS_SERVED: AtomicBool = AtomicBool::new(false);

/// Has this program read what is elsewhere in others, where it was started for that.
pub(crate) fn begin() {
    if std::env::var_os(tmem_config::DEBUGGER_VARIABLE).is_some() {
        DEBUGS.store(true, Release);
    }
}

interpose! {
    /// `ptrace(2)`, which reads and writes words of memory.
    ptrace => Ptrace, own_ptrace, ACTIVE, DEBUGS;
}

/// # Safety
/// As for the C library's function.
unsafe extern "C" fn own_ptrace(request: c_long, pid: pid_t, at: usize, data: usize) -> c_long {
    type Real = unsafe extern "C" fn(c_long, pid_t, usize, usize) -> c_long;
    // SAFETY: the C library's function of that name, which takes so many words whatever is
    // asked for.
    let real = unsafe { std::mem::transmute::<usize, Real>(next(Function::Ptrace)) };
    let is_memory = matches!(
        request as u32,
        libc::PTRACE_PEEKTEXT
            | libc::PTRACE_PEEKDATA
            | libc::PTRACE_POKETEXT
            | libc::PTRACE_POKEDATA
    );
    // SAFETY: by the caller.
    let call = || unsafe { real(request, pid, at, data) };
    let refused = |result| result == -1 && is_memory && errno::get() == libc::EIO;
    let mut result = call();
    for _ in 0..ATTEMPTS {
        if !refused(result) || !bring(pid, at) {
            break;
        }
        errno::set(0);
        result = call();
    }
    result
}

/// The thread whose memory a descriptor is, where that is another process's.
pub(super) fn other(fd: c_int) -> Option<pid_t> {
    let path = fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
    let tid = path.parent()?.file_name()?.to_str()?.parse().ok()?;
    let own = Path::new("/proc/self/task").join(format!("{tid}"));
    (!own.exists()).then_some(tid)
}

/// Has what is at `at` in the memory of thread `tid` brought; whether it is there now.
pub(super) fn bring(tid: pid_t, at: usize) -> bool {
    if !is_served(tid) {
        return false;
    }
    let mut byte = 0u8;
    let vector = |base: *mut c_void| libc::iovec {
        iov_base: base,
        iov_len: 1,
    };
    let [local, remote] = [vector((&raw mut byte).cast()), vector(at as *mut c_void)];
    // SAFETY: room for one byte; the other is of another process.
    unsafe { libc::process_vm_readv(tid, &local, 1, &remote, 1, 0) == 1 }
}

/// Whether a process of its own serves the memory of thread `tid`. Where it is a thread
/// beside `tid` it may be stopped, and would be waited for for ever.
fn is_served(tid: pid_t) -> bool {
    if LAST.load(Relaxed) == tid && IS_SERVED.load(Relaxed) {
        return true;
    }
    let is_engine = |entry: fs::DirEntry| {
        let name = fs::read(entry.path().join("comm")).unwrap_or_default();
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        name.starts_with(b"tmem-engine") && pid.is_some_and(|pid| share_memory(pid, tid))
    };
    let served = fs::read_dir("/proc").is_ok_and(|all| all.flatten().any(is_engine));
    IS_SERVED.store(served, Relaxed);
    LAST.store(tid, Relaxed);
    served
}

fn share_memory(a: pid_t, b: pid_t) -> bool {
    const KCMP_VM: c_int = 1;
    // SAFETY: kcmp(a, b, KCMP_VM) touches no memory.
    unsafe { libc::syscall(libc::SYS_kcmp, a, b, KCMP_VM, 0, 0) == 0 }
}
