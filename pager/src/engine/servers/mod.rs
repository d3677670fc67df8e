//! What servers grant, answer and fail to do.

pub(crate) mod completions;
pub(crate) mod errors;
pub(crate) mod grants;
pub(crate) mod rediscovery;
pub(crate) mod requests;
pub(crate) mod thaw;
