//! Warns of programs that this one starts and that cannot be paged. The library is not loaded
//! into them, so they cannot say so themselves.
//!
//! All of this may run in a child of `vfork`, which shares its parent's memory and may do only
//! what a signal handler may: it must not allocate or take a lock.

use super::interpose;
use super::next::{Function, next};
use crate::target::{Obstacle, PATH_MOST, by_itself, find, variable};
use crate::{family, start};
use core::ffi::{CStr, c_char, c_int, c_void};
use core::fmt::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use tmem_pager::told::Told;

/// Whether this process was to be paged, and so are those that it starts.
pub(crate) static WATCHED: AtomicBool = AtomicBool::new(false);
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
        // If the whole system preloads it, no program can be without it.
        preload
            .is_some_and(|list| contains(list, name))
            .then_some(name)
    });
    STRICT.store(strict, Ordering::Relaxed);
    WATCHED.store(true, Ordering::Release);
}

/// Checks a program that is about to be started. Returns whether it may start.
///
/// # Safety
/// `path` is null or a C string, `env` null or a list of such that ends with null.
unsafe fn may_start(path: *const c_char, env: List) -> bool {
    if !WATCHED.load(Ordering::Acquire) || path.is_null() {
        return true;
    }
    // SAFETY: by the caller.
    unsafe {
        let path = CStr::from_ptr(path);
        may_become(path, path, env)
    }
}

/// The same for a program that is found in `PATH`. It needs much of the stack.
///
/// # Safety
/// As [`may_start`].
#[inline(never)]
unsafe fn may_start_from_path(name: *const c_char, env: List) -> bool {
    if !WATCHED.load(Ordering::Acquire) || name.is_null() {
        return true;
    }
    let mut found = [0; PATH_MOST];
    // SAFETY: by the caller.
    unsafe {
        let name = CStr::from_ptr(name);
        find(name, &mut found).is_none_or(|file| may_become(name, file, env))
    }
}

/// Whether this process may become the program in `file`, which its caller calls `name`.
///
/// # Safety
/// As [`may_start`].
unsafe fn may_become(name: &CStr, file: &CStr, env: List) -> bool {
    // SAFETY: this thread's.
    let errno = unsafe { *libc::__errno_location() };
    // SAFETY: by the caller.
    let obstacle = unsafe { obstacle(file, env) };
    let strict = STRICT.load(Ordering::Relaxed);
    if let Some(obstacle) = obstacle {
        tell(name, obstacle, strict);
    }
    // SAFETY: this thread's.
    unsafe { *libc::__errno_location() = errno };
    obstacle.is_none() || !strict
}

fn tell(name: &CStr, obstacle: Obstacle, strict: bool) {
    let mut line = Line::default();
    let name = name.to_str().unwrap_or("a program");
    let rest = if strict {
        "it is not started, as `strict` asks"
    } else {
        "it runs without paging"
    };
    // A text that does not fit is cut.
    let _ = writeln!(line, "tmem: {name} {}; {rest}", obstacle.text());
    let told = family::told().unwrap_or(&TOLD);
    let key = match obstacle {
        // A script may start a thousand such programs: its user is told once.
        Obstacle::Environment => obstacle.text(),
        _ => line.text(),
    };
    if strict || told.is_news(key) {
        let bytes = line.text().as_bytes();
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
unsafe fn obstacle(file: &CStr, env: List) -> Option<Obstacle> {
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

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// Ends a process that was about to become a program that must not be started.
fn not_started() -> ! {
    // SAFETY: ends the process, in a child of `vfork` that alone.
    unsafe { libc::_exit(start::NOT_STARTED) }
}

type List = *const *const c_char;

interpose! {
    /// `execve(2)`.
    execve => Execve, own_execve, WATCHED;
    /// `execv(3)`.
    execv => Execv, own_execv, WATCHED;
    /// `execvp(3)`.
    execvp => Execvp, own_execvp, WATCHED;
    /// `execvpe(3)`.
    execvpe => Execvpe, own_execvpe, WATCHED;
    /// `posix_spawn(3)`.
    posix_spawn => PosixSpawn, own_posix_spawn, WATCHED;
    /// `posix_spawnp(3)`.
    posix_spawnp => PosixSpawnp, own_posix_spawnp, WATCHED;
}

type WithList = unsafe extern "C" fn(*const c_char, List) -> c_int;
type WithLists = unsafe extern "C" fn(*const c_char, List, List) -> c_int;

unsafe extern "C" fn own_execve(path: *const c_char, argv: List, env: List) -> c_int {
    // SAFETY: by the caller; the C library's function of that name.
    unsafe {
        if !may_start(path, env) {
            not_started();
        }
        std::mem::transmute::<usize, WithLists>(next(Function::Execve))(path, argv, env)
    }
}

unsafe extern "C" fn own_execv(path: *const c_char, argv: List) -> c_int {
    // SAFETY: by the caller; the C library's function of that name.
    unsafe {
        if !may_start(path, libc::environ.cast()) {
            not_started();
        }
        std::mem::transmute::<usize, WithList>(next(Function::Execv))(path, argv)
    }
}

unsafe extern "C" fn own_execvp(file: *const c_char, argv: List) -> c_int {
    // SAFETY: by the caller; the C library's function of that name.
    unsafe {
        if !may_start_from_path(file, libc::environ.cast()) {
            not_started();
        }
        std::mem::transmute::<usize, WithList>(next(Function::Execvp))(file, argv)
    }
}

unsafe extern "C" fn own_execvpe(file: *const c_char, argv: List, env: List) -> c_int {
    // SAFETY: by the caller; the C library's function of that name.
    unsafe {
        if !may_start_from_path(file, env) {
            not_started();
        }
        std::mem::transmute::<usize, WithLists>(next(Function::Execvpe))(file, argv, env)
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

/// Defines a function that starts a program which `look` has looked at.
macro_rules! spawns {
    ($($own:ident => $function:ident, $look:ident;)*) => {$(
        unsafe extern "C" fn $own(
            pid: *mut libc::pid_t,
            program: *const c_char,
            actions: *const c_void,
            attributes: *const c_void,
            argv: List,
            env: List,
        ) -> c_int {
            // SAFETY: by the caller; the C library's function of that name.
            unsafe {
                if !$look(program, env) {
                    return libc::EACCES;
                }
                let real = std::mem::transmute::<usize, Spawn>(next(Function::$function));
                real(pid, program, actions, attributes, argv, env)
            }
        }
    )*};
}

spawns! {
    own_posix_spawn => PosixSpawn, may_start;
    own_posix_spawnp => PosixSpawnp, may_start_from_path;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_too_long_keeps_its_end() {
        let mut line = Line::default();
        writeln!(line, "{}", "ä".repeat(600)).unwrap();
        assert!(line.text().ends_with("ä\n") && line.text().len() <= 512);
    }
}
