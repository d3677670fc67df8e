//! A lock among test processes.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

/// Held until dropped.
pub(crate) struct FileLock(#[expect(dead_code, reason = "closing it gives the lock up")] File);

impl FileLock {
    /// Waits for the lock that the file `path` stands for.
    pub(crate) fn take(path: &Path) -> FileLock {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).expect("the target directory can be written");
        }
        let file = File::create(path).expect("a lock file can be made");
        // SAFETY: the descriptor is open.
        let result = unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) };
        assert_eq!(
            result,
            0,
            "flock {}: {}",
            path.display(),
            std::io::Error::last_os_error()
        );
        FileLock(file)
    }
}
