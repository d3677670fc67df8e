//! The memory server as its clients and its machine see it.
#![expect(
    clippy::unwrap_used,
    reason = "all of it is tests, whose helpers the lint does not know as such"
)]

mod client;
mod daemon;
mod drain;
mod greeting;
mod hostile;
mod limits;
mod metrics;
mod model;
mod open_files;
mod pages;
mod restart;
mod sessions;
mod takeover;
