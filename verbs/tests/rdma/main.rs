//! Two ends on one machine that has an RDMA device:
//!
//!     cargo test -p tmem-verbs --no-run
//!     scripts/rdma-vm target/debug/deps ./rdma-… --ignored
//!
//! (with the name that cargo prints).

#![expect(clippy::unwrap_used, reason = "tests")]

mod common;
mod connecting;
mod keys;
mod working;
