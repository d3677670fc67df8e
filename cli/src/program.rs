//! Finding a program, and whether a library can be preloaded into it.

use std::env;
use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tmem_config::{looks_for_leaks, wants_thread};

use crate::elf::{self, Kind, Names};

/// Why a program cannot be started, with the exit status that shells use.
pub(crate) enum Missing {
    /// 127.
    NotFound,
    /// 126.
    NotExecutable,
}

/// The file that `execvp` would run for `name`.
pub(crate) fn find(name: &OsStr, path: Option<&OsStr>) -> Result<PathBuf, Missing> {
    if name.as_bytes().contains(&b'/') {
        return usable(PathBuf::from(name));
    }
    let mut outcome = Missing::NotFound;
    for folder in env::split_paths(path.unwrap_or(OsStr::new("/bin:/usr/bin"))) {
        match usable(folder.join(name)) {
            Ok(found) => return Ok(found),
            Err(Missing::NotExecutable) => outcome = Missing::NotExecutable,
            Err(Missing::NotFound) => {}
        }
    }
    Err(outcome)
}

fn usable(path: PathBuf) -> Result<PathBuf, Missing> {
    let metadata = fs::metadata(&path).map_err(|_| Missing::NotFound)?;
    let c_path = CString::new(path.as_os_str().as_bytes()).map_err(|_| Missing::NotFound)?;
    // SAFETY: the path is a C string that outlives the call.
    let executable = unsafe { libc::access(c_path.as_ptr(), libc::X_OK) } == 0;
    if metadata.is_file() && executable {
        Ok(path)
    } else {
        Err(Missing::NotExecutable)
    }
}

/// Why no library can be preloaded into the program at `path`, if none can.
pub(crate) fn obstacle(path: &Path) -> Option<String> {
    if path.file_name().is_some_and(|name| name == "valgrind") {
        return Some("valgrind knows no thread but the program's".to_owned());
    }
    let mut path = path.to_owned();
    // The kernel follows as many interpreters of interpreters.
    for _ in 0..5 {
        let mut head = Vec::new();
        // A program that may be run but not read cannot be checked.
        File::open(&path)
            .ok()?
            .take(64 * 1024)
            .read_to_end(&mut head)
            .ok()?;
        match elf::kind(&head) {
            Kind::Script(interpreter) => path = PathBuf::from(interpreter),
            Kind::Static => return Some(format!("{} is statically linked", path.display())),
            Kind::Foreign => {
                return Some(format!("{} is for another architecture", path.display()));
            }
            Kind::Dynamic(interpreter) => {
                return foreign_library(&path, &interpreter)
                    .or_else(|| privileged(&path))
                    .or_else(|| looking_for_leaks(&path));
            }
            Kind::Unknown => return None,
        }
    }
    None
}

/// The shim is for programs of glibc.
fn foreign_library(path: &Path, interpreter: &str) -> Option<String> {
    let interpreter = Path::new(interpreter);
    let name = interpreter
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    // The dynamic linker of glibc may have another name. It has symbol versions of its own.
    let is_glibc = name.starts_with("ld-linux")
        || fs::read(interpreter).is_ok_and(|file| {
            let mark = b"GLIBC_PRIVATE";
            file.windows(mark.len()).any(|window| window == mark)
        });
    let library = match name.starts_with("ld-musl") {
        true => "musl".to_owned(),
        false => format!("the C library of {}", interpreter.display()),
    };
    (!is_glibc).then(|| format!("{} is linked with {library}, not glibc", path.display()))
}

/// A symbol of every program that may look for leaks.
const LEAK_RUNTIMES: [&str; 2] = ["__asan_init", "__lsan_init"];

/// A sanitizer that looks for leaks stops every thread of the process, the engine too if that
/// is a thread, and then touches evicted pages.
fn looking_for_leaks(path: &Path) -> Option<String> {
    let names = Names::of(&File::open(path).ok()?);
    let may_look = LEAK_RUNTIMES.iter().any(|name| names.has(name));
    (may_look && wants_thread() && looks_for_leaks(|name| env::var_os(name))).then(|| {
        format!(
            "the sanitizer of {} looks for leaks, for which it stops every thread; \
             ASAN_OPTIONS=detect_leaks=0 has it look for errors only",
            path.display()
        )
    })
}

/// The dynamic linker ignores preloads by path in programs that gain rights.
fn privileged(path: &Path) -> Option<String> {
    let metadata = fs::metadata(path).ok()?;
    // SAFETY: these calls have no preconditions.
    let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
    if metadata.mode() & libc::S_ISUID != 0 && metadata.uid() != user {
        return Some(format!("{} is setuid", path.display()));
    }
    if metadata.mode() & libc::S_ISGID != 0 && metadata.gid() != group {
        return Some(format!("{} is setgid", path.display()));
    }
    if user != 0 && has_capabilities(path) {
        return Some(format!("{} has file capabilities", path.display()));
    }
    None
}

fn has_capabilities(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else {
        return false;
    };
    // SAFETY: both names are C strings; a null buffer of length 0 asks for the size.
    let size = unsafe {
        libc::getxattr(
            path.as_ptr(),
            c"security.capability".as_ptr(),
            std::ptr::null_mut(),
            0,
        )
    };
    size > 0
}
