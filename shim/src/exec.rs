//! Programs that are started by this one and cannot be paged: the library is not loaded
//! into them, so that nobody could say so but who starts them.
//!
//! All of this may run in a child of `vfork`, which has its parent's memory and may do
//! nothing but what a handler of signals may: there is no allocation and no lock.

use crate::large::next;
use crate::{family, start};
use core::ffi::{CStr, c_char, c_int, c_void};
use core::fmt::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tmem_pager::told::Told;

/// Interpreters of interpreters, as many as the kernel follows.
const INTERPRETERS: usize = 5;
/// Bytes of a file by which it is judged: the headers of an executable, or a first line.
const HEAD: usize = 1024;
const PT_INTERP: u32 = 3;
const PATH_MOST: usize = 4096;

/// Whether this process was to be paged, and so are those that it starts.
static WATCHED: AtomicBool = AtomicBool::new(false);
static STRICT: AtomicBool = AtomicBool::new(false);
/// What has been said, where no memory is shared.
static TOLD: Told = Told::new();
/// The file name of this library, if `LD_PRELOAD` has it.
static NAME: OnceLock<Option<&'static [u8]>> = OnceLock::new();

/// From now on programs that this one starts are looked at.
pub(crate) fn watch(strict: bool) {
    NAME.get_or_init(|| {
        // SAFETY: all zeros is a value; an address within this library.
        let file = unsafe {
            let mut info: libc::Dl_info = core::mem::zeroed();
            let found = libc::dladdr(watch as *const c_void, &raw mut info);
            (found != 0 && !info.dli_fname.is_null()).then(|| CStr::from_ptr(info.dli_fname))
        }?;
        let name = file.to_bytes().rsplit(|b| *b == b'/').next()?;
        // SAFETY: the environment of this process.
        let preload = unsafe { variable(libc::environ.cast(), b"LD_PRELOAD") };
        // Where the whole system preloads it, nobody can leave it out.
        preload
            .is_some_and(|list| contains(list, name))
            .then_some(name)
    });
    STRICT.store(strict, Ordering::Relaxed);
    WATCHED.store(true, Ordering::Release);
}

/// Why a program cannot be paged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Obstacle {
    Environment,
    Static,
    Foreign,
    Rights,
}

impl Obstacle {
    fn text(self) -> &'static str {
        match self {
            Obstacle::Environment => "is started without the variables of tmem",
            Obstacle::Static => "is statically linked",
            Obstacle::Foreign => "is for another architecture",
            Obstacle::Rights => "is setuid or setgid",
        }
    }
}

/// Looks at a program that is about to be started; whether it may be.
///
/// # Safety
/// `path` is null or a C string, `env` null or a list of such that ends with null.
unsafe fn may_start(path: *const c_char, env: *const *const c_char, search: bool) -> bool {
    if !WATCHED.load(Ordering::Acquire) || path.is_null() {
        return true;
    }
    // SAFETY: this thread's.
    let errno = unsafe { *libc::__errno_location() };
    let mut found = [0; PATH_MOST];
    // SAFETY: by the caller.
    let (path, obstacle) = unsafe {
        let path = CStr::from_ptr(path);
        let file = if search {
            find(path, &mut found)
        } else {
            Some(path)
        };
        (path, file.and_then(|file| obstacle(file, env)))
    };
    let strict = STRICT.load(Ordering::Relaxed);
    if let Some(obstacle) = obstacle {
        tell(path, obstacle, strict);
    }
    // SAFETY: this thread's.
    unsafe { *libc::__errno_location() = errno };
    obstacle.is_none() || !strict
}

fn tell(path: &CStr, obstacle: Obstacle, strict: bool) {
    let mut line = Line::default();
    let path = path.to_str().unwrap_or("a program");
    let rest = if strict {
        "it is not started, as `strict` asks"
    } else {
        "it runs without paging"
    };
    // What does not fit is cut.
    let _ = write!(line, "{path} {}; {rest}", obstacle.text());
    let told = family::told().unwrap_or(&TOLD);
    let key = match obstacle {
        // Of a script that has this done a thousand times, once is enough.
        Obstacle::Environment => obstacle.text(),
        _ => line.text(),
    };
    if strict || told.is_news(key) {
        let mut whole = Line::default();
        let _ = writeln!(whole, "tmem: {}", line.text());
        let bytes = whole.text().as_bytes();
        // SAFETY: the line is as long as said. Nobody is left to tell of a failure.
        unsafe { libc::write(2, bytes.as_ptr().cast(), bytes.len()) };
    }
}

/// Text on the stack.
struct Line {
    bytes: [u8; 512],
    len: usize,
}

impl Default for Line {
    fn default() -> Line {
        Line {
            bytes: [0; 512],
            len: 0,
        }
    }
}

impl Line {
    fn text(&self) -> &str {
        // Only whole characters are put into it.
        core::str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for c in text.chars() {
            // The last place is for the end of the line.
            let room = self.bytes.len() - self.len - usize::from(c != '\n');
            if c.len_utf8() > room {
                continue;
            }
            self.len += c.encode_utf8(&mut self.bytes[self.len..]).len();
        }
        Ok(())
    }
}

/// Why the program in `file` cannot be paged with this environment, if so. A program that
/// cannot be started has no obstacle: it fails by itself.
///
/// # Safety
/// `env` is null or a list of C strings that ends with null.
unsafe fn obstacle(file: &CStr, env: *const *const c_char) -> Option<Obstacle> {
    // SAFETY: a C string.
    if unsafe { libc::access(file.as_ptr(), libc::X_OK) } != 0 {
        return None;
    }
    let by_itself = by_itself(file);
    if by_itself.is_some() {
        return by_itself;
    }
    // SAFETY: by the caller.
    let has = |name: &[u8]| unsafe { variable(env, name) }.filter(|value| !value.is_empty());
    let preloaded = NAME
        .get()
        .copied()
        .flatten()
        .is_none_or(|name| has(b"LD_PRELOAD").is_some_and(|list| contains(list, name)));
    let budget = has(b"TMEM_LOCAL").or_else(|| has(b"TMEM_CONFIG"));
    (!preloaded || budget.is_none()).then_some(Obstacle::Environment)
}

/// What of the file itself stands in the way.
fn by_itself(file: &CStr) -> Option<Obstacle> {
    let mut head = [0; HEAD];
    let mut interpreter = [0; HEAD];
    let mut path = file;
    for _ in 0..INTERPRETERS {
        if gains_rights(path) {
            return Some(Obstacle::Rights);
        }
        let len = read_head(path, &mut head)?;
        let head = &head[..len];
        let Some(line) = head.strip_prefix(b"#!") else {
            return of_elf(head);
        };
        let is_end = |b: &u8| matches!(b, b' ' | b'\t' | b'\n');
        let line = line.trim_ascii_start();
        let name = &line[..line.iter().position(is_end)?];
        interpreter.fill(0);
        interpreter[..name.len()].copy_from_slice(name);
        path = CStr::from_bytes_until_nul(&interpreter).ok()?;
    }
    None
}

/// The dynamic linker loads no library by its path into programs that gain rights.
fn gains_rights(path: &CStr) -> bool {
    let mut stat = core::mem::MaybeUninit::<libc::stat>::zeroed();
    // SAFETY: a C string, and room for the answer; all zeros is a value.
    let (failed, stat, user, group) = unsafe {
        let failed = libc::stat(path.as_ptr(), stat.as_mut_ptr());
        (failed, stat.assume_init(), libc::geteuid(), libc::getegid())
    };
    let user = stat.st_mode & libc::S_ISUID != 0 && stat.st_uid != user;
    let group = stat.st_mode & libc::S_ISGID != 0 && stat.st_gid != group;
    failed == 0 && (user || group)
}

fn read_head(path: &CStr, head: &mut [u8; HEAD]) -> Option<usize> {
    // SAFETY: a C string, and a buffer as long as said; the descriptor is this function's.
    let got = unsafe {
        let fd = libc::open(
            path.as_ptr(),
            libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK,
        );
        if fd < 0 {
            return None;
        }
        let got = libc::read(fd, head.as_mut_ptr().cast(), head.len());
        libc::close(fd);
        got
    };
    usize::try_from(got).ok()
}

/// Judges an executable by its headers.
fn of_elf(head: &[u8]) -> Option<Obstacle> {
    if !head.starts_with(b"\x7fELF") {
        return None;
    }
    // Class 2: 64 bits; data 1: little endian; machine 62: x86-64.
    if head.get(4..6) != Some(&[2, 1]) || number(head, 18, 2)? != 62 {
        return Some(Obstacle::Foreign);
    }
    let [table, size, count] = [
        number(head, 32, 8)?,
        number(head, 54, 2)?,
        number(head, 56, 2)?,
    ];
    for index in 0..count {
        let at = index.checked_mul(size)?.checked_add(table)?;
        if number(head, at, 4)? == PT_INTERP as usize {
            return None;
        }
    }
    Some(Obstacle::Static)
}

fn number(head: &[u8], at: usize, len: usize) -> Option<usize> {
    let bytes = head.get(at..at.checked_add(len)?)?;
    Some(bytes.iter().rev().fold(0, |n, b| n << 8 | usize::from(*b)))
}

/// The file that is meant by a name that is looked for in `PATH`.
///
/// # Safety
/// The environment of this process is as the C library has it.
unsafe fn find<'a>(name: &'a CStr, found: &'a mut [u8; PATH_MOST]) -> Option<&'a CStr> {
    let bytes = name.to_bytes();
    if bytes.contains(&b'/') {
        return Some(name);
    }
    // SAFETY: by the caller.
    let list = unsafe { variable(libc::environ.cast(), b"PATH") }.unwrap_or(b"/bin:/usr/bin");
    for folder in list.split(|b| *b == b':') {
        let len = folder.len() + 1 + bytes.len();
        if folder.is_empty() || len >= found.len() {
            continue;
        }
        found[..folder.len()].copy_from_slice(folder);
        found[folder.len()] = b'/';
        found[folder.len() + 1..len].copy_from_slice(bytes);
        found[len] = 0;
        // SAFETY: ended just now.
        if unsafe { libc::access(found.as_ptr().cast(), libc::X_OK) } == 0 {
            return CStr::from_bytes_until_nul(found).ok();
        }
    }
    None
}

/// The value of a variable in a list of them.
///
/// # Safety
/// `env` is null or a list of C strings that ends with null, and stays as it is.
unsafe fn variable<'a>(env: *const *const c_char, name: &[u8]) -> Option<&'a [u8]> {
    let mut at = env;
    // SAFETY: by the caller.
    unsafe {
        while !at.is_null() && !(*at).is_null() {
            let text = CStr::from_ptr(*at).to_bytes();
            if let Some(value) = text
                .strip_prefix(name)
                .and_then(|rest| rest.strip_prefix(b"="))
            {
                return Some(value);
            }
            at = at.add(1);
        }
    }
    None
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// Ends a process that was about to become a program that must not be started.
fn not_started() -> ! {
    // SAFETY: ends the process, in a child of `vfork` that alone.
    unsafe { libc::_exit(start::NOT_STARTED) }
}

type List = *const *const c_char;

/// `execve`, with a look at what is started.
///
/// # Safety
/// As for the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn execve(path: *const c_char, argv: List, env: List) -> c_int {
    static REAL: AtomicUsize = AtomicUsize::new(0);
    type Real = unsafe extern "C" fn(*const c_char, List, List) -> c_int;
    // SAFETY: by the caller; the C library's function of that name.
    unsafe {
        if !may_start(path, env, false) {
            not_started();
        }
        std::mem::transmute::<usize, Real>(next(&REAL, c"execve", 0))(path, argv, env)
    }
}

/// `execv`, as [`execve`].
///
/// # Safety
/// As for the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn execv(path: *const c_char, argv: List) -> c_int {
    static REAL: AtomicUsize = AtomicUsize::new(0);
    type Real = unsafe extern "C" fn(*const c_char, List) -> c_int;
    // SAFETY: by the caller; the C library's function of that name.
    unsafe {
        if !may_start(path, libc::environ.cast(), false) {
            not_started();
        }
        std::mem::transmute::<usize, Real>(next(&REAL, c"execv", 0))(path, argv)
    }
}

/// `execvp`, as [`execve`].
///
/// # Safety
/// As for the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn execvp(file: *const c_char, argv: List) -> c_int {
    static REAL: AtomicUsize = AtomicUsize::new(0);
    type Real = unsafe extern "C" fn(*const c_char, List) -> c_int;
    // SAFETY: by the caller; the C library's function of that name.
    unsafe {
        if !may_start(file, libc::environ.cast(), true) {
            not_started();
        }
        std::mem::transmute::<usize, Real>(next(&REAL, c"execvp", 0))(file, argv)
    }
}

/// `execvpe`, as [`execve`].
///
/// # Safety
/// As for the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn execvpe(file: *const c_char, argv: List, env: List) -> c_int {
    static REAL: AtomicUsize = AtomicUsize::new(0);
    type Real = unsafe extern "C" fn(*const c_char, List, List) -> c_int;
    // SAFETY: by the caller; the C library's function of that name.
    unsafe {
        if !may_start(file, env, true) {
            not_started();
        }
        std::mem::transmute::<usize, Real>(next(&REAL, c"execvpe", 0))(file, argv, env)
    }
}

type Spawn = unsafe extern "C" fn(
    *mut libc::pid_t,
    *const c_char,
    *const c_void,
    *const c_void,
    List,
    List,
) -> c_int;

/// `posix_spawn`, with a look at what is started.
///
/// # Safety
/// As for the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn posix_spawn(
    pid: *mut libc::pid_t,
    path: *const c_char,
    actions: *const c_void,
    attributes: *const c_void,
    argv: List,
    env: List,
) -> c_int {
    static REAL: AtomicUsize = AtomicUsize::new(0);
    // SAFETY: by the caller; the C library's function of that name.
    unsafe {
        if !may_start(path, env, false) {
            return libc::EACCES;
        }
        let real = std::mem::transmute::<usize, Spawn>(next(&REAL, c"posix_spawn", 0));
        real(pid, path, actions, attributes, argv, env)
    }
}

/// `posix_spawnp`, as [`posix_spawn`].
///
/// # Safety
/// As for the C library's.
#[unsafe(no_mangle)]
unsafe extern "C" fn posix_spawnp(
    pid: *mut libc::pid_t,
    file: *const c_char,
    actions: *const c_void,
    attributes: *const c_void,
    argv: List,
    env: List,
) -> c_int {
    static REAL: AtomicUsize = AtomicUsize::new(0);
    // SAFETY: by the caller; the C library's function of that name.
    unsafe {
        if !may_start(file, env, true) {
            return libc::EACCES;
        }
        let real = std::mem::transmute::<usize, Spawn>(next(&REAL, c"posix_spawnp", 0));
        real(pid, file, actions, attributes, argv, env)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_are_judged_by_their_headers() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        assert_eq!(of_elf(&own[..HEAD]), None);
        let mut other = own[..HEAD].to_vec();
        other[4] = 1;
        assert_eq!(of_elf(&other), Some(Obstacle::Foreign));
        let mut alone = own[..HEAD].to_vec();
        // No program headers: nobody is asked for.
        alone[56..58].fill(0);
        assert_eq!(of_elf(&alone), Some(Obstacle::Static));
        assert_eq!(of_elf(b"#!/bin/sh"), None);
        assert_eq!(of_elf(&own[..40]), None);
    }

    #[test]
    fn variables_are_found_by_their_whole_name() {
        let texts = [c"TMEM_LOCALE=1", c"TMEM_LOCAL=2G", c"E="];
        let mut list: Vec<*const c_char> = texts.iter().map(|text| text.as_ptr()).collect();
        list.push(core::ptr::null());
        // SAFETY: a list as it is wanted.
        let value = |name: &[u8]| unsafe { variable(list.as_ptr(), name) };
        assert_eq!(value(b"TMEM_LOCAL"), Some(&b"2G"[..]));
        assert_eq!(value(b"E"), Some(&b""[..]));
        assert_eq!(value(b"TMEM"), None);
        // SAFETY: null is an empty one.
        assert_eq!(unsafe { variable(core::ptr::null(), b"E") }, None);
    }

    #[test]
    fn a_line_that_is_too_long_keeps_its_end() {
        let mut line = Line::default();
        writeln!(line, "{}", "ä".repeat(600)).unwrap();
        assert!(line.text().ends_with("ä\n") && line.text().len() <= 512);
    }
}
