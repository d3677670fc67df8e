//! What a program gives up, and takes back: users, groups, capabilities. The engine's
//! tasks follow before the program goes on, see `tmem_pager::engine::credentials`.
//!
//! These functions of the C library change all threads of a program. Others
//! (`setfsuid`), and system calls, change one.

use crate::large::next;
use libc::{c_char, c_int, c_long, c_ulong, c_void, gid_t, size_t, uid_t};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use tmem_pager::engine::credentials;
use tmem_pager::sys::thread;

/// The process that this library was loaded into, or that was forked since. Where another
/// shares its memory (`vfork`), that is none of the engine's business.
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

/// Has the engine follow where the change was made. With a filter of system calls, by
/// which one that the program does not make itself may end it, the engine sees by itself.
fn followed(result: c_int) -> c_int {
    if result == 0 && !thread::is_confined() && is_the_programs() {
        // SAFETY: the calling thread's.
        let errno = unsafe { *libc::__errno_location() };
        crate::heap::undisturbed(credentials::follow);
        // SAFETY: as above.
        unsafe { *libc::__errno_location() = errno };
    }
    result
}

/// Functions that are passed on, and then followed.
macro_rules! followed {
    ($($name:ident($($arg:ident: $kind:ty),*);)*) => {$(
        /// As the C library has it.
        ///
        /// # Safety
        /// As for the C library's.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name($($arg: $kind),*) -> c_int {
            static REAL: AtomicUsize = AtomicUsize::new(0);
            let name = concat!(stringify!($name), "\0");
            let name = std::ffi::CStr::from_bytes_with_nul(name.as_bytes());
            // It is a function of the C library's in every version.
            let real = next(&REAL, name.unwrap_or_default(), 0);
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
    setuid(uid: uid_t);
    seteuid(uid: uid_t);
    setreuid(real: uid_t, effective: uid_t);
    setresuid(real: uid_t, effective: uid_t, saved: uid_t);
    setgid(gid: gid_t);
    setegid(gid: gid_t);
    setregid(real: gid_t, effective: gid_t);
    setresgid(real: gid_t, effective: gid_t, saved: gid_t);
    setgroups(count: size_t, groups: *const gid_t);
    initgroups(user: *const c_char, group: gid_t);
}

/// `capset(2)`. It changes the calling thread only, which stands for the program where it
/// is its first.
///
/// # Safety
/// As for the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn capset(header: *mut c_void, data: *const c_void) -> c_int {
    type Real = unsafe extern "C" fn(*mut c_void, *const c_void) -> c_int;
    static REAL: AtomicUsize = AtomicUsize::new(0);
    // It is a function of the C library's in every version.
    let real = next(&REAL, c"capset", 0);
    // SAFETY: the C library's function of that name, with what it takes.
    let result = unsafe { std::mem::transmute::<usize, Real>(real)(header, data) };
    match !thread::is_confined() && thread::id() == thread::leader() {
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
    ($($name:ident($($arg:ident: $kind:ty),*);)*) => {$(
        /// As the C library has it.
        ///
        /// # Safety
        /// As for the C library's.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name($($arg: $kind),*) -> c_int {
            static REAL: AtomicUsize = AtomicUsize::new(0);
            let name = concat!(stringify!($name), "\0");
            let name = std::ffi::CStr::from_bytes_with_nul(name.as_bytes());
            // It is a function of the C library's in every version.
            let real = next(&REAL, name.unwrap_or_default(), 0);
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
    chroot(path: *const c_char);
    mount(
        from: *const c_char, to: *const c_char, kind: *const c_char, flags: c_ulong,
        data: *const c_void
    );
    unshare(flags: c_int);
    setns(fd: c_int, kind: c_int);
}
