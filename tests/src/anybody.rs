//! What users other than root need to run something under tmem.

use crate::artefacts;
use crate::cc::program;
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// A folder that any user may read, with all that a run of the program `fill` needs.
pub fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))
        .expect("permissions of an own folder can be set");
    for name in ["tmem", "libtmem.so"] {
        let from = artefacts::dir().join(name);
        fs::copy(from, folder.path().join(name)).expect("an artefact can be copied");
    }
    fs::copy(program("fill"), folder.path().join("fill")).expect("a program can be copied");
    folder
}
