//! Software of the machine that tests run.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The program `name`, searched for where Debian puts it (not in `PATH`: a
/// version manager's python3 has no numpy). Fails the test when it is missing,
/// naming the Debian packages to install.
pub fn find(name: &str, packages: &str) -> PathBuf {
    look_for(name).unwrap_or_else(|| panic!("{name} is missing: apt-get install {packages}"))
}

/// The same for what a test can do without.
pub fn look_for(name: &str) -> Option<PathBuf> {
    ["/usr/bin", "/bin", "/usr/sbin", "/sbin"]
        .iter()
        .map(|dir| Path::new(dir).join(name))
        .find(|path| path.exists())
}

/// Debian's python3 with numpy.
pub fn python_with_numpy() -> PathBuf {
    let python = find("python3", "python3 python3-numpy");
    let status = Command::new(&python)
        .args(["-c", "import numpy"])
        .stderr(Stdio::null())
        .status()
        .expect("python3 can be run");
    assert!(
        status.success(),
        "numpy is missing: apt-get install python3-numpy"
    );
    python
}

/// Whether this process is root, as some tests must be.
pub fn is_root() -> bool {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::geteuid() == 0 }
}
