//! Hears of forks that nobody has told of: by a system call instruction of the
//! program's own, past the C library.
//!
//! Such a child has none of the memory that is adopted (see `fork`), and ends by
//! SIGSEGV when it touches some. So that its user learns why, a page that *is*
//! copied by such forks is registered with a userfaultfd that reports them, where
//! the user has CAP_SYS_PTRACE, which the kernel wants for that. While a fork is
//! made as it should be, the page is not copied either, and nothing is reported.
//!
//! The thread that forks goes on when the report has been read. It holds nothing
//! that the engine could wait for. The child has no number yet at that time, so
//! that the message names its parent.

use crate::engine::kernel::Kernel;
use crate::sys::fd::Fd;
use crate::sys::mem::{self, Region};
use crate::sys::uffd::{Msg, REGISTER_MISSING, RawMsg, Uffd};
use crate::sys::{program, say};
use alloc::format;
use rustix::fd::FromRawFd;
use rustix::io::Errno;
use tmem_wire::PAGE_SIZE;

/// The page, and who reports that it is copied; nothing where that is not
/// permitted.
#[derive(Debug, Default)]
pub(crate) struct ForkDetector {
    hung: Option<(Uffd, Region)>,
    tried: bool,
    heard: bool,
}

impl ForkDetector {
    /// Reports forks, if it may.
    fn hang(&mut self, kernel: &dyn Kernel) {
        if !core::mem::replace(&mut self.tried, true) {
            self.hung = made(kernel).ok();
        }
    }

    /// Has forks reported, or not.
    pub(crate) fn set(&self, on: bool) {
        if let Some((_, page)) = &self.hung {
            // At the worst a fork is reported that is as it should be.
            let _ = mem::copied_by_forks(page.start, page.len, on);
        }
    }

    /// Readable when there is a report.
    pub(crate) fn raw(&self) -> Option<i32> {
        self.hung.as_ref().map(|(uffd, _)| uffd.raw())
    }

    /// The page's memory.
    pub(crate) fn region(&self) -> Option<Region> {
        self.hung.as_ref().map(|(_, page)| *page)
    }

    /// Reads all reports; whether there was one.
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
                // SAFETY: the kernel has made this descriptor for the message,
                // in this thread's file table, and nobody else knows of it.
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
    /// Has forks reported from now on, if that is permitted, but none that is
    /// being made as it should be, as one `is_prepared`.
    pub(crate) fn watch(&mut self, kernel: &dyn Kernel, is_prepared: bool) {
        self.hang(kernel);
        self.set(!is_prepared);
    }

    /// Lets threads go on that have forked, and says so the first time.
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
