//! Options of tmem, from flags, the environment and a TOML file.
//!
//! Each option is declared once, in `options`. Flags, environment and file each give a
//! [`Layer`]. [`Layer::or`] puts one over another (flags over environment over file), and
//! [`Layer::finish`] fills in the defaults.
//!
//! The crate also contains what else the programs of tmem share: secrets, random bytes, output
//! files, a limit on repeated warnings, the options of sanitizers, and what `tmem run` hands
//! over.

mod agent;
mod budget;
mod complaints;
mod debugger;
mod error;
mod family;
mod local;
mod markdown;
mod memory;
mod options;
mod output;
mod random;
mod sanitizer;
mod secret;
mod server;
mod size;
mod task;
mod tasks;

pub use agent::{AGENT_VARIABLE, AgentAddr};
pub use budget::{MIN_LOCAL, available_bytes, check_local, ram_bytes};
pub use complaints::Complaints;
pub use debugger::DEBUGGER_VARIABLE;
pub use error::{ConfigError, Invalid};
pub use family::{FAMILY_TOLD, FAMILY_VARIABLE, Handed, family_from_env};
pub use local::Local;
pub use markdown::{options_markdown, replace_generated};
pub use memory::Memory;
pub use options::{
    AutoMode, Declaration, Evict, Group, Layer, Level, OPTIONS, OnLoss, Options, PagePath,
    Redundancy,
};
pub use output::{OutputFile, check_output, is_written_directly, write_file};
pub use random::random;
pub use sanitizer::{behind_others, looks_for_leaks};
pub use secret::{MIN_SECRET, check_secret, new_secret, read_secret, write_secret};
pub use server::{SERVER_ALLOWED, Scheme, ServerAddr, parse_servers};
pub use size::{SIZE_ALLOWED, Size, parse_size};
pub use task::wants_thread;
pub use tasks::most_tasks;
