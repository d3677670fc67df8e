//! What the program calls would be without this library, and how its calls are passed on.
//!
//! Each function that this library puts before another is a few instructions
//! ([`interpose`]): until the library pages the program they jump to the next function of
//! the name, with the caller's registers and stack as they were, and do nothing else. So a
//! program that is not paged calls what it would call anyway: errors, `dlerror`,
//! cancellation and signals are as they are without the library.
//!
//! The next functions are found all at once, by the first call of any, which the dynamic
//! linker makes before any code of the program runs. They are read from the symbol tables of
//! the libraries ([`crate::symbols`]): `dlsym` gives up the pending error of the thread that
//! calls it, takes locks and may call `free`, which is one of them.
//!
//! The first call may come before the library is relocated, from a function that chooses
//! another one (`STT_GNU_IFUNC`) in a library that was loaded after it. Then the library
//! relocates itself as far as it can ([`relocate`]), and what such a call passes through uses
//! no function of another library.

use crate::fork::raw_syscall;
use crate::symbols::{LinkMap, Object};
use core::arch::{asm, naked_asm};
use core::ffi::{c_int, c_void};
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
    Mremap = "mremap",
    Mincore = "mincore",
    Read = "read",
    Pread = "pread",
    Pread64 = "pread64",
    Readv = "readv",
    Preadv = "preadv",
    Preadv64 = "preadv64",
    Ioctl = "ioctl",
    Prctl = "prctl",
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

/// The program is paged, or about to be: calls do more than to be passed on.
pub(crate) static ACTIVE: AtomicBool = AtomicBool::new(false);

/// Has calls do what they are for, from before the engine starts on; or passed on only.
pub(crate) fn activate(on: bool) {
    ACTIVE.store(on, Release);
}

/// Puts functions of this library before others of the same name.
///
/// `name => Function, own, WHEN` exports `name`, which goes on with `own` while the flag
/// `WHEN`, or [`ACTIVE`] where none is named, is set, and else jumps to the next function.
/// The functions take no floating-point arguments.
macro_rules! interpose {
    ($($(#[$doc:meta])* $name:ident => $function:ident, $own:path $(, $when:path)?;)*) => {$(
        $crate::next::interpose!(@one $(#[$doc])* $name, $function, $own, $($when,)?
            $crate::next::ACTIVE);
    )*};
    (@one $(#[$doc:meta])* $name:ident, $function:ident, $own:path, $when:path $(, $_:path)?)
    => {
        $(#[$doc])*
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name() {
            core::arch::naked_asm!(
                "cmp byte ptr [rip + {active}], 0",
                "jne {own}",
                "mov r11, qword ptr [rip + {next} + {at}]",
                "test r11, r11",
                "jz 2f",
                "jmp r11",
                "2:",
                "mov r11d, {index}",
                "jmp {find}",
                active = sym $when,
                own = sym $own,
                next = sym crate::next::NEXT,
                at = const crate::next::Function::$function as usize * size_of::<usize>(),
                index = const crate::next::Function::$function as usize,
                find = sym crate::next::find_and_jump,
            )
        }
    };
}
pub(crate) use interpose;

/// Finds the next function, whose index is in `r11`, and jumps to it with all arguments as
/// they are.
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn find_and_jump() {
    naked_asm!(
        "push rax",
        "push rdi",
        "push rsi",
        "push rdx",
        "push rcx",
        "push r8",
        "push r9",
        "cmp qword ptr [rip + _r_debug@GOTPCREL], 0",
        "jne 2f",
        "call {relocate}",
        "2:",
        "mov rdi, r11",
        "call {find}",
        "mov r11, rax",
        "pop r9",
        "pop r8",
        "pop rcx",
        "pop rdx",
        "pop rsi",
        "pop rdi",
        "pop rax",
        "jmp r11",
        relocate = sym relocate,
        find = sym find,
    )
}

/// Fills in the addresses of this library's own functions and data where the dynamic linker
/// has not done so yet, by which compiled code calls them. It fills in the same again later.
/// Changes `rax`, `rcx`, `rdx`, `rsi`, `r8` and `r9` only.
#[unsafe(naked)]
unsafe extern "C" fn relocate() {
    const DT_RELA: u64 = 7;
    const DT_RELACOUNT: u64 = 0x6fff_fff9;
    naked_asm!(
        "lea rax, [rip + __ehdr_start]",
        "lea rcx, [rip + _DYNAMIC]",
        "xor esi, esi",
        "xor edx, edx",
        // rsi: the table; rdx: how many of its entries are for addresses of the library's
        // own, which come first.
        "2:",
        "mov r8, [rcx]",
        "mov r9, [rcx + 8]",
        "add rcx, 16",
        "test r8, r8",
        "jz 4f",
        "cmp r8, {rela}",
        "cmove rsi, r9",
        "cmp r8, {count}",
        "cmove rdx, r9",
        "jmp 2b",
        "4:",
        "test rsi, rsi",
        "jz 7f",
        // The dynamic linker may have made an address of the offset already.
        "cmp rsi, rax",
        "jae 5f",
        "add rsi, rax",
        // Each entry: where, what for, and what is to be added to the base.
        "5:",
        "test rdx, rdx",
        "jz 7f",
        "mov r8, [rsi]",
        "mov r9, [rsi + 16]",
        "add r9, rax",
        "mov [rax + r8], r9",
        "add rsi, 24",
        "dec rdx",
        "jmp 5b",
        "7:",
        "ret",
        rela = const DT_RELA,
        count = const DT_RELACOUNT,
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
    if r_debug().is_some() {
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

/// This library and the C library.
///
/// # Safety
/// No other thread loads or unloads a library meanwhile.
pub(crate) unsafe fn libraries() -> Option<(Object, Object)> {
    let first = first_map()?;
    // SAFETY: by the caller; the list is the dynamic linker's.
    unsafe {
        let own = (*LinkMap::find(first, own_dynamic())?).object()?;
        let libc = LinkMap::all(first)
            .filter_map(|map| (*map).object())
            .find(|object| object.find(b"gnu_get_libc_version").is_some())?;
        Some((own, libc))
    }
}

/// Where this library's own dynamic section is.
pub(crate) fn own_dynamic() -> usize {
    let at: usize;
    // SAFETY: takes an address, which the linker knows.
    unsafe {
        asm!("lea {}, [rip + _DYNAMIC]", out(reg) at, options(nomem, nostack, preserves_flags));
    }
    at
}

/// The dynamic linker's `_r_debug`, once this library is relocated.
fn r_debug() -> Option<usize> {
    let at: usize;
    // SAFETY: reads the library's own table of addresses. The entry is zero until the
    // library is relocated.
    unsafe {
        asm!("mov {}, qword ptr [rip + _r_debug@GOTPCREL]", out(reg) at,
            options(readonly, nostack, preserves_flags));
    }
    (at != 0).then_some(at)
}

/// The first entry of the dynamic linker's list of libraries: the program itself.
fn first_map() -> Option<*const LinkMap> {
    let debug = r_debug().or_else(r_debug_of_the_kernel)?;
    // SAFETY: `struct r_debug`: a version, then the list.
    let first = unsafe { *((debug + size_of::<usize>()) as *const *const LinkMap) };
    (!first.is_null()).then_some(first)
}

/// Bytes of the auxiliary vector that are looked at; it has some 20 entries of 16 bytes.
const AUXV: usize = 1024;

/// `_r_debug`, found from where the kernel says that it put the dynamic linker.
fn r_debug_of_the_kernel() -> Option<usize> {
    let mut words = [0usize; AUXV / size_of::<usize>()];
    let count = auxv(&mut words) / size_of::<usize>();
    let value = |kind: u64| {
        let mut pairs = words[..count].chunks_exact(2);
        let found = pairs.find(|pair| pair[0] == kind as usize);
        found.map_or(0, |pair| pair[1])
    };
    // The base is 0 where the dynamic linker was started by its name, as a program.
    let headers = value(libc::AT_PHDR);
    let base = value(libc::AT_BASE);
    let base = if base == 0 { headers & !0xfff } else { base };
    // SAFETY: the kernel has loaded a program there.
    unsafe { Object::of_file(base)?.find(b"_r_debug") }
}

/// Reads the auxiliary vector without the C library; how many bytes.
fn auxv(words: &mut [usize; AUXV / size_of::<usize>()]) -> usize {
    /// Linux 6.4.
    const PR_GET_AUXV: usize = 0x4155_5856;
    let at = words.as_mut_ptr() as usize;
    let path = c"/proc/self/auxv".as_ptr() as usize;
    let read_only = libc::O_RDONLY as usize;
    // SAFETY: the buffer has room for what is asked for; the path is a C string.
    let got = unsafe {
        let got = raw_syscall(libc::SYS_prctl, [PR_GET_AUXV, at, AUXV, 0, 0, 0]);
        if got > 0 {
            got
        } else {
            let fd = raw_syscall(libc::SYS_open, [path, read_only, 0, 0, 0, 0]);
            let got = raw_syscall(libc::SYS_read, [fd as usize, at, AUXV, 0, 0, 0]);
            raw_syscall(libc::SYS_close, [fd as usize, 0, 0, 0, 0, 0]);
            got
        }
    };
    // The vector may be longer than what there is room for.
    usize::try_from(got).unwrap_or(0).min(AUXV)
}

/// Finds a function or variable in any library that is loaded by now, also one that was loaded late and
/// for itself. It waits while another thread loads a library.
pub(crate) fn find_late(name: &'static [u8]) -> Option<usize> {
    let mut late = Late { name, found: None };
    // SAFETY: the callback takes the argument for what it is.
    unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut late).cast()) };
    late.found
}

struct Late {
    name: &'static [u8],
    found: Option<usize>,
}

unsafe extern "C" fn look(
    info: *mut libc::dl_phdr_info,
    _: libc::size_t,
    late: *mut c_void,
) -> c_int {
    // SAFETY: valid for the time of the call.
    let (info, late) = unsafe { (&*info, &mut *late.cast::<Late>()) };
    let base = info.dlpi_addr as usize;
    // SAFETY: a loaded library with so many headers.
    let object = unsafe { Object::of_headers(base, info.dlpi_phdr, info.dlpi_phnum.into()) };
    // SAFETY: as above; it stays loaded for the time of the call.
    late.found = unsafe {
        let object = object.filter(|o| o.dynamic() != own_dynamic());
        object.and_then(|o| o.find(late.name))
    };
    late.found.is_some().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dynamic_linkers_list_is_found_without_its_help() {
        assert!(r_debug().is_some());
        assert_eq!(r_debug_of_the_kernel(), r_debug());
    }

    #[test]
    fn functions_are_found_by_their_names() {
        assert_eq!(NAMES.iter().filter(|b| **b == 0).count(), COUNT);
        // SAFETY: a C string.
        let known = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__libc_malloc".as_ptr()) };
        assert_eq!(next(Function::LibcMalloc), known as usize);
        assert_eq!(find_late(b"__libc_malloc"), Some(known as usize));
        assert_eq!(find_late(b"no_function_has_this_name"), None);
    }
}
