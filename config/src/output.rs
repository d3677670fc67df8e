//! Files that the programs of tmem write: whole or not at all, and never through
//! a link that somebody else has laid.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::random;

/// A file that is being written, under a name beside its own that nobody can guess.
/// Dropped before [`OutputFile::finish`], it is gone, and what was there is as it was.
#[derive(Debug)]
pub struct OutputFile {
    path: PathBuf,
    beside: Option<PathBuf>,
    file: File,
}

impl OutputFile {
    /// Begins the file that will be at `path`, where nothing is or a regular file.
    ///
    /// # Errors
    /// Those of the system, and [`io::ErrorKind::InvalidInput`] where there is a link, a
    /// device or anything else that is not a regular file.
    pub fn create(path: &Path) -> io::Result<OutputFile> {
        check_place(path)?;
        let (beside, file) = create_beside(path)?;
        Ok(OutputFile {
            path: path.to_owned(),
            beside: Some(beside),
            file,
        })
    }

    /// Gives it its name.
    ///
    /// # Errors
    /// Those of the system.
    pub fn finish(mut self) -> io::Result<()> {
        // What has come to be there meanwhile is not to be replaced either.
        check_place(&self.path)?;
        if let Some(beside) = &self.beside {
            fs::rename(beside, &self.path)?;
        }
        self.beside = None;
        Ok(())
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        if let Some(beside) = self.beside.take() {
            // Nobody is left to tell of a failure.
            let _ = fs::remove_file(beside);
        }
    }
}

/// Puts `bytes` into the file at `path`, all of them or nothing.
///
/// # Errors
/// As [`OutputFile::create`].
pub fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OutputFile::create(path)?;
    file.write_all(bytes)?;
    file.finish()
}

/// Sees whether [`write_file`] can be expected to succeed, and leaves nothing behind.
///
/// # Errors
/// As [`write_file`].
pub fn check_output(path: &Path) -> io::Result<()> {
    OutputFile::create(path).map(drop)
}

fn check_place(path: &Path) -> io::Result<()> {
    let unfit = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    if path.file_name().is_none() {
        return unfit("it names no file");
    }
    match fs::symlink_metadata(path) {
        Ok(there) if there.is_symlink() => unfit("a symbolic link is there, which is not followed"),
        Ok(there) if there.is_dir() => unfit("a folder is there"),
        Ok(there) if !there.is_file() => unfit("what is there is not a regular file"),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// A new file in the folder of `path`, and its path.
fn create_beside(path: &Path) -> io::Result<(PathBuf, File)> {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{:032x}", u128::from_ne_bytes(random()?)));
    let beside = path.with_file_name(name);
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&beside)?;
    Ok((beside, file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn names(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn a_new_file_and_one_that_was_there_are_written_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        for text in ["first", "2"] {
            check_output(&path).unwrap();
            write_file(&path, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            assert_eq!(names(folder.path()), 1);
        }
    }

    #[test]
    fn links_folders_and_devices_are_refused_and_left_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("victim"), "secret").unwrap();
        symlink(at("victim"), at("link")).unwrap();
        symlink(at("nowhere"), at("dangling")).unwrap();
        fs::create_dir(at("sub")).unwrap();
        let before = names(folder.path());
        for path in ["link", "dangling", "sub", ".."].map(at) {
            for result in [write_file(&path, b"x"), check_output(&path)] {
                let error = result.unwrap_err();
                assert_eq!(
                    error.kind(),
                    io::ErrorKind::InvalidInput,
                    "{path:?}: {error}"
                );
            }
        }
        assert!(write_file(Path::new("/dev/null"), b"x").is_err());
        assert_eq!(fs::read_to_string(at("victim")).unwrap(), "secret");
        assert!(!at("nowhere").exists());
        assert_eq!(names(folder.path()), before);
    }

    #[test]
    fn a_folder_that_is_not_there_is_told_before_anything_is_written() {
        let error = check_output(Path::new("/no/such/folder/out")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
