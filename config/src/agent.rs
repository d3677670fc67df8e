//! The address of the agent, which speaks RDMA for programs under tmem.

use crate::{ConfigError, Invalid};
use std::fmt;
use std::str::FromStr;

/// The variable that holds this address.
pub const AGENT_VARIABLE: &str = "TMEM_AGENT";

const ALLOWED: &str = "what `tmem agent` prints";

/// A socket in the abstract namespace, of an agent or of `tmem run`, and the token that gives
/// access to it.
#[derive(Clone, PartialEq, Eq)]
pub struct AgentAddr {
    /// The socket's name.
    pub name: String,
    /// The token, which is a secret.
    pub token: [u8; 16],
}

impl fmt::Debug for AgentAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The token is a secret.
        write!(f, "agent {}", self.name)
    }
}

impl AgentAddr {
    /// The address in the environment. An empty variable counts as unset.
    ///
    /// # Errors
    /// [`ConfigError::Variable`] if the variable has another value.
    pub fn from_env() -> Result<Option<AgentAddr>, ConfigError> {
        let value = std::env::var_os(AGENT_VARIABLE).filter(|v| !v.is_empty());
        let Some(value) = value else { return Ok(None) };
        let read = value.to_string_lossy().parse();
        read.map(Some).map_err(|invalid| ConfigError::Variable {
            variable: AGENT_VARIABLE,
            invalid,
        })
    }
}

/// Writes a form that parses as the same agent.
impl fmt::Display for AgentAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.name)?;
        self.token.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl FromStr for AgentAddr {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<AgentAddr, Invalid> {
        let invalid = || Invalid::new(text, "names no agent", ALLOWED);
        let (name, hex) = text.split_once(':').ok_or_else(invalid)?;
        let named = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let digits = hex.len() == 32 && hex.bytes().all(|b| b.is_ascii_hexdigit());
        if name.is_empty() || name.len() > 64 || !name.chars().all(named) || !digits {
            return Err(invalid());
        }
        let token = u128::from_str_radix(hex, 16).map_err(|_| invalid())?;
        Ok(AgentAddr {
            name: name.to_owned(),
            token: token.to_be_bytes(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_reads_back(name in "[a-z0-9-]{1,64}", token: [u8; 16]) {
            let agent = AgentAddr { name, token };
            prop_assert_eq!(agent.to_string().parse(), Ok(agent));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,60}") {
            let _ = text.parse::<AgentAddr>();
        }
    }

    #[test]
    fn other_things_are_refused_with_a_word_on_what_is_allowed() {
        for text in [
            "",
            "a",
            "a:12",
            ":00112233445566778899aabbccddeeff",
            "a:+0112233445566778899aabbccddeeff",
        ] {
            let message = text.parse::<AgentAddr>().unwrap_err().to_string();
            assert_eq!(
                message,
                format!("`{text}` names no agent; allowed: {ALLOWED}")
            );
        }
    }
}
