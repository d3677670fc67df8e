//! Reasons why an operation on pages was not done.

use crate::sys::errno::Words;
use crate::sys::say;
use crate::sys::uffd::Transfer;
use alloc::format;
use rustix::io::Errno;

/// Why something cannot be done yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// A message must be read from the userfaultfd first.
    Event,
    /// Memory is short until pages were written to servers.
    Memory,
}

/// Why pages could not be installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// An event has to be read first.
    Again,
    /// A page is present already.
    Present,
    /// The memory is not mapped any more, or not registered.
    Gone,
}

/// Returns which pages a move has moved. Ends the program if that is unknown, since going
/// on could lose pages.
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
