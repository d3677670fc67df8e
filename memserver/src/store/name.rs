//! How the server knows a session: not by what its clients show, which is a secret.

use sha2::{Digest, Sha256};
use std::fmt;
use tmem_wire::SessionId;

/// A session's name within the server, derived one way from the [`SessionId`] that its
/// clients show: whoever reads the server's tables cannot join a session by them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SessionName(pub(crate) [u8; 16]);

impl SessionName {
    /// The name of the session that clients show this for.
    pub(crate) fn of(id: SessionId) -> SessionName {
        let mut hash = Sha256::new();
        hash.update(b"tmem session");
        hash.update(id.0);
        let mut name = [0; 16];
        name.copy_from_slice(&hash.finalize()[..16]);
        SessionName(name)
    }
}

impl fmt::Debug for SessionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {:02x}{:02x}…", self.0[0], self.0[1])
    }
}
