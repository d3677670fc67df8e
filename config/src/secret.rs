//! The secret that servers and their clients share.

use std::fs;
use std::io;
use std::path::Path;

use crate::ConfigError;

/// Reads a secret file. One newline at its end is not part of the secret, so
/// that a file written with `echo` and one written with `printf` mean the same.
///
/// # Errors
/// [`ConfigError::Read`] when it cannot be read or holds no secret.
pub fn read_secret(path: &Path) -> Result<Vec<u8>, ConfigError> {
    let failed = |error| ConfigError::Read {
        what: "secret",
        path: path.to_owned(),
        error,
    };
    let mut secret = fs::read(path).map_err(failed)?;
    if secret.last() == Some(&b'\n') {
        secret.pop();
    }
    if secret.is_empty() {
        return Err(failed(io::Error::new(
            io::ErrorKind::InvalidData,
            "it is empty",
        )));
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_newline_at_the_end_is_no_part_of_the_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        for (bytes, secret) in [("key", "key"), ("key\n", "key"), ("k\n\n", "k\n")] {
            fs::write(&path, bytes).unwrap();
            assert_eq!(read_secret(&path).unwrap(), secret.as_bytes());
        }
    }

    #[test]
    fn a_file_without_a_secret_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        assert!(
            read_secret(&path)
                .unwrap_err()
                .to_string()
                .contains("No such file")
        );
        for empty in ["", "\n"] {
            fs::write(&path, empty).unwrap();
            let message = read_secret(&path).unwrap_err().to_string();
            assert!(message.ends_with("secret: it is empty"), "{message}");
        }
    }
}
