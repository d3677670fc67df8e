//! The fork detector: notices forks that bypass the C library, by a system call instruction
//! of the program's own.
//!
//! The child of such a fork has none of the adopted memory (see `fork`), and ends by
//! SIGSEGV when it touches some. To explain this to the user, the engine registers one page
//! that such a fork *does* copy with a userfaultfd that reports forks. The kernel requires
//! CAP_SYS_PTRACE for that. During a regular fork the page is not copied, so nothing is
//! reported.
//!
//! The thread that forks goes on when the event was read, and holds nothing that the engine
//! could wait for. At that time the child has no process number, so the message names its
//! parent.

use crate::engine::kernel::Kernel;
use crate::sys::fd::Fd;
use crate::sys::mem::{self, Region};
use crate::sys::uffd::{Msg, REGISTER_MISSING, RawMsg, Uffd};
use crate::sys::{program, say};
use alloc::format;
use rustix::fd::FromRawFd;
use rustix::io::Errno;
use tmem_wire::PAGE_SIZE;

/// The page, and the userfaultfd that reports its copies. `None` without the permission.
#[derive(Debug, Default)]
pub(crate) struct ForkDetector {
    hung: Option<(Uffd, Region)>,
    tried: bool,
    heard: bool,
}

impl ForkDetector {
    /// Registers the page, if that is permitted.
    fn hang(&mut self, kernel: &dyn Kernel) {
        if !core::mem::replace(&mut self.tried, true) {
            self.hung = made(kernel).ok();
        }
    }

    /// Switches the detector on or off.
    pub(crate) fn set(&self, on: bool) {
        if let Some((_, page)) = &self.hung {
            // In the worst case a regular fork is reported.
            let _ = mem::copied_by_forks(page.start, page.len, on);
        }
    }

    /// Returns a file descriptor that is readable when a fork is reported.
    pub(crate) fn raw(&self) -> Option<i32> {
        self.hung.as_ref().map(|(uffd, _)| uffd.raw())
    }

    /// Returns the page's memory, which is never paged.
    pub(crate) fn region(&self) -> Option<Region> {
        self.hung.as_ref().map(|(_, page)| *page)
    }

    /// Reads all events. Returns whether there was a fork.
    fn read(&self) -> bool {
        let Some((uffd, _)) = &self.hung else {
            return false;
        };
        let (mut msgs, mut forks) = ([RawMsg::default()], false);
        loop {
            match uffd.read(&mut msgs) {
                Ok(1) => {}
                Err(Errno::INTR) => continue,
                _ => return forks,
            }
            if let Msg::Fork { fd } = msgs[0].decode() {
                // SAFETY: the kernel has created this file descriptor for the event, in
                // this thread's file table. Nothing else knows of it.
                drop(unsafe { Fd::from_raw_fd(fd) });
                forks = true;
            }
        }
    }
}

fn made(kernel: &dyn Kernel) -> Result<(Uffd, Region), crate::sys::uffd::OpenError> {
    use crate::sys::uffd::OpenError::Other;
    let uffd = kernel.open_for_forks()?;
    let page = Region::inherited(PAGE_SIZE).map_err(Other)?;
    match uffd.register(page.start, page.len, REGISTER_MISSING) {
        Ok(()) => Ok((uffd, page)),
        Err(error) => {
            page.unmap();
            Err(Other(error))
        }
    }
}

impl ForkDetector {
    /// Watches for forks from now on, if that is permitted. `is_prepared` says that a
    /// regular fork is under way.
    pub(crate) fn watch(&mut self, kernel: &dyn Kernel, is_prepared: bool) {
        self.hang(kernel);
        self.set(!is_prepared);
    }

    /// Lets threads go on that have forked, and reports the first fork.
    pub(crate) fn hear(&mut self) {
        if self.read() && !core::mem::replace(&mut self.heard, true) {
            let parent = program::id();
            say::line(&format!(
                "process {parent} forks by a system call of its own, past the C library: the \
                 child has none of the memory that is paged, and ends by SIGSEGV if it touches \
                 some"
            ));
        }
    }
}
