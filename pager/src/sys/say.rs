//! Messages for people, from a thread without the program's file table.

use super::credentials::raised;
use super::fd::Fd;
use super::program;
use super::roots::open_to_write;
use alloc::format;
use alloc::string::String;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, PidfdGetfdFlags, dumpable_behavior, set_dumpable_behavior,
};

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
    let Some(stderr) = inspected(stderr) else {
        return; // closed: nobody wants to hear
    };
    // Whoever reads a full pipe may be waiting for this very thread.
    let mut poll = [PollFd::new(&stderr, PollFlags::OUT)];
    if rustix::event::poll(&mut poll, Some(&PATIENCE)) == Ok(1) {
        let _ = rustix::io::write(&stderr, line.as_bytes());
    }
}

/// The program's standard error. Where it may not be borrowed it is opened once more.
fn stderr() -> Option<Fd> {
    let pidfd = program::pidfd(program::id()).ok()?;
    let borrowed = rustix::process::pidfd_getfd(&pidfd, 2, PidfdGetfdFlags::empty());
    match borrowed {
        Ok(fd) => Some(Fd::from(fd)),
        Err(Errno::PERM) => open_to_write(&format!("{}/fd/2", program::id())),
        Err(_) => None,
    }
}

/// Does something that takes the right to inspect the program's process, which its memory
/// may be closed to: it is open for that moment.
pub fn inspected<R>(what: impl Fn() -> Option<R>) -> Option<R> {
    // With a real user other than the effective one not even a task that is the same may.
    let first = what().or_else(|| match program::is_apart() {
        true => raised(&what),
        false => None,
    });
    if first.is_some() || !program::is_apart() {
        return first;
    }
    let closed = matches!(
        dumpable_behavior(),
        Ok(DumpableBehavior::NotDumpable | DumpableBehavior::DumpableReadableOnlyByRoot)
    );
    if !closed {
        return None;
    }
    set_dumpable_behavior(DumpableBehavior::Dumpable).ok()?;
    let second = what();
    // It has just been allowed, and this was asked for before.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    second
}

/// Says why, and ends the program by SIGKILL.
pub fn die(text: &str) -> ! {
    line(text);
    // A test that drives the engine says how it came to this.
    #[cfg(test)]
    if super::clock::now_ns().is_some() {
        panic!("{text}");
    }
    super::thread::kill_process()
}
