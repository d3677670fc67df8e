//! Options of tmem, from flags, the environment and a TOML file.
//!
//! Each place gives a [`Partial`]; [`Partial::or`] lays one over another (flag
//! over environment over file) and [`Partial::finish`] fills in defaults. And what
//! else the programs of tmem share: secrets, random bytes, files that they write, how often
//! to complain, what sanitizers are asked for, what `tmem run` hands over.

mod agent;
mod budget;
mod complaints;
mod error;
mod family;
mod file;
mod memory;
mod options;
mod output;
mod random;
mod sanitizer;
mod secret;
mod server;
mod size;

pub use agent::{AGENT_VARIABLE, AgentAddr};
pub use budget::{MIN_LOCAL, check_local, ram_bytes};
pub use complaints::Complaints;
pub use error::{ConfigError, Invalid};
pub use family::{FAMILY_TOLD, FAMILY_VARIABLE, Handed, family_from_env};
pub use memory::Memory;
pub use options::{Evict, Level, Options, PagePath, Partial, When};
pub use output::{OutputFile, check_output, write_file};
pub use random::random;
pub use sanitizer::{behind_others, looks_for_leaks};
pub use secret::{MIN_SECRET, check_secret, new_secret, read_secret, write_secret};
pub use server::{SERVER_ALLOWED, Scheme, ServerAddr, parse_servers};
pub use size::{SIZE_ALLOWED, Size, parse_size};
