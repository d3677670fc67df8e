//! Finding a program, and whether a library can be preloaded into it.

use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::elf::{self, Kind};

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
    for folder in std::env::split_paths(path.unwrap_or(OsStr::new("/bin:/usr/bin"))) {
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

/// Why nothing can be preloaded into the program at `path`, if so.
pub(crate) fn obstacle(path: &Path) -> Option<String> {
    let mut path = path.to_owned();
    // As many interpreters of interpreters as the kernel follows.
    for _ in 0..5 {
        let mut head = Vec::new();
        // A program that may be run but not read is left to the kernel.
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
            Kind::Dynamic => return privileged(&path),
            Kind::Unknown => return None,
        }
    }
    None
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
