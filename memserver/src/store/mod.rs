//! What clients store: slabs of page memory, and the sessions that own them.

pub(crate) mod bitmap;
pub(crate) mod files;
pub(crate) mod keys;
pub(crate) mod map;
pub(crate) mod name;
pub(crate) mod pool;
pub(crate) mod session;
pub(crate) mod sessions;
pub(crate) mod slab;
pub(crate) mod slab_keys;
