//! Pages that come back from servers.

pub(crate) mod indirect;
pub(crate) mod read;
