//! The local budget as users give it: a size, or one that follows the machine.

use std::fmt;
use std::str::FromStr;

use crate::{Invalid, Size, parse_size};

/// What a budget may look like, for messages.
pub(crate) const LOCAL_ALLOWED: &str = "bytes; a number with K, M, G or T, powers of 1024 (512M, \
     2G, 1.5GiB); a percentage of the memory (50%); or auto";

/// A local budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Local {
    /// As much as the machine has to spare, while the program runs.
    Auto,
    /// So much.
    Size(Size),
}

impl fmt::Display for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Local::Auto => f.write_str("auto"),
            Local::Size(size) => size.fmt(f),
        }
    }
}

impl FromStr for Local {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Local, Invalid> {
        if text.trim() == "auto" {
            return Ok(Local::Auto);
        }
        let size = parse_size(text).map(Local::Size);
        size.map_err(|invalid| Invalid {
            allowed: LOCAL_ALLOWED.into(),
            ..invalid
        })
    }
}
