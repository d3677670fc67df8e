//! The release artefacts under test.

use crate::lock::FileLock;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The folder with `tmem`, `tmem-memserver` and `libtmem.so`: `TMEM_BIN_DIR`,
/// or the release folder of this build's target directory, brought up to date
/// once per test run.
pub fn dir() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| match std::env::var_os("TMEM_BIN_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => build(),
    })
}

/// The `tmem` command.
pub fn tmem() -> PathBuf {
    dir().join("tmem")
}

/// The memory server.
pub fn memserver() -> PathBuf {
    dir().join("tmem-memserver")
}

/// The library to preload.
pub fn shim() -> PathBuf {
    dir().join("libtmem.so")
}

/// The target directory of this build, which the test's own path tells.
pub fn target_dir() -> PathBuf {
    let exe = std::env::current_exe().expect("a test knows its own path");
    let deps = exe.ancestors().find(|dir| dir.ends_with("deps"));
    let profile = deps
        .and_then(Path::parent)
        .expect("tests are built into a deps folder");
    profile
        .parent()
        .expect("a profile is in a target directory")
        .to_owned()
}

/// Where the harness keeps what it makes.
pub(crate) fn scratch() -> PathBuf {
    target_dir().join("tmem-tests")
}

fn build() -> PathBuf {
    let target = target_dir();
    let release = target.join("release");
    let _lock = FileLock::take(&scratch().join("build.lock"));
    // nextest runs each test in a process of its own, all with one run id.
    let stamp = std::env::var("NEXTEST_RUN_ID")
        .ok()
        .map(|id| scratch().join("built").join(id));
    if stamp.as_ref().is_some_and(|stamp| stamp.exists()) {
        return release;
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "build",
            "--release",
            "--quiet",
            "-p",
            "tmem-shim",
            "-p",
            "tmem-cli",
        ])
        .args(["-p", "tmem-memserver", "--manifest-path"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .output()
        .expect("cargo can be run");
    assert!(
        output.status.success(),
        "building the artefacts: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    if let Some(stamp) = stamp {
        let folder = stamp.parent().expect("the stamp is in a folder");
        // Stamps of earlier runs say nothing any more.
        let _ = std::fs::remove_dir_all(folder);
        std::fs::create_dir_all(folder).expect("the target directory can be written");
        std::fs::write(&stamp, "").expect("the target directory can be written");
    }
    release
}
