//! Changes of users, groups and capabilities. The engine's tasks make the same change before
//! the program goes on: see `tmem_pager::engine::credentials`.
//!
//! These functions of the C library change all threads of a program. Others
//! (`setfsuid`), and system calls, change one.

use super::interpose;
use super::next::{Function, next};
use crate::errno;
use libc::{c_char, c_int, c_long, c_ulong, c_void, gid_t, size_t, uid_t};
use std::sync::atomic::{AtomicU32, Ordering};
use tmem_pager::engine::credentials;
use tmem_pager::sys::{confined, thread};

/// The process that this library was loaded into, or that was forked since. A process that
/// shares its memory (`vfork`) is another one.
static PROCESS: AtomicU32 = AtomicU32::new(0);

/// The calling process has an engine, or will have one.
pub(crate) fn begin() {
    PROCESS.store(thread::leader(), Ordering::Relaxed);
}

/// Whether the calling thread is of the program, and not of a process that shares its
/// memory.
pub(crate) fn is_the_programs() -> bool {
    PROCESS.load(Ordering::Relaxed) == thread::leader()
}

/// Has the engine follow a change of this process. Under a seccomp filter, which may end the
/// program for a call that it does not make itself, the engine notices the change alone.
fn followed(result: c_int) -> c_int {
    if result == 0 && !confined::is_confined() && is_the_programs() {
        let errno = errno::get();
        crate::heap::undisturbed(credentials::follow);
        errno::set(errno);
    }
    result
}

/// Functions that are passed on, and then followed.
macro_rules! followed {
    ($($own:ident => $function:ident($($arg:ident: $kind:ty),*);)*) => {$(
        unsafe extern "C" fn $own($($arg: $kind),*) -> c_int {
            let real = next(Function::$function);
            // SAFETY: the C library's function of that name, with what it takes.
            followed(unsafe {
                std::mem::transmute::<usize, unsafe extern "C" fn($($kind),*) -> c_int>(real)(
                    $($arg),*
                )
            })
        }
    )*};
}

followed! {
    own_setuid => Setuid(uid: uid_t);
    own_seteuid => Seteuid(uid: uid_t);
    own_setreuid => Setreuid(real: uid_t, effective: uid_t);
    own_setresuid => Setresuid(real: uid_t, effective: uid_t, saved: uid_t);
    own_setgid => Setgid(gid: gid_t);
    own_setegid => Setegid(gid: gid_t);
    own_setregid => Setregid(real: gid_t, effective: gid_t);
    own_setresgid => Setresgid(real: gid_t, effective: gid_t, saved: gid_t);
    own_setgroups => Setgroups(count: size_t, groups: *const gid_t);
    own_initgroups => Initgroups(user: *const c_char, group: gid_t);
}

interpose! {
    /// `setuid(2)`.
    setuid => Setuid, own_setuid;
    /// `seteuid(2)`.
    seteuid => Seteuid, own_seteuid;
    /// `setreuid(2)`.
    setreuid => Setreuid, own_setreuid;
    /// `setresuid(2)`.
    setresuid => Setresuid, own_setresuid;
    /// `setgid(2)`.
    setgid => Setgid, own_setgid;
    /// `setegid(2)`.
    setegid => Setegid, own_setegid;
    /// `setregid(2)`.
    setregid => Setregid, own_setregid;
    /// `setresgid(2)`.
    setresgid => Setresgid, own_setresgid;
    /// `setgroups(2)`.
    setgroups => Setgroups, own_setgroups;
    /// `initgroups(3)`.
    initgroups => Initgroups, own_initgroups;
    /// `capset(2)`.
    capset => Capset, own_capset;
    /// `chroot(2)`.
    chroot => Chroot, own_chroot;
    /// `mount(2)`.
    mount => Mount, own_mount;
    /// `unshare(2)`.
    unshare => Unshare, own_unshare;
    /// `setns(2)`.
    setns => Setns, own_setns;
}

/// `capset` changes only the calling thread. The engine follows if that is the program's first
/// thread.
unsafe extern "C" fn own_capset(header: *mut c_void, data: *const c_void) -> c_int {
    type Real = unsafe extern "C" fn(*mut c_void, *const c_void) -> c_int;
    let real = next(Function::Capset);
    // SAFETY: the C library's function of that name, with what it takes.
    let result = unsafe { std::mem::transmute::<usize, Real>(real)(header, data) };
    match !confined::is_confined() && thread::id() == thread::leader() {
        true => followed(result),
        false => result,
    }
}

/// Whether after a system call of this number a child may be able to do less.
pub(crate) fn may_give_up(number: c_long) -> bool {
    let calls = [
        libc::SYS_chroot,
        libc::SYS_landlock_restrict_self,
        libc::SYS_mount,
        libc::SYS_pivot_root,
        libc::SYS_setns,
        libc::SYS_setresuid,
        libc::SYS_setuid,
        libc::SYS_unshare,
    ];
    calls.contains(&number)
}

/// Functions that are passed on; a child may be able to do less from then on.
macro_rules! noted {
    ($($own:ident => $function:ident($($arg:ident: $kind:ty),*);)*) => {$(
        unsafe extern "C" fn $own($($arg: $kind),*) -> c_int {
            let real = next(Function::$function);
            credentials::given_up();
            // SAFETY: the C library's function of that name, with what it takes.
            unsafe {
                std::mem::transmute::<usize, unsafe extern "C" fn($($kind),*) -> c_int>(real)(
                    $($arg),*
                )
            }
        }
    )*};
}

noted! {
    own_chroot => Chroot(path: *const c_char);
    own_mount => Mount(
        from: *const c_char, to: *const c_char, kind: *const c_char, flags: c_ulong,
        data: *const c_void
    );
    own_unshare => Unshare(flags: c_int);
    own_setns => Setns(fd: c_int, kind: c_int);
}
