//! Metrics for Prometheus and health checks, over HTTP: of a memory server, and of the programs
//! under a `tmem run`.
//!
//! Nothing is on the way of a page: a [`Source`] is asked when somebody scrapes, in a thread of
//! its own, for what was counted anyway.

mod figures;
mod http;

pub use figures::{Figures, Histogram, Source, render};
pub use http::Endpoint;
pub use prometheus_client::registry::Unit;
