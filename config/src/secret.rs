//! The secret that servers and their clients share.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use crate::{ConfigError, random};

/// The fewest bytes of a secret: shorter ones can be guessed.
pub const MIN_SECRET: usize = 16;

/// Bits of a file's mode that let its group and others write it.
const OTHERS_WRITE: u32 = 0o022;

/// Reads a secret file. One newline at its end is not part of the secret, so
/// that a file written with `echo` and one written with `printf` mean the same.
///
/// # Errors
/// [`ConfigError::Read`] when it cannot be read, holds a secret that can be guessed, or
/// others than its owner can write it.
pub fn read_secret(path: &Path) -> Result<Vec<u8>, ConfigError> {
    let failed = |error| ConfigError::Read {
        what: "secret",
        path: path.to_owned(),
        error,
    };
    let refused = |text: String| failed(io::Error::new(io::ErrorKind::InvalidData, text));
    let mut file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_file() && metadata.mode() & OTHERS_WRITE != 0 {
        let remedy = "others can write it; `chmod go-w` it, once its secret is sure to be yours";
        return Err(refused(remedy.to_owned()));
    }
    let mut secret = Vec::new();
    file.read_to_end(&mut secret).map_err(failed)?;
    if secret.last() == Some(&b'\n') {
        secret.pop();
    }
    check_secret(&secret).map_err(refused)?;
    Ok(secret)
}

/// Refuses secrets that can be guessed, with a text that says what to do.
///
/// # Errors
/// A text that follows "secret:".
pub fn check_secret(secret: &[u8]) -> Result<(), String> {
    match secret.len() {
        0 => Err("it is empty; `tmem keygen FILE` makes one".to_owned()),
        n if n < MIN_SECRET => Err(format!(
            "its {n} bytes can be guessed, at least {MIN_SECRET} are needed; `tmem keygen FILE` \
             makes one"
        )),
        _ => Ok(()),
    }
}

/// A fresh secret: 32 random bytes in hexadecimal.
///
/// # Errors
/// When the system has no random bytes.
pub fn new_secret() -> io::Result<String> {
    let mut secret = String::new();
    for byte in [random()?, random()?].concat() {
        // Writing to a string does not fail.
        let _ = write!(secret, "{byte:02x}");
    }
    Ok(secret)
}

/// Writes a secret to a new file that only its owner can read.
///
/// # Errors
/// When the file exists, or cannot be written.
pub fn write_secret(path: &Path, secret: &str) -> io::Result<()> {
    // A new file is never a link that leads to another.
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(secret.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    const SECRET: &str = "a secret of tests";

    #[test]
    fn one_newline_at_the_end_is_no_part_of_the_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        for end in ["", "\n", "\n\n"] {
            fs::write(&path, format!("{SECRET}{end}")).unwrap();
            fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
            let read = String::from_utf8(read_secret(&path).unwrap()).unwrap();
            assert_eq!(
                read,
                format!("{SECRET}{}", end.strip_suffix('\n').unwrap_or(end))
            );
        }
    }

    #[test]
    fn a_file_without_a_good_secret_is_refused_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let refused = || read_secret(&path).unwrap_err().to_string();
        assert!(refused().contains("No such file"));
        for (bad, words) in [
            ("", "it is empty; `tmem keygen FILE`"),
            ("\n", "it is empty; `tmem keygen FILE`"),
            ("fifteen bytes..\n", "its 15 bytes can be guessed"),
        ] {
            fs::write(&path, bad).unwrap();
            fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
            let message = refused();
            assert!(
                message.contains(words) && message.contains("keygen"),
                "{message}"
            );
        }
    }

    #[test]
    fn a_file_that_others_can_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        fs::write(&path, SECRET).unwrap();
        for (mode, good) in [(0o600, true), (0o644, true), (0o620, false), (0o602, false)] {
            fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            let read = read_secret(&path);
            assert_eq!(read.is_ok(), good, "{mode:o}");
            if let Err(error) = read {
                assert!(error.to_string().contains("chmod go-w"), "{error}");
            }
        }
    }

    #[test]
    fn a_new_secret_is_good_and_goes_to_a_new_file_of_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let secret = new_secret().unwrap();
        assert_ne!(secret, new_secret().unwrap());
        write_secret(&path, &secret).unwrap();
        assert_eq!(read_secret(&path).unwrap(), secret.as_bytes());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        // Neither a file that is there nor one that a link leads to is overwritten.
        assert!(write_secret(&path, &secret).is_err());
        let (link, other) = (folder.path().join("link"), folder.path().join("other"));
        std::os::unix::fs::symlink(&other, &link).unwrap();
        assert!(write_secret(&link, &secret).is_err() && !other.exists());
    }
}
