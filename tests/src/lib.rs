//! What the end-to-end tests stand on: the built artefacts, small C programs,
//! memory servers good and bad, and runs of programs with and without tmem.
//!
//! Everything here panics with a message when the machine lacks something: a
//! harness has nobody to return an error to but the test.

pub mod anybody;
pub mod artefacts;
pub mod catalogue;
pub mod cc;
pub mod cgroup;
pub mod compare;
mod dump;
pub mod fake;
pub mod filled;
pub mod inputs;
mod lock;
pub mod memserver;
pub mod process;
pub mod proxy;
pub mod redis;
pub mod run;
pub mod running;
pub mod scale;
pub mod scrape;
pub mod software;
pub mod stats;

pub use memserver::MemServer;
pub use proxy::Proxy;
pub use run::{PagePath, Run};
pub use running::{Outcome, Running};
pub use stats::Stats;

/// Bytes of a MiB.
pub const MIB: u64 = 1 << 20;
