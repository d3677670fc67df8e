//! Files that the programs of tmem write: completely or not at all, and never through a
//! symbolic link.

use std::ffi::{CString, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{FromRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::random;

/// A file that is being written. A regular file is written under a random name beside its
/// own, and gets its own name in [`OutputFile::finish`]. Dropped before that, it is deleted, and
/// an older file stays as it was. A pipe or a character device is written to directly.
#[derive(Debug)]
pub struct OutputFile {
    file: File,
    /// Its own name and the name until then; none if it is written to directly.
    names: Option<Names>,
}

#[derive(Debug)]
struct Names {
    last: PathBuf,
    /// None once it has its own name.
    first: Option<PathBuf>,
}

/// What is at a path that is to be written.
enum Place {
    /// Nothing, or a regular file to replace.
    File,
    /// A pipe or a character device.
    Stream,
    /// A descriptor of this process, as `/dev/stdout` names one.
    Descriptor(RawFd),
}

impl OutputFile {
    /// Begins the file that will be at `path`. Where that is a descriptor of this process
    /// (`/dev/stdout`, `/dev/stderr`, `/dev/fd/N`), that is written to, at its position.
    ///
    /// # Errors
    /// The system's, and [`io::ErrorKind::InvalidInput`] if a symbolic link, a folder, a socket or
    /// a block device is there.
    pub fn create(path: &Path) -> io::Result<OutputFile> {
        let file = match place(path)? {
            Place::File => {
                let (beside, file) = create_beside(path)?;
                let names = Names {
                    last: path.to_owned(),
                    first: Some(beside),
                };
                return Ok(OutputFile {
                    file,
                    names: Some(names),
                });
            }
            Place::Stream => {
                let flags = libc::O_NOFOLLOW | libc::O_NOCTTY;
                let file = OpenOptions::new()
                    .write(true)
                    .custom_flags(flags)
                    .open(path)?;
                // It may have been replaced since it was looked at.
                is_stream(file.metadata()?.file_type())
                    .then_some(file)
                    .ok_or_else(|| unfit("it has changed"))?
            }
            Place::Descriptor(fd) => duplicate(fd)?,
        };
        Ok(OutputFile { file, names: None })
    }

    /// Gives a regular file its name.
    ///
    /// # Errors
    /// The system's.
    pub fn finish(mut self) -> io::Result<()> {
        let Some(names) = &mut self.names else {
            return Ok(());
        };
        // Something may have been made there meanwhile. It is not to be replaced.
        if !matches!(place(&names.last)?, Place::File) {
            return Err(unfit("it has changed"));
        }
        if let Some(first) = &names.first {
            fs::rename(first, &names.last)?;
        }
        names.first = None;
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
        if let Some(first) = self.names.as_mut().and_then(|names| names.first.take()) {
            // A failure cannot be reported any more.
            let _ = fs::remove_file(first);
        }
    }
}

/// Writes `bytes` to the file at `path`, all of them or none.
///
/// # Errors
/// As [`OutputFile::create`].
pub fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OutputFile::create(path)?;
    file.write_all(bytes)?;
    file.finish()
}

/// Checks whether [`write_file`] is likely to succeed. Leaves nothing behind.
///
/// # Errors
/// As [`write_file`].
pub fn check_output(path: &Path) -> io::Result<()> {
    match place(path)? {
        Place::File | Place::Descriptor(_) => OutputFile::create(path).map(drop),
        // Opening a pipe would wait for its reader, and closing it would be an end to it.
        Place::Stream => may_write(path),
    }
}

/// Whether what is written to `path` goes to something that is there, a device for instance,
/// so that a name made from this one would be another place.
pub fn is_written_directly(path: &Path) -> bool {
    !matches!(place(path), Ok(Place::File) | Err(_))
}

fn unfit(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

fn place(path: &Path) -> io::Result<Place> {
    if let Some(fd) = descriptor(path) {
        return Ok(Place::Descriptor(fd));
    }
    if path.file_name().is_none() {
        return Err(unfit("it names no file"));
    }
    match fs::symlink_metadata(path).map(|there| there.file_type()) {
        Ok(there) if there.is_file() => Ok(Place::File),
        Ok(there) if is_stream(there) => Ok(Place::Stream),
        Ok(there) if there.is_symlink() => {
            Err(unfit("it is a symbolic link, which is not followed"))
        }
        Ok(there) if there.is_dir() => Err(unfit("it is a folder")),
        Ok(_) => Err(unfit(
            "it is neither a regular file nor a pipe or a character device",
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => in_a_folder(path),
        Err(error) => Err(error),
    }
}

/// A path at which there is nothing, where a file can be made.
fn in_a_folder(path: &Path) -> io::Result<Place> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    match folder.map(fs::metadata) {
        None | Some(Ok(_)) => Ok(Place::File),
        Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
            let text = "the folder that it is in does not exist";
            Err(io::Error::new(error.kind(), text))
        }
        Some(Err(error)) => Err(error),
    }
}

fn is_stream(kind: fs::FileType) -> bool {
    kind.is_fifo() || kind.is_char_device()
}

/// The descriptor of this process that a path stands for.
fn descriptor(path: &Path) -> Option<RawFd> {
    match path.to_str()? {
        "/dev/stdout" => Some(libc::STDOUT_FILENO),
        "/dev/stderr" => Some(libc::STDERR_FILENO),
        path => {
            let folders = ["/dev/fd/", "/proc/self/fd/"];
            let number = folders.iter().find_map(|folder| path.strip_prefix(folder));
            number?.parse().ok().filter(|fd| *fd >= 0)
        }
    }
}

/// Another descriptor of the same open file.
fn duplicate(fd: RawFd) -> io::Result<File> {
    // SAFETY: a plain call, which fails where nothing is open.
    let new = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
    if new < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and nobody else has it.
    let file = unsafe { File::from_raw_fd(new) };
    // SAFETY: a plain call on a descriptor that is open.
    let flags = unsafe { libc::fcntl(new, libc::F_GETFL) };
    if flags & libc::O_ACCMODE == libc::O_RDONLY {
        return Err(unfit("it is open for reading only"));
    }
    Ok(file)
}

/// Whether this process may write what is there.
fn may_write(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path is a C string that outlives the call.
    match unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), libc::W_OK, libc::AT_EACCESS) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
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
        .open(&beside)
        .map_err(|error| cannot_be_made(path, &error))?;
    Ok((beside, file))
}

/// An error of making a file beside `path`, in words.
fn cannot_be_made(path: &Path, error: &io::Error) -> io::Error {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let text = format!("no file can be made in {}: {error}", folder.display());
    io::Error::new(error.kind(), text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::AsRawFd;
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
    fn links_and_folders_are_refused_and_left_as_they_are() {
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
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        let error = check_output(&at("socket")).unwrap_err().to_string();
        assert!(error.contains("neither a regular file"), "{error}");
        fs::remove_file(at("socket")).unwrap();
        assert_eq!(fs::read_to_string(at("victim")).unwrap(), "secret");
        assert!(!at("nowhere").exists());
        assert_eq!(names(folder.path()), before);
    }

    #[test]
    fn a_folder_that_is_not_there_is_told_before_anything_is_written() {
        let error = check_output(Path::new("/no/such/folder/out")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(error.to_string().contains("does not exist"), "{error}");
        // Nothing can be made here, not even by root.
        let error = check_output(Path::new("/proc/out"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("no file can be made in /proc"), "{error}");
    }

    #[test]
    fn a_character_device_is_written_to_and_stays() {
        let null = Path::new("/dev/null");
        check_output(null).unwrap();
        write_file(null, b"x").unwrap();
        let kind = fs::metadata(null).unwrap().file_type();
        assert!(kind.is_char_device());
        assert!(is_written_directly(null) && is_written_directly(Path::new("/dev/stdout")));
        assert!(!is_written_directly(Path::new("/dev/stdout.1")));
    }

    #[test]
    fn a_pipe_is_looked_at_without_its_reader_and_then_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        let name = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: the name is a C string.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        check_output(&path).unwrap();
        let reader = {
            let path = path.clone();
            std::thread::spawn(move || fs::read_to_string(path).unwrap())
        };
        write_file(&path, b"figures").unwrap();
        assert_eq!(reader.join().unwrap(), "figures");
        assert_eq!(names(folder.path()), 1);
    }

    #[test]
    fn a_descriptor_is_written_to_at_its_position() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"before ").unwrap();
        for folder in ["/dev/fd", "/proc/self/fd"] {
            let path = format!("{folder}/{}", file.as_raw_fd());
            check_output(Path::new(&path)).unwrap();
            write_file(Path::new(&path), b"x").unwrap();
        }
        io::Seek::rewind(&mut file).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "before xx");
        let null = File::open("/dev/null").unwrap();
        let path = format!("/dev/fd/{}", null.as_raw_fd());
        let error = check_output(Path::new(&path)).unwrap_err().to_string();
        assert!(error.contains("reading only"), "{error}");
        assert!(check_output(Path::new("/dev/fd/999999")).is_err());
        assert!(check_output(Path::new("/dev/fd/-1")).is_err());
    }
}
