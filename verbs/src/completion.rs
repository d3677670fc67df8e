//! How work ended.

use thiserror::Error;

/// A receive or a work that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The id that it was posted with.
    pub id: u64,
    /// What it was.
    pub kind: Kind,
    /// How it ended. After the first error the connection is broken: everything that is still
    /// under way is flushed.
    pub status: Result<(), Status>,
}

/// What ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A receive, with its length in bytes; 0 if it failed.
    Receive(u32),
    /// A work: a send, read or write.
    Work,
}

/// Why a work or receive failed. The connection is then broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Status {
    /// A message that is longer than the receive, or more than can be sent.
    #[error("the message does not fit")]
    LocalLength,
    /// Local memory that is not registered, or not for this access.
    #[error("local memory is not registered for that")]
    LocalProtection,
    /// Not carried out: the connection ended or broke before.
    #[error("flushed: the connection has ended")]
    Flushed,
    /// The other end sent an invalid answer.
    #[error("a bad response")]
    BadResponse,
    /// The other end could not take it, for instance a message that does not fit.
    #[error("an invalid request, says the other end")]
    RemoteInvalidRequest,
    /// The other end's memory does not allow this access, or the key is invalid.
    #[error("the other end's memory may not be used so")]
    RemoteAccess,
    /// The other end failed.
    #[error("the other end failed")]
    RemoteOperation,
    /// No answer, after all retries.
    #[error("the other end does not answer")]
    RetryExceeded,
    /// The other end posted no receive.
    #[error("the other end has posted no receive")]
    ReceiverNotReady,
    /// Anything else, by its number in libibverbs.
    #[error("completion status {0}")]
    Other(u32),
}

impl Status {
    /// From libibverbs' number, `ibv_wc_status`.
    pub(crate) fn from_c(status: u32) -> Result<(), Status> {
        Err(match status {
            0 => return Ok(()),
            1 => Status::LocalLength,
            4 => Status::LocalProtection,
            5 => Status::Flushed,
            7 => Status::BadResponse,
            9 => Status::RemoteInvalidRequest,
            10 => Status::RemoteAccess,
            11 => Status::RemoteOperation,
            12 => Status::RetryExceeded,
            13 => Status::ReceiverNotReady,
            other => Status::Other(other),
        })
    }
}
