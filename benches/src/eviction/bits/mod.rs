//! Policies that see every use, by accessed bits or more. A pager in user space cannot have
//! them; they show what that costs.

mod clock;
mod fifo;
mod lru;
mod s3fifo;
mod sieve;

pub use clock::Clock;
pub use fifo::Fifo;
pub use lru::Lru;
pub use s3fifo::S3Fifo;
pub use sieve::Sieve;
