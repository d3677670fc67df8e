//! A process of its own that works on this one's memory.
//!
//! A stop (SIGSTOP, Ctrl-Z) reaches every thread of a process, and is told to its
//! parent only when all of them have stopped. What may have to wait in the kernel for
//! another thread of the same process must not be one of them.

use super::mem::Region;
use super::thread;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions};

/// Such a process, a child of the calling thread's.
#[derive(Debug)]
pub struct Helper(Pid);

impl Helper {
    /// Starts a process on `stack` that runs `entry(arg)`, with the descriptors of the
    /// calling thread and all signals blocked, as they are to be in that.
    ///
    /// # Errors
    /// The kernel's.
    ///
    /// # Safety
    /// As [`thread::spawn`].
    pub unsafe fn spawn(
        stack: Region,
        entry: unsafe extern "C" fn(*mut u8) -> !,
        arg: *mut u8,
    ) -> Result<Helper, Errno> {
        // SAFETY: by the caller.
        let pid = unsafe { thread::spawn_process(stack, entry, arg)? };
        Pid::from_raw(pid).map(Helper).ok_or(Errno::SRCH)
    }

    /// The same with a copy of the calling thread's file table.
    ///
    /// # Errors
    /// The kernel's.
    ///
    /// # Safety
    /// As [`thread::spawn`].
    pub unsafe fn spawn_apart(
        stack: Region,
        entry: unsafe extern "C" fn(*mut u8) -> !,
        arg: *mut u8,
    ) -> Result<Helper, Errno> {
        // SAFETY: by the caller.
        let pid = unsafe { thread::spawn_apart(stack, entry, arg)? };
        Pid::from_raw(pid).map(Helper).ok_or(Errno::SRCH)
    }

    /// Ends it by SIGKILL.
    pub fn kill(self) {
        // It is there until it was waited for, and has the rights of its parent.
        let _ = rustix::process::kill_process(self.0, Signal::KILL);
        self.join();
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.0.as_raw_nonzero().get() as u32
    }

    /// Whether it has ended. Once it says so it is forgotten by the kernel.
    pub fn is_gone(&self) -> bool {
        wait(self.0, WaitOptions::NOHANG)
    }

    /// Waits until it has ended.
    pub fn join(self) {
        while !wait(self.0, WaitOptions::empty()) {}
    }
}

/// Whether the process has ended.
fn wait(pid: Pid, how: WaitOptions) -> bool {
    /// What ends without a signal to its parent (`__WCLONE`).
    const CLONE: WaitOptions = WaitOptions::from_bits_retain(0x8000_0000);
    // Where there is no such child (any more) the program has asked for it.
    !matches!(
        rustix::process::waitpid(Some(pid), how | CLONE),
        Ok(None) | Err(Errno::INTR)
    )
}

/// The thread that starts such a process.
#[derive(Clone, Copy, Debug)]
pub struct Starter {
    /// Its process.
    pub process: u32,
    /// Its number.
    pub thread: u32,
}

impl Starter {
    /// The calling thread.
    pub fn this() -> Starter {
        Starter {
            process: thread::leader(),
            thread: thread::id(),
        }
    }

    /// Whether it has ended, of which the calling process is a child. It ends with its
    /// process, and at an `execve` without it.
    pub fn is_gone(self) -> bool {
        // Exact, but says nothing of an `execve`, nor of a parent that is of another
        // namespace of processes.
        let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get() as u32);
        parent.is_some_and(|parent| parent != self.process)
            || !thread::is_there(self.process, self.thread)
    }
}

/// Called first by the process itself: it ends with the thread that has started it, and
/// no signal to the program's process group reaches it.
pub fn begin(starter: Starter) {
    // Each is refused in no process like this one.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    // Who has ended before sends no signal any more.
    if starter.is_gone() {
        thread::exit();
    }
    // Not a session: the kernel may share processors out among those (autogroup), and
    // who waits for this process, and gives way, does so within its own.
    let _ = rustix::process::setpgid(None, None);
    let _ = rustix::thread::set_name(c"tmem-zap");
}

#[cfg(test)]
mod tests;
