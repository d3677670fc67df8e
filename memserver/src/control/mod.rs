//! What an operator sees of the daemon: metrics and health over HTTP, and its log.
//!
//! None of it is on the way of a page: metrics are counted by the server anyway, and read here
//! when somebody asks.

pub(crate) mod log;
pub(crate) mod metrics;
