//! A helper process that works on this process's memory.
//!
//! A stop (SIGSTOP, Ctrl-Z) reaches every thread of a process, and the parent is told only
//! when all of them have stopped. So a task that may have to wait in the kernel for another
//! thread of the same process must not be one of these threads.

use super::mem::Region;
use super::thread;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions};

/// A helper process, a child of the calling thread.
#[derive(Debug)]
pub struct Helper(Pid);

impl Helper {
    /// Starts a process on `stack` that runs `entry(arg)`, with the calling thread's file
    /// descriptors. All signals are blocked in it, as they must be in the calling thread.
    ///
    /// # Errors
    /// Those of the kernel.
    ///
    /// # Safety
    /// As for [`thread::spawn`].
    pub unsafe fn spawn(
        stack: Region,
        entry: unsafe extern "C" fn(*mut u8) -> !,
        arg: *mut u8,
    ) -> Result<Helper, Errno> {
        // SAFETY: the caller's promise is the same.
        let pid = unsafe { thread::spawn_process(stack, entry, arg)? };
        Pid::from_raw(pid).map(Helper).ok_or(Errno::SRCH)
    }

    /// Starts such a process with a copy of the calling thread's file table.
    ///
    /// # Errors
    /// Those of the kernel.
    ///
    /// # Safety
    /// As for [`thread::spawn`].
    pub unsafe fn spawn_apart(
        stack: Region,
        entry: unsafe extern "C" fn(*mut u8) -> !,
        arg: *mut u8,
    ) -> Result<Helper, Errno> {
        // SAFETY: the caller's promise is the same.
        let pid = unsafe { thread::spawn_apart(stack, entry, arg)? };
        Pid::from_raw(pid).map(Helper).ok_or(Errno::SRCH)
    }

    /// Kills the process.
    pub fn kill(self) {
        // The process exists until it is reaped, and its parent may kill it.
        let _ = rustix::process::kill_process(self.0, Signal::KILL);
        self.join();
    }

    /// Its thread number.
    pub fn id(&self) -> u32 {
        self.0.as_raw_nonzero().get() as u32
    }

    /// Tells whether it has ended. Once this returns true, the process is reaped.
    pub fn is_gone(&self) -> bool {
        wait(self.0, WaitOptions::NOHANG)
    }

    /// Waits until it has ended.
    pub fn join(self) {
        while !wait(self.0, WaitOptions::empty()) {}
    }
}

/// Tells whether the process has ended.
fn wait(pid: Pid, how: WaitOptions) -> bool {
    /// Includes children that send no signal at their end (`__WCLONE`).
    const CLONE: WaitOptions = WaitOptions::from_bits_retain(0x8000_0000);
    // Without such a child, the program itself has reaped it.
    !matches!(
        rustix::process::waitpid(Some(pid), how | CLONE),
        Ok(None) | Err(Errno::INTR)
    )
}

/// The thread that starts a helper.
#[derive(Clone, Copy, Debug)]
pub struct Starter {
    /// Its process.
    pub process: u32,
    /// Its thread number.
    pub thread: u32,
}

impl Starter {
    /// Returns the calling thread.
    pub fn this() -> Starter {
        Starter {
            process: thread::leader(),
            thread: thread::id(),
        }
    }

    /// Tells whether the starter, whose child the calling process is, has ended. It ends
    /// with its process, or alone at an `execve`.
    pub fn is_gone(self) -> bool {
        // The parent is exact, but does not show an `execve`, nor a parent in another PID
        // namespace.
        let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get() as u32);
        parent.is_some_and(|parent| parent != self.process)
            || !thread::is_there(self.process, self.thread)
    }
}

/// Prepares the helper process itself: it ends with the thread that has started it, and
/// gets no signals that are sent to the program's process group.
pub fn begin(starter: Starter) {
    // The kernel refuses neither of these here.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    // A starter that has ended already will send no signal.
    if starter.is_gone() {
        thread::exit();
    }
    // Not a new session: the kernel may divide the CPU between sessions (autogroup), and
    // the engine yields to this process only within its own session.
    let _ = rustix::process::setpgid(None, None);
    let _ = rustix::thread::set_name(c"tmem-zap");
}

#[cfg(test)]
mod tests;
