//! Messages for people, from a thread without the program's file table.

use super::fd::Fd;
use alloc::format;
use alloc::string::String;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{PidfdFlags, PidfdGetfdFlags};

/// How long a line waits for room where it is to go, before it is given up.
const PATIENCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// Writes one line, `tmem: …`, to the program's standard error.
///
/// The engine has a file table of its own, so the descriptor is borrowed from
/// the program's for the moment of the write: whatever the program has made of
/// its descriptor 2 is where its user looks.
pub fn line(text: &str) {
    // What a test says belongs to its own output.
    #[cfg(test)]
    if super::clock::now_ns().is_some() {
        return std::eprintln!("tmem: {text}");
    }
    let line: String = format!("tmem: {text}\n");
    let me = rustix::process::getpid();
    let Ok(pidfd) = rustix::process::pidfd_open(me, PidfdFlags::empty()).map(Fd::from) else {
        return;
    };
    let stderr = rustix::process::pidfd_getfd(&pidfd, 2, PidfdGetfdFlags::empty());
    let Ok(stderr) = stderr.map(Fd::from) else {
        return; // closed: nobody wants to hear
    };
    // Whoever reads a full pipe may be waiting for this very thread.
    let mut poll = [PollFd::new(&stderr, PollFlags::OUT)];
    if rustix::event::poll(&mut poll, Some(&PATIENCE)) == Ok(1) {
        let _ = rustix::io::write(&stderr, line.as_bytes());
    }
}

/// Says why, and ends the process by SIGKILL.
pub fn die(text: &str) -> ! {
    line(text);
    // A test that drives the engine says how it came to this.
    #[cfg(test)]
    if super::clock::now_ns().is_some() {
        panic!("{text}");
    }
    super::thread::kill_process()
}
