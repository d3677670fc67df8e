//! Finds the library to preload.

use std::env;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// `TMEM_LIB`, else `libtmem.so` beside this executable or in `../lib`.
pub(crate) fn find() -> Result<PathBuf, String> {
    let path = match env::var_os("TMEM_LIB").filter(|path| !path.is_empty()) {
        Some(path) => {
            let path = PathBuf::from(path);
            path.canonicalize()
                .map_err(|e| format!("TMEM_LIB={}: {e}", path.display()))?
        }
        None => beside().ok_or("libtmem.so is neither beside tmem nor in ../lib; set TMEM_LIB")?,
    };
    // LD_PRELOAD is a list with these as separators, without any quoting.
    if path
        .as_os_str()
        .as_bytes()
        .iter()
        .any(|b| matches!(b, b' ' | b':'))
    {
        return Err(format!("the path {} has a space or colon", path.display()));
    }
    Ok(path)
}

fn beside() -> Option<PathBuf> {
    let own = env::current_exe().ok()?;
    let folder = own.parent()?;
    ["libtmem.so", "../lib/libtmem.so"]
        .into_iter()
        .find_map(|name| folder.join(name).canonicalize().ok())
}

/// `LD_PRELOAD` with the library before what was there.
pub(crate) fn preload(library: &Path) -> OsString {
    let mut list = library.as_os_str().to_owned();
    if let Some(before) = env::var_os("LD_PRELOAD").filter(|before| !before.is_empty()) {
        list.push(":");
        list.push(before);
    }
    list
}
