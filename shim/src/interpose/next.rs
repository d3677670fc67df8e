//! The functions that this library is put before, and where the next ones of their names are.
//!
//! They are found all at once, by the first call of any, which the dynamic linker makes before
//! any code of the program runs. They are read from the symbol tables of the libraries
//! ([`crate::link`]): `dlsym` gives up the pending error of the thread that calls it, takes
//! locks and may call `free`, which is one of them.
//!
//! The first call may come before the library is relocated, from a function that chooses
//! another one (`STT_GNU_IFUNC`) in a library that was loaded after it. Then the library
//! relocates itself as far as it can ([`relocate`]), and what such a call passes through uses
//! no function of another library.

use crate::link::linker::{first_map, is_relocated, own_dynamic};
use crate::link::map::LinkMap;
use crate::link::relocate::relocate;
use core::arch::naked_asm;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicUsize};

macro_rules! functions {
    ($($function:ident = $name:literal),* $(,)?) => {
        /// A function of another library that this one calls as the next of its name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub(crate) enum Function {
            $(#[doc = concat!("`", $name, "`")] $function),*
        }

        const COUNT: usize = [$(Function::$function),*].len();
        const TEXT: &str = concat!($($name, "\0"),*);
    };
}

functions! {
    Malloc = "malloc",
    Free = "free",
    Calloc = "calloc",
    Realloc = "realloc",
    UsableSize = "malloc_usable_size",
    LibcMalloc = "__libc_malloc",
    Mmap = "mmap",
    Mmap64 = "mmap64",
    Munmap = "munmap",
    Madvise = "madvise",
    ProcessMadvise = "process_madvise",
    Mremap = "mremap",
    Mincore = "mincore",
    Read = "read",
    Pread = "pread",
    Pread64 = "pread64",
    Readv = "readv",
    Preadv = "preadv",
    Preadv64 = "preadv64",
    ReadChk = "__read_chk",
    PreadChk = "__pread_chk",
    Pread64Chk = "__pread64_chk",
    Write = "write",
    Pwrite = "pwrite",
    Pwrite64 = "pwrite64",
    Writev = "writev",
    Pwritev = "pwritev",
    Pwritev64 = "pwritev64",
    Open = "open",
    Open64 = "open64",
    Openat = "openat",
    Openat64 = "openat64",
    OpenChk = "__open_2",
    Open64Chk = "__open64_2",
    OpenatChk = "__openat_2",
    Openat64Chk = "__openat64_2",
    Fopen = "fopen",
    Fopen64 = "fopen64",
    Ioctl = "ioctl",
    Prctl = "prctl",
    Ptrace = "ptrace",
    Prlimit = "prlimit",
    Prlimit64 = "prlimit64",
    Setrlimit = "setrlimit",
    Setrlimit64 = "setrlimit64",
    Getrlimit = "getrlimit",
    Getrlimit64 = "getrlimit64",
    MutexInit = "pthread_mutex_init",
    Setuid = "setuid",
    Seteuid = "seteuid",
    Setreuid = "setreuid",
    Setresuid = "setresuid",
    Setgid = "setgid",
    Setegid = "setegid",
    Setregid = "setregid",
    Setresgid = "setresgid",
    Setgroups = "setgroups",
    Initgroups = "initgroups",
    Capset = "capset",
    Chroot = "chroot",
    Mount = "mount",
    Unshare = "unshare",
    Setns = "setns",
    Execve = "execve",
    Execv = "execv",
    Execvp = "execvp",
    Execvpe = "execvpe",
    PosixSpawn = "posix_spawn",
    PosixSpawnp = "posix_spawnp",
    ExitNow = "_exit",
    LockAll = "mlockall",
    Dlopen = "dlopen",
    Dlmopen = "dlmopen",
    Dlsym = "dlsym",
    Dlvsym = "dlvsym",
    Vmsplice = "vmsplice",
    Setsockopt = "setsockopt",
    Clone = "clone",
    Fork = "_Fork",
    Syscall = "syscall",
    IoListAll = "_IO_list_all",
    IoListLock = "_IO_list_lock",
    IoListUnlock = "_IO_list_unlock",
}

/// The names, each with a zero behind it, in the order of [`Function`].
static NAMES: [u8; TEXT.len()] = {
    let mut names = [0; TEXT.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = TEXT.as_bytes()[at];
        at += 1;
    }
    names
};

/// The next functions; zeros until they are looked for.
pub(crate) static NEXT: [AtomicUsize; COUNT] = [const { AtomicUsize::new(0) }; COUNT];
/// They have been looked for.
static FOUND: AtomicBool = AtomicBool::new(false);

/// Finds the next function, whose index is in `r11`, and jumps to it with all arguments as
/// they are.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn find_and_jump() {
    naked_asm!(
        super::keeping_arguments!(
            "cmp qword ptr [rip + _r_debug@GOTPCREL], 0",
            "jne 2f",
            "call {relocate}",
            "2:",
            "mov rdi, r11",
            "call {find}",
            "mov r11, rax"
        ),
        "jmp r11",
        relocate = sym relocate,
        find = sym find,
    )
}

extern "C" fn find(index: usize) -> usize {
    find_all();
    match NEXT.get(index).map_or(0, |next| next.load(Relaxed)) {
        0 if index <= Function::Realloc as usize => no_memory as *const () as usize,
        0 => missing as *const () as usize,
        found => found,
    }
}

/// Stands in for an allocator that no library has.
extern "C" fn no_memory() -> usize {
    0
}

/// Stands in for a function that no library has.
extern "C" fn missing() -> isize {
    if is_relocated() {
        // SAFETY: this thread's; the library is relocated.
        unsafe { *libc::__errno_location() = libc::ENOSYS };
    }
    -1
}

/// The address of the next function.
pub(crate) fn next(function: Function) -> usize {
    match NEXT[function as usize].load(Relaxed) {
        0 => find(function as usize),
        found => found,
    }
}

/// The address of the next function, if there is one.
pub(crate) fn next_if_any(function: Function) -> Option<usize> {
    find_all();
    Some(NEXT[function as usize].load(Relaxed)).filter(|at| *at != 0)
}

/// Finds all next functions, unless that was done. Several threads, or a signal handler in
/// the midst of it, find the same.
pub(crate) fn find_all() {
    if FOUND.load(Acquire) {
        return;
    }
    let Some(first) = first_map() else {
        return;
    };
    let own = own_dynamic();
    // SAFETY: the maps are those of the dynamic linker, which changes none that are loaded
    // at start; this is the first call, so nothing else is loaded yet.
    unsafe {
        let place = LinkMap::find(first, own);
        let mut names = 0;
        for next in &NEXT {
            let len = NAMES[names..].iter().position(|b| *b == 0).unwrap_or(0);
            let name = &NAMES[names..names + len];
            names += len + 1;
            // Behind this library in the order of loading, which is that in which the
            // dynamic linker searches; else anywhere, where this library was loaded late.
            let behind = place.and_then(|p| LinkMap::lookup((*p).next, name, own));
            let found = behind.or_else(|| LinkMap::lookup(first, name, own));
            next.store(found.unwrap_or(0), Relaxed);
        }
    }
    FOUND.store(true, Release);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_found_by_their_names() {
        assert_eq!(NAMES.iter().filter(|b| **b == 0).count(), COUNT);
        // SAFETY: a C string.
        let known = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__libc_malloc".as_ptr()) };
        assert_eq!(next(Function::LibcMalloc), known as usize);
    }
}
