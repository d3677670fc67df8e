//! The keys and addresses of slabs in the server's memory.

use std::collections::HashMap;
use tmem_wire::{PAGE_SIZE, SlabKey, Status};

/// After this many failures in a row, the server is asked for no more keys.
const TRIES: u8 = 3;

/// Keys by slab and by access.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    known: HashMap<(u32, bool), SlabKey>,
    /// Failures of the server in a row.
    failures: u8,
}

/// The meaning of an answer to KEYS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The key is known now.
    Known,
    /// The server failed. Another request may succeed.
    AskAgain,
    /// The server cannot give devices access to its memory.
    Unreachable,
    /// The request that needs the key is refused.
    Refused(Status),
}

/// A place in the server's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Remote {
    pub(crate) address: u64,
    pub(crate) key: u32,
}

impl Keys {
    /// The place of a page, if it is known.
    pub(crate) fn find(&self, slab: u32, page: u32, write: bool) -> Option<Remote> {
        let slab = self.known.get(&(slab, write))?;
        Some(Remote {
            // If a server lies, its own device refuses the access.
            address: slab
                .address
                .wrapping_add(u64::from(page) * PAGE_SIZE as u64),
            key: slab.key,
        })
    }

    /// Takes the answer to KEYS for the slab and the access in `asked`.
    pub(crate) fn answered(
        &mut self,
        asked: Option<(u32, bool)>,
        status: Status,
        body: &[u8],
    ) -> Answer {
        match (status, asked, SlabKey::decode(body)) {
            (Status::Ok, Some((slab, write)), Ok(key)) if key.write || !write => {
                self.learn(slab, write, key);
                self.failures = 0;
                Answer::Known
            }
            (Status::Internal, ..) if self.failures < TRIES => {
                self.failures += 1;
                Answer::AskAgain
            }
            (Status::Ok | Status::Full | Status::Internal, ..) => Answer::Unreachable,
            (status, ..) => Answer::Refused(status),
        }
    }

    /// Notes the place of a slab.
    fn learn(&mut self, slab: u32, write: bool, key: SlabKey) {
        self.known.insert((slab, write), key);
    }

    /// Forgets slabs that are given back.
    pub(crate) fn forget(&mut self, slabs: &[u32]) {
        for slab in slabs {
            self.known.remove(&(*slab, false));
            self.known.remove(&(*slab, true));
        }
    }

    /// A child shares all slabs: the server has revoked all keys for writing.
    pub(crate) fn shared(&mut self) {
        self.known.retain(|(_, write), _| !write);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_fails_once_is_asked_again_and_one_that_keeps_failing_is_not() {
        let asked = Some((7, true));
        let key = SlabKey {
            address: 1 << 20,
            key: 3,
            write: true,
        };
        let mut keys = Keys::default();
        let fails = |keys: &mut Keys| keys.answered(asked, Status::Internal, b"");
        for _ in 0..2 {
            for _ in 0..TRIES {
                assert_eq!(fails(&mut keys), Answer::AskAgain);
            }
            let known = keys.answered(asked, Status::Ok, &key.encode());
            assert_eq!(known, Answer::Known);
        }
        assert!(keys.find(7, 0, true).is_some());
        for _ in 0..TRIES {
            fails(&mut keys);
        }
        assert_eq!(fails(&mut keys), Answer::Unreachable);
        let refused = keys.answered(asked, Status::Shared, b"");
        assert_eq!(refused, Answer::Refused(Status::Shared));
        let full = keys.answered(asked, Status::Full, b"");
        assert_eq!(full, Answer::Unreachable);
    }

    #[test]
    fn keys_are_found_by_what_they_allow_until_they_are_void() {
        let key = |key| SlabKey {
            address: 1 << 20,
            key,
            write: key > 9,
        };
        let mut keys = Keys::default();
        keys.learn(1, false, key(5));
        keys.learn(1, true, key(10));
        keys.learn(2, true, key(11));
        let at = |address, key| Some(Remote { address, key });
        assert_eq!(keys.find(1, 2, false), at((1 << 20) + 8192, 5));
        assert_eq!(keys.find(1, 0, true), at(1 << 20, 10));
        assert_eq!(keys.find(2, 0, false), None);
        keys.shared();
        assert_eq!(keys.find(1, 0, true), None);
        assert_eq!(keys.find(1, 0, false), at(1 << 20, 5));
        keys.forget(&[1]);
        assert_eq!(keys.find(1, 0, false), None);
    }
}
