//! Whether RDMA can be used at all.

use crate::error::Error;
use crate::library::library;
use crate::manager::Channel;

/// Whether RDMA can be used here; if not, the error says what is missing.
///
/// # Errors
///
/// [`Error::Library`], [`Error::NoDevice`] or [`Error::Manager`].
pub fn available() -> Result<(), Error> {
    Channel::open(library()?).map(drop)
}
