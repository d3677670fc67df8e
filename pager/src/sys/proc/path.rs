//! Files and folders of `/proc` that belong to a thread or process.

use crate::sys::fd::Fd;
use crate::sys::roots::open_in_proc;
use crate::sys::{program, thread};
use core::ffi::CStr;
use core::fmt::{self, Write};
use core::mem::MaybeUninit;
use rustix::fs::RawDir;

/// Opens a file of a thread of the program, or of the calling task.
pub(crate) fn open_of_thread(tid: u32, file: &str) -> Option<Fd> {
    match tid == thread::id() || !program::is_apart() {
        true => open_beside_threads(format_args!("{tid}/{file}")),
        false => open_of_process(tid, file),
    }
}

/// Opens a file of a process, or of any thread, by its number.
pub(crate) fn open_of_process(id: u32, file: &str) -> Option<Fd> {
    let mut path = Path::default();
    write!(path, "{id}/{file}\0").ok()?;
    let path = CStr::from_bytes_until_nul(&path.bytes).ok()?;
    open_in_proc(path).ok()
}

/// Calls `found` with the number of each thread of a process.
pub(crate) fn tasks_of(id: u32, found: impl FnMut(u32)) {
    let mut path = Path::default();
    if write!(path, "{id}/task\0").is_ok()
        && let Ok(path) = CStr::from_bytes_until_nul(&path.bytes)
    {
        each_number(path, found);
    }
}

/// Calls `found` with each number that is the name of an entry in a folder below `/proc`.
pub(crate) fn each_number(folder: &CStr, mut found: impl FnMut(u32)) {
    let Ok(folder) = open_in_proc(folder) else {
        return;
    };
    let mut space = [MaybeUninit::uninit(); 4096];
    let mut entries = RawDir::new(&folder, &mut space);
    while let Some(Ok(entry)) = entries.next() {
        let name = entry.file_name().to_str();
        if let Some(number) = name.ok().and_then(|name| name.parse().ok()) {
            found(number);
        }
    }
}

/// Opens a path that is relative to the folder of this process's threads.
pub(super) fn open_beside_threads(file: fmt::Arguments<'_>) -> Option<Fd> {
    let mut path = Path::default();
    // The path begins with the calling thread, since the process's own entry is empty once
    // its first thread has ended.
    write!(path, "thread-self/../{file}\0").ok()?;
    let path = CStr::from_bytes_until_nul(&path.bytes).ok()?;
    open_in_proc(path).ok()
}

/// A path that is built without the heap.
struct Path {
    bytes: [u8; 48],
    len: usize,
}

impl Default for Path {
    fn default() -> Path {
        Path {
            bytes: [0; 48],
            len: 0,
        }
    }
}

impl Write for Path {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        let room = self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}
