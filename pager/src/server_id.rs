//! The number by which the engine knows a memory server.

use core::fmt;

/// A memory server: its place in the list of servers that the engine was started with.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ServerId(u16);

impl ServerId {
    /// The server at place `number` of the list, from 0.
    pub const fn new(number: u16) -> ServerId {
        ServerId(number)
    }

    /// Every possible server, in order.
    pub fn all() -> impl Iterator<Item = ServerId> {
        (0..=u16::MAX).map(ServerId)
    }

    /// The first `count` servers, in order.
    pub fn first(count: u16) -> impl Iterator<Item = ServerId> {
        (0..count).map(ServerId)
    }

    /// Its place in the list, as a number for messages between processes.
    pub const fn number(self) -> u16 {
        self.0
    }

    /// Its place in the list, as an index.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
