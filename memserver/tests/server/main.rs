//! The memory server as its clients and its machine see it.
#![expect(
    clippy::unwrap_used,
    reason = "all of it is tests, whose helpers the lint does not know as such"
)]

mod client;
mod daemon;
mod hostile;
mod limits;
mod metrics;
mod model;
mod pages;
mod sessions;
