//! Processes: descendants, ends, and the most memory they had.

use std::collections::VecDeque;
use std::fs;
use std::io::Error;
use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::ptr::null_mut;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It left with this status.
    Exit(i32),
    /// This signal killed it.
    Signal(i32),
}

impl End {
    /// How `tmem run` ends when its program has ended so.
    #[must_use]
    pub fn as_run_tells(self) -> End {
        match self {
            End::Signal(signal) => End::Exit(128 + signal),
            end => end,
        }
    }
}

/// An ended process.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// How.
    pub end: End,
    /// The most resident memory of it or of a descendant that it waited for,
    /// in bytes.
    pub max_rss: u64,
    /// Processor time of the same, in seconds.
    pub cpu: f64,
}

/// Looks whether the child `pid` has ended, without waiting.
pub fn try_wait(pid: i32) -> Option<Ended> {
    let mut status = 0;
    // SAFETY: all zeros is a valid rusage.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both places are valid for the call.
    let got = unsafe { libc::wait4(pid, &raw mut status, libc::WNOHANG, &raw mut usage) };
    match got {
        0 => None,
        got if got == pid => {
            let end = if libc::WIFSIGNALED(status) {
                End::Signal(libc::WTERMSIG(status))
            } else {
                End::Exit(libc::WEXITSTATUS(status))
            };
            let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
            Some(Ended {
                end,
                max_rss: usage.ru_maxrss as u64 * 1024,
                cpu: seconds(usage.ru_utime) + seconds(usage.ru_stime),
            })
        }
        _ => panic!("wait4 {pid}: {}", Error::last_os_error()),
    }
}

/// Has the command start as from a shell on a terminal, whatever this process was started
/// by: no signal is ignored or blocked, and its process group is its own, with a parent in
/// the same session outside of it. A group without one, as `setsid` makes, is not stopped
/// by the keys of a terminal.
pub fn as_from_a_shell(command: &mut Command) -> &mut Command {
    // SAFETY: the hook makes system calls only.
    unsafe {
        command.process_group(0).pre_exec(|| {
            // The C library refuses its own two, and the kernel the two that cannot be
            // handled; both have no other disposition than this one anyway.
            for signal in 1..=libc::SIGRTMAX() {
                libc::signal(signal, libc::SIG_DFL);
            }
            let mut none = MaybeUninit::uninit();
            libc::sigemptyset(none.as_mut_ptr());
            match libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), null_mut()) {
                0 => Ok(()),
                _ => Err(Error::last_os_error()),
            }
        })
    }
}

/// Sends `signal`; a process that is gone already is no error.
pub fn signal(pid: i32, signal: i32) {
    // SAFETY: no memory is involved.
    unsafe { libc::kill(pid, signal) };
}

/// `pid` and its descendants, parents first.
pub fn tree(pid: i32) -> Vec<i32> {
    let mut found = vec![];
    let mut queue = VecDeque::from([pid]);
    while let Some(pid) = queue.pop_front() {
        found.push(pid);
        for task in fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            queue.extend(
                children
                    .split_whitespace()
                    .filter_map(|pid| pid.parse::<i32>().ok()),
            );
        }
    }
    found
}

/// The process of the tree under `pid` whose executable is called `name`.
pub fn in_tree(pid: i32, name: &str) -> Option<i32> {
    let is_it =
        |pid: &i32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.ends_with(name));
    tree(pid).into_iter().find(is_it)
}

/// The number of descriptors and threads of a living process.
pub fn descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}
