//! Where each process writes its statistics when no `tmem run` collects them. A program's
//! children have the same variables, and would overwrite its file.
//!
//! `%p` in the name stands for the process ID. If the name has none, the first process uses
//! it as it is, and others append their process ID, as in `figures.json.1234`. The first
//! process tells its children that they are not the first by a mark at the end of the
//! variable's value.

use crate::{environment, family, start};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::OnceLock;
use tmem_config::{Options, check_output, is_written_directly};

const VARIABLE: &str = "TMEM_STATS_FILE";
/// The mark is the first process's number between these.
const MARK: (&[u8], &[u8]) = (b"%{", b"}");

#[derive(Debug, PartialEq, Eq)]
struct Naming {
    /// The whole path, with `%p` in it but without a mark.
    path: PathBuf,
    /// The process that uses the name as it is, if it is known.
    first: Option<u32>,
}

static NAMING: OnceLock<Naming> = OnceLock::new();

/// Determines the names. Says at once if the file cannot be written.
pub(crate) fn begin(options: &Options) {
    let Some(file) = options
        .stats_file
        .as_deref()
        .filter(|_| !family::is_checked())
    else {
        return;
    };
    let from_variable = std::env::var_os(VARIABLE).is_some_and(|value| !value.is_empty());
    let naming = Naming::new(file, from_variable);
    if from_variable {
        // SAFETY: nothing of the program has run, and no thread.
        unsafe { environment::replace(VARIABLE, &naming.value()) };
    }
    let path = naming.of(process::id());
    match check_output(&path) {
        Ok(()) => {
            // Only the constructor comes here.
            let _ = NAMING.set(naming);
        }
        Err(error) => start::say(&format!(
            "statistics cannot be written to {}: {error}",
            path.display()
        )),
    }
}

/// The file of this process, if it is to write one.
pub(crate) fn own() -> Option<PathBuf> {
    NAMING.get().map(|naming| naming.of(process::id()))
}

impl Naming {
    fn new(file: &Path, from_variable: bool) -> Naming {
        let (file, marked) = unmarked(file.as_os_str().as_bytes());
        let file = Path::new(OsStr::from_bytes(file));
        Naming {
            // A program may change its folder before it ends.
            path: std::path::absolute(file).unwrap_or_else(|_| file.to_owned()),
            // A name from a file comes without a mark everywhere.
            first: marked.or_else(|| from_variable.then(process::id)),
        }
    }

    fn of(&self, pid: u32) -> PathBuf {
        let number = pid.to_string();
        let name = self.path.as_os_str().as_bytes();
        let mut parts = split(name);
        let mut path = parts.next().unwrap_or_default().to_vec();
        let before = path.len();
        for part in parts {
            path.extend_from_slice(number.as_bytes());
            path.extend_from_slice(part);
        }
        let is_same_for_all = self.first == Some(pid) || is_written_directly(&self.path);
        if path.len() == before && !is_same_for_all {
            path.push(b'.');
            path.extend_from_slice(number.as_bytes());
        }
        OsString::from_vec(path).into()
    }

    /// The variable's value for processes that this one starts.
    fn value(&self) -> Vec<u8> {
        let mut value = self.path.as_os_str().as_bytes().to_vec();
        if let Some(first) = self.first {
            value.extend_from_slice(MARK.0);
            value.extend_from_slice(first.to_string().as_bytes());
            value.extend_from_slice(MARK.1);
        }
        value
    }
}

/// What lies between two `%p`.
fn split(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(name);
    std::iter::from_fn(move || {
        let here = rest?;
        let at = here.windows(2).position(|two| two == b"%p");
        rest = at.map(|at| &here[at + 2..]);
        Some(&here[..at.unwrap_or(here.len())])
    })
}

/// A name without its mark, and what that says.
fn unmarked(name: &[u8]) -> (&[u8], Option<u32>) {
    let found = name.strip_suffix(MARK.1).and_then(|inner| {
        let at = inner.windows(2).rposition(|two| two == MARK.0)?;
        let number = std::str::from_utf8(&inner[at + 2..]).ok()?.parse().ok()?;
        Some((&inner[..at], Some(number)))
    });
    found.unwrap_or((name, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naming(path: &str, first: Option<u32>) -> Naming {
        Naming {
            path: path.into(),
            first,
        }
    }

    #[test]
    fn the_first_process_has_the_name_and_others_add_their_number() {
        let naming = naming("/s.json", Some(7));
        assert_eq!(naming.of(7), Path::new("/s.json"));
        assert_eq!(naming.of(8), Path::new("/s.json.8"));
    }

    #[test]
    fn a_device_has_one_name_for_all() {
        let naming = naming("/dev/stderr", Some(7));
        assert_eq!(naming.of(8), Path::new("/dev/stderr"));
    }

    #[test]
    fn percent_p_is_the_number_in_every_process() {
        for (name, of_7) in [("/%p", "/7"), ("/s%p.json", "/s7.json"), ("/%p%p.", "/77.")] {
            assert_eq!(naming(name, Some(7)).of(7), Path::new(of_7));
        }
    }

    #[test]
    fn a_name_from_a_file_has_no_first_process() {
        let naming = Naming::new(Path::new("/s"), false);
        assert_eq!(
            naming.of(process::id()),
            PathBuf::from(format!("/s.{}", process::id()))
        );
    }

    #[test]
    fn those_that_are_started_learn_who_was_the_first() {
        let first = Naming::new(Path::new("/s"), true);
        let value = first.value();
        let again = Naming::new(Path::new(OsStr::from_bytes(&value)), true);
        assert_eq!(again, first);
        assert_eq!(again.first, Some(process::id()));
        for odd in ["/s%{}", "/s%{x}", "/s}", "%{1}x"] {
            assert_eq!(unmarked(odd.as_bytes()), (odd.as_bytes(), None));
        }
    }
}
