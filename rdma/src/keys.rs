//! What is known of where slabs lie on the server.

use std::collections::HashMap;
use tmem_wire::{PAGE_SIZE, SlabKey};

/// Keys by slab, and by whether they let write.
#[derive(Debug, Default)]
pub(crate) struct Keys(HashMap<(u32, bool), SlabKey>);

/// A place in the server's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Remote {
    pub(crate) address: u64,
    pub(crate) key: u32,
}

impl Keys {
    /// Where a page lies, if that is known.
    pub(crate) fn find(&self, slab: u32, page: u32, write: bool) -> Option<Remote> {
        let slab = self.0.get(&(slab, write))?;
        Some(Remote {
            // What a server says that lies is refused by its own device.
            address: slab
                .address
                .wrapping_add(u64::from(page) * PAGE_SIZE as u64),
            key: slab.key,
        })
    }

    /// The server has said where a slab lies.
    pub(crate) fn learn(&mut self, slab: u32, write: bool, key: SlabKey) {
        self.0.insert((slab, write), key);
    }

    /// Slabs are given back.
    pub(crate) fn forget(&mut self, slabs: &[u32]) {
        for slab in slabs {
            self.0.remove(&(*slab, false));
            self.0.remove(&(*slab, true));
        }
    }

    /// A child shares all slabs: the server has revoked what lets write.
    pub(crate) fn shared(&mut self) {
        self.0.retain(|(_, write), _| !write);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
