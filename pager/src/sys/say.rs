//! Messages for people, from a thread without the program's file table.

use alloc::format;
use alloc::string::String;
use rustix::process::{PidfdFlags, PidfdGetfdFlags};

/// Writes one line, `tmem: …`, to the program's standard error.
///
/// The engine has a file table of its own, so the descriptor is borrowed from
/// the program's for the moment of the write: whatever the program has made of
/// its descriptor 2 is where its user looks.
pub fn line(text: &str) {
    let line: String = format!("tmem: {text}\n");
    let Ok(pidfd) = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())
    else {
        return;
    };
    let Ok(stderr) = rustix::process::pidfd_getfd(&pidfd, 2, PidfdGetfdFlags::empty()) else {
        return; // closed: nobody wants to hear
    };
    let _ = rustix::io::write(&stderr, line.as_bytes());
}

/// Says why, and ends the process by SIGKILL.
pub fn die(text: &str) -> ! {
    line(text);
    super::thread::kill_process()
}
