//! Why something about pages was not done.

use crate::sys::errno::Words;
use crate::sys::say;
use crate::sys::uffd::Transfer;
use alloc::format;
use rustix::io::Errno;

/// Why something cannot be done yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// Something must be read from the userfaultfd before.
    Event,
    /// There is no memory for it before some has been written to servers.
    Memory,
}

/// Why pages could not be put into the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// An event has to be read first.
    Again,
    /// A page is there already.
    Present,
    /// Nothing is mapped there any more, or nothing of this engine's.
    Gone,
}

/// Which pages a move has moved. To go on without knowing could be to lose
/// them.
pub(crate) fn sure(moved: Result<Transfer, Errno>) -> Transfer {
    moved.unwrap_or_else(|error| {
        say::die(&format!(
            "it cannot be told where pages of the program are, because \
             /proc/self/pagemap cannot be read ({}); the program is ended before it reads \
             wrong data",
            Words(error)
        ))
    })
}
