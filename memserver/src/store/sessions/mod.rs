//! Sessions: which there are, and until when.

mod children;
mod ending;
mod joining;
mod table;
#[cfg(test)]
mod tests;

use super::pool::Pool;
use super::session::{Session, Tables};
use crate::client::Client;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use table::{Inner, Slot};
use tmem_wire::{PAGE_SIZE, SessionId};

/// How often one who waits looks whether what it waits for is gone.
const CHECK: Duration = Duration::from_millis(100);

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseReason {
    /// With a BYE.
    Bye,
    /// The client's system closed it, after a LEAVE.
    Left,
    /// The client's system closed it.
    Closed,
    /// Otherwise.
    Broken,
}

/// What a session is told about its connections.
pub(crate) trait Disconnect: Send + Sync {
    /// Ends the connection soon; it answers by leaving the session.
    fn cut(&self);
    /// Whether the other side is known to be gone.
    fn is_dead(&self) -> bool;
}

/// A connection as a member of a session.
#[derive(Clone)]
pub(crate) struct Member {
    /// Its number, unique in the server.
    pub(crate) key: u64,
    /// The lane its HELLO named; 0 when none.
    pub(crate) lane: u32,
    pub(crate) socket: Arc<dyn Disconnect>,
    /// The last request over it was a LEAVE.
    pub(crate) leaving: Arc<AtomicBool>,
}

/// How many sessions there may be, and how much they may take beside their slabs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Of all clients. A quarter is for children of those that there are.
    pub(crate) sessions: usize,
    /// Of one client, beside as many children as are set aside for all.
    pub(crate) per_client: usize,
    /// Bytes of the tables in which they have slabs.
    pub(crate) tables: u64,
    /// Those of one client.
    pub(crate) tables_per_client: u64,
    pub(crate) grace: Duration,
}

/// All sessions of a server.
pub(crate) struct Sessions {
    inner: Mutex<Inner>,
    /// A connection left, a child was joined, or memory came free.
    changed: Condvar,
    /// A deadline came to be, or a session ended whose memory is to be freed.
    due: Condvar,
    limits: Limits,
    tables: Arc<AtomicU64>,
    pool: Arc<Pool>,
}

impl Sessions {
    /// None yet.
    pub(crate) fn new(pool: Arc<Pool>, limits: Limits) -> Sessions {
        Sessions {
            inner: Mutex::default(),
            changed: Condvar::new(),
            due: Condvar::new(),
            limits,
            tables: Arc::default(),
            pool,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something has changed, or for so long.
    fn wait<'a>(&self, inner: MutexGuard<'a, Inner>, time: Duration) -> MutexGuard<'a, Inner> {
        let waited = self.changed.wait_timeout(inner, time);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// How many there are, and how many connections they have.
    pub(crate) fn count(&self) -> (usize, usize) {
        let inner = self.lock();
        let members = inner.slots.values().map(|s| s.members.len()).sum();
        (inner.slots.len(), members)
    }

    /// Ends the keys of all connections.
    pub(crate) fn end_keys(&self) {
        let inner = self.lock();
        let of = |slot: &Slot| {
            let session = slot.session.clone();
            let connections: Vec<_> = slot.members.iter().map(|m| m.key).collect();
            (session, connections)
        };
        let all: Vec<_> = inner.slots.values().map(of).collect();
        drop(inner);
        for (session, connections) in all {
            connections
                .into_iter()
                .for_each(|key| session.end_keys_of(key));
        }
    }

    /// Whether there is such a session.
    pub(crate) fn has(&self, id: SessionId) -> bool {
        self.lock().slots.contains_key(&id)
    }

    /// Nothing is opened or joined any more.
    pub(crate) fn close(&self) {
        self.pool.close();
        self.lock().closing = true;
        self.changed.notify_all();
        self.due.notify_all();
    }

    /// A session on the account of its client.
    fn new_session(&self, inner: &mut Inner, id: SessionId, client: Client) -> Arc<Session> {
        let share = inner.clients.entry(client).or_default();
        share.sessions += 1;
        let tables = Tables {
            all: self.tables.clone(),
            own: share.tables.clone(),
        };
        Arc::new(Session::new(id, tables, self.pool.clone()))
    }

    /// What slabs are taken from.
    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }
}

/// Bytes of `pages`.
pub(crate) fn bytes(pages: u32) -> usize {
    pages as usize * PAGE_SIZE
}
