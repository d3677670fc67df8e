//! Recognizes program files into which no library can be preloaded.
//!
//! As in `exec`, nothing here allocates or takes a lock, or needs much of a stack.

use core::ffi::{CStr, c_char};

/// Interpreters of interpreters, as many as the kernel follows.
const INTERPRETERS: usize = 5;
/// How many bytes of a file are read: enough for an executable's headers, or a first line.
const HEAD: usize = 1024;
/// Bytes of a first line that the kernel looks at.
const FIRST_LINE: usize = 256;
const PT_INTERP: u32 = 3;
/// Bytes of a path, at most.
pub(crate) const PATH_MOST: usize = 4096;

/// Why a program cannot be paged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Obstacle {
    /// Its environment does not name the library.
    Environment,
    /// There is no dynamic linker in it.
    Static,
    /// It is for another machine.
    Foreign,
    /// It gains rights when it is started.
    Rights,
}

impl Obstacle {
    /// In words that follow the program's name.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Obstacle::Environment => "is started without the variables of tmem",
            Obstacle::Static => "is statically linked",
            Obstacle::Foreign => "is for another architecture",
            Obstacle::Rights => "is setuid or setgid",
        }
    }
}

/// What in the file prevents it.
pub(crate) fn by_itself(file: &CStr) -> Option<Obstacle> {
    let mut head = [0; HEAD];
    let mut interpreter = [0; FIRST_LINE];
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
        interpreter.get_mut(..name.len())?.copy_from_slice(name);
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

/// Finds a program in `PATH`.
///
/// # Safety
/// The environment of this process is as the C library has it.
pub(crate) unsafe fn find<'a>(name: &'a CStr, found: &'a mut [u8; PATH_MOST]) -> Option<&'a CStr> {
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
pub(crate) unsafe fn variable<'a>(env: *const *const c_char, name: &[u8]) -> Option<&'a [u8]> {
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
}
