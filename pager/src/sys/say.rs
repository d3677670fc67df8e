//! Messages for the user, from a thread that does not have the program's file table.

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

/// How long a line waits for room in a pipe before it is dropped.
const PATIENCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// Writes one line, `tmem: …`, to the program's standard error.
///
/// The engine has its own file table, so it borrows the program's file descriptor 2 for the
/// moment of the write: wherever the program has redirected it, its user looks there.
pub fn line(text: &str) {
    // Messages of a test belong to its own output.
    #[cfg(test)]
    if super::clock::now_ns().is_some() {
        return std::eprintln!("tmem: {text}");
    }
    let line: String = format!("tmem: {text}\n");
    // Where it is closed, nobody wants to hear.
    if let Some(stderr) = stderr() {
        write(&stderr, &line);
    }
}

/// Writes the same line to another file.
pub fn line_to(file: &Fd, text: &str) {
    write(file, &format!("tmem: {text}\n"));
}

fn write(file: &Fd, line: &str) {
    // Whoever reads a full pipe may be waiting for this very thread.
    let mut poll = [PollFd::new(file, PollFlags::OUT)];
    if rustix::event::poll(&mut poll, Some(&PATIENCE)) == Ok(1) {
        let _ = rustix::io::write(file, line.as_bytes());
    }
}

/// Borrows the program's standard error.
pub fn stderr() -> Option<Fd> {
    inspected(|| stderr_of(program::id()))
}

/// Borrows the standard error of a process, or opens it again.
pub fn stderr_of(pid: u32) -> Option<Fd> {
    let pidfd = program::pidfd(pid).ok()?;
    let borrowed = rustix::process::pidfd_getfd(&pidfd, 2, PidfdGetfdFlags::empty());
    match borrowed {
        Ok(fd) => Some(Fd::from(fd)),
        Err(Errno::PERM) => open_to_write(&format!("{pid}/fd/2")),
        Err(_) => None,
    }
}

/// Does something that requires the right to inspect the program's process. If the program
/// has given up that right (`PR_SET_DUMPABLE`), it is restored for the moment.
pub fn inspected<R>(what: impl Fn() -> Option<R>) -> Option<R> {
    // If the real and the effective user differ, even a task of the same user may not
    // inspect the process without capabilities.
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
    // The kernel refuses this to nobody.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    second
}

/// Prints why, and kills the program.
pub fn die(text: &str) -> ! {
    line(text);
    // A test that drives the engine shows the stack by a panic.
    #[cfg(test)]
    if super::clock::now_ns().is_some() {
        panic!("{text}");
    }
    super::kill::kill_process()
}
