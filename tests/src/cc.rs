//! The C programs of `tests/programs`, compiled when first asked for.

use crate::artefacts::scratch;
use crate::lock::FileLock;
use crate::software;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The compiled program `name` (`tests/programs/name.c`).
pub fn program(name: &str) -> PathBuf {
    program_with(name, &[])
}

/// The same with further options for the compiler, such as `-static`.
pub fn program_with(name: &str, options: &[&str]) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("programs");
    let source = folder.join(format!("{name}.c"));
    let mut text = std::fs::read(&source).unwrap_or_else(|e| panic!("{}: {e}", source.display()));
    text.extend(std::fs::read(folder.join("common.h")).expect("common.h is there"));
    text.extend(options.concat().bytes());
    let made = scratch().join("programs");
    let binary = made
        .join(format!(
            "{name}-{:016x}",
            twox_hash::XxHash3_64::oneshot(&text)
        ))
        .join(name);
    // One test at a time: a binary replaced while another test runs it is
    // `name (deleted)` to those who look for that test's process.
    let _lock = FileLock::take(&made.join("compile.lock"));
    if !binary.exists() {
        compile(&source, &binary, options);
    }
    binary
}

/// Compiles beside the place and renames: a compiler that is stopped leaves
/// nothing that looks finished.
fn compile(source: &Path, binary: &Path, options: &[&str]) {
    let gcc = software::find("gcc", "gcc libc6-dev");
    let folder = binary.parent().expect("the binary is in a folder");
    std::fs::create_dir_all(folder).expect("the target directory can be written");
    let fresh = binary.with_extension(std::process::id().to_string());
    let output = Command::new(gcc)
        .args(["-O2", "-g", "-Wall", "-Wextra", "-Werror", "-pthread", "-o"])
        .arg(&fresh)
        .arg(source)
        .args(options)
        .output()
        .expect("gcc can be run");
    assert!(
        output.status.success(),
        "{}: {}",
        source.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    std::fs::rename(&fresh, binary).expect("the program can be renamed");
}
