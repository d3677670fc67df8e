//! Checks whether RDMA can be used.

use crate::error::Error;
use crate::library::library;
use crate::manager::Channel;

/// Checks whether RDMA can be used on this machine. The error says what is missing.
///
/// # Errors
///
/// [`Error::Library`], [`Error::NoDevice`] or [`Error::Manager`].
pub fn available() -> Result<(), Error> {
    Channel::open(library()?).map(drop)
}
