//! The keys to a slab that clients have for one-sided access.
//!
//! A key belongs to a session's hold on a slab and to the connection that asked
//! for it, and ends with either. What a device may reach is pinned: the kernel
//! would replace a page that is given back, and the device would go on with the
//! old one. So a slab counts its pins, and gives nothing back while it has any.

use std::any::Any;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tmem_wire::{SlabKey, Status};

/// Memory that a device may reach until this is dropped.
pub(crate) type Region = Box<dyn Any + Send + Sync>;

/// The keys to one session's hold on a slab; `P` pins the slab's memory.
#[derive(Debug)]
pub(crate) struct Keys<P>(Mutex<Inner<P>>);

/// The keys that there are.
#[derive(Debug)]
pub(super) struct Inner<P> {
    /// The slab was released: whoever still finds it gets no key.
    ended: bool,
    held: Vec<Held<P>>,
}

/// A key; its fields end in the order in which they are written.
struct Held<P> {
    connection: u64,
    answer: SlabKey,
    _region: Region,
    _pin: P,
}

impl<P> fmt::Debug for Held<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held")
            .field("connection", &self.connection)
            .field("answer", &self.answer)
            .finish_non_exhaustive()
    }
}

impl<P> Default for Keys<P> {
    fn default() -> Keys<P> {
        Keys(Mutex::new(Inner {
            ended: false,
            held: Vec::new(),
        }))
    }
}

impl<P> Keys<P> {
    /// The keys that there are; none is made or ended meanwhile.
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner<P>> {
        // Any state of it is valid.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends all, and allows no more.
    pub(crate) fn end(&self) {
        let mut inner = self.lock();
        inner.ended = true;
        inner.held.clear();
    }
}

impl<P> Inner<P> {
    /// The connection's key for an access, if it has one.
    ///
    /// # Errors
    /// The slab was released.
    pub(super) fn find(&self, connection: u64, write: bool) -> Result<Option<SlabKey>, Status> {
        if self.ended {
            return Err(Status::NoSuchSlab);
        }
        let is_its = |h: &&Held<P>| h.connection == connection && h.answer.write == write;
        Ok(self.held.iter().find(is_its).map(|held| held.answer))
    }

    /// Adds a key of a connection to a region of pinned memory.
    pub(super) fn add(&mut self, connection: u64, answer: SlabKey, region: Region, pin: P) {
        self.held.push(Held {
            connection,
            answer,
            _region: region,
            _pin: pin,
        });
    }

    /// Ends the keys for writing.
    pub(super) fn end_for_writing(&mut self) {
        self.held.retain(|h| !h.answer.write);
    }

    /// Ends the keys of a connection.
    pub(super) fn end_of(&mut self, connection: u64) {
        self.held.retain(|h| h.connection != connection);
    }
}
