//! Sessions: which there are, and until when.

mod children;
mod ending;
mod joining;
mod table;
#[cfg(test)]
mod tests;

use super::bitmap::Bitmap;
use super::files::Files;
use super::pool::Pool;
use super::session::{Session, Slabs, Tables};
use super::slab::Slab;
use crate::client::Client;
use crate::store::name::SessionName;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use table::{Inner, Slot};
use tmem_wire::PAGE_SIZE;

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

    /// Those that the pool's files tell of.
    pub(crate) fn taken_up(pool: Arc<Pool>, limits: Limits, now: Instant) -> Sessions {
        let files = pool.files().cloned();
        let sessions = Sessions::new(pool, limits);
        if let Some(files) = files {
            sessions.restore(&files, now);
        }
        sessions
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
    pub(crate) fn has(&self, id: SessionName) -> bool {
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
    fn new_session(&self, inner: &mut Inner, id: SessionName, client: Client) -> Arc<Session> {
        let share = inner.clients.entry(client).or_default();
        share.sessions += 1;
        let tables = Tables {
            all: self.tables.clone(),
            own: share.tables.clone(),
            pages: share.pages.clone(),
        };
        Arc::new(Session::new(id, tables, self.pool.clone()))
    }

    /// Takes up the sessions that the pool's files tell of. They have the grace to be joined
    /// again.
    fn restore(&self, files: &Files, now: Instant) {
        let state = files.table().state().clone();
        let mut owners: BTreeMap<u32, Vec<(SessionName, u32, u32)>> = BTreeMap::new();
        for (name, kept) in &state.sessions {
            for (number, (slab, bits)) in &kept.slabs {
                owners
                    .entry(*slab)
                    .or_default()
                    .push((*name, *number, *bits));
            }
        }
        let mut inner = self.lock();
        let mut slabs: BTreeMap<SessionName, Vec<(u32, Slab)>> = BTreeMap::new();
        for (slab, owners) in owners {
            let bits = |(_, _, bits): &(_, _, u32)| {
                Bitmap::in_file(self.pool.slab_pages(), files.bits.restore(*bits))
            };
            let of = owners
                .first()
                .and_then(|owner| state.sessions.get(&owner.0));
            let account = of.map(|kept| inner.clients.entry(kept.client).or_default());
            let account = account.map(|share| share.pages.clone()).unwrap_or_default();
            let bits = owners.iter().map(bits).collect();
            let owned = Slab::restored(&self.pool, slab, &account, bits);
            for ((name, number, _), slab) in owners.into_iter().zip(owned) {
                slabs.entry(name).or_default().push((number, slab));
            }
        }
        let deadline = now + self.limits.grace;
        for (name, kept) in &state.sessions {
            let session = self.new_session(&mut inner, *name, kept.client);
            let own = slabs.remove(name).unwrap_or_default();
            session.fill(Slabs::of(kept.next, own.into_iter()));
            let parent = kept.parent.filter(|p| state.sessions.contains_key(p));
            let slot = Slot {
                deadline: parent.is_none().then_some(deadline),
                parent,
                ..Slot::new(session, kept.client)
            };
            inner.slots.insert(*name, slot);
        }
        for (name, kept) in &state.sessions {
            if let Some(parent) = kept.parent.and_then(|p| inner.slots.get_mut(&p)) {
                parent.children.insert(*name);
            }
        }
        inner.look = (!inner.slots.is_empty()).then_some(deadline);
        self.due.notify_all();
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
