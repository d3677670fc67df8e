//! Sessions: who owns which slabs, and until when.

use crate::memory::{Pool, Slab};
use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tmem_wire::{MAX_CONTROL, PAGE_SIZE, SessionId, Status};

/// The most slabs one GRANT gives: what its reply can list.
const MAX_GRANT: u32 = MAX_CONTROL / 4;

/// Children of one session that nobody has joined yet.
const MAX_UNJOINED: usize = 64;

/// How often a join looks whether the connection that it replaces is gone.
const JOIN_CHECK: Duration = Duration::from_millis(100);

/// How long a session outlives its last connection when the client's system
/// closed that: as it does at the client's end. What breaks on the way is
/// mostly not closed, and a client that lost a connection is back at once.
const CLOSED: Duration = Duration::from_secs(2);

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// With a BYE.
    Bye,
    /// The client's system closed it.
    Closed,
    /// Otherwise.
    Broken,
}

/// What a session is told about its connections.
pub(crate) trait Cut: Send + Sync {
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
    pub(crate) link: Arc<dyn Cut>,
}

/// The slabs of one client.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    slabs: RwLock<Slabs>,
    /// Held by WRITEs, and KEYS for writing, under way; SHARE waits for them.
    pub(crate) writing: RwLock<()>,
}

#[derive(Debug, Default)]
struct Slabs {
    /// Numbers are not used twice, so that a RELEASE that is sent again after
    /// a broken connection cannot hit another slab.
    next: u32,
    map: HashMap<u32, Arc<Slab>>,
}

impl Session {
    fn new(id: SessionId, slabs: Slabs) -> Arc<Session> {
        Arc::new(Session {
            id,
            slabs: RwLock::new(slabs),
            writing: RwLock::new(()),
        })
    }

    /// The slab of that number.
    pub(crate) fn slab(&self, number: u32) -> Option<Arc<Slab>> {
        let slabs = self.slabs.read().unwrap_or_else(PoisonError::into_inner);
        slabs.map.get(&number).cloned()
    }

    /// Up to `count` fresh slabs.
    pub(crate) fn grant(&self, count: u32, pool: &Arc<Pool>) -> Result<Vec<u32>, Status> {
        if count == 0 {
            return Err(Status::BadRequest);
        }
        let mut slabs = self.slabs.write().unwrap_or_else(PoisonError::into_inner);
        let mut granted = Vec::new();
        for _ in 0..count.min(MAX_GRANT) {
            let number = slabs.next;
            let Some(next) = number.checked_add(1) else {
                break;
            };
            let Some(slab) = pool.grant() else { break };
            slabs.next = next;
            slabs.map.insert(number, Arc::new(slab));
            granted.push(number);
        }
        if granted.is_empty() {
            return Err(Status::Full);
        }
        Ok(granted)
    }

    /// Gives back all of `numbers`, or nothing when one is not the session's.
    pub(crate) fn release(&self, numbers: &[u32]) -> Result<(), Status> {
        let mut slabs = self.slabs.write().unwrap_or_else(PoisonError::into_inner);
        let mut gone = Vec::with_capacity(numbers.len());
        for number in numbers {
            if let Some(slab) = slabs.map.remove(number) {
                gone.push((*number, slab));
            } else {
                slabs.map.extend(gone);
                return Err(Status::NoSuchSlab);
            }
        }
        // The kernel takes its time to take memory back.
        drop(slabs);
        // Another connection may still be sending from them.
        gone.iter().for_each(|(_, slab)| slab.keys().end());
        Ok(())
    }

    /// Ends the keys of a connection.
    pub(crate) fn end_keys_of(&self, connection: u64) {
        let slabs = self.slabs.read().unwrap_or_else(PoisonError::into_inner);
        let all: Vec<_> = slabs.map.values().cloned().collect();
        drop(slabs);
        all.iter().for_each(|slab| slab.end_keys_of(connection));
    }

    /// Every slab once more, for another session.
    fn shared(&self) -> Slabs {
        // A page that is half received must not change after it is shared.
        let _writing = self.writing.write().unwrap_or_else(PoisonError::into_inner);
        let slabs = self.slabs.read().unwrap_or_else(PoisonError::into_inner);
        let share = |(number, slab): (&u32, &Arc<Slab>)| {
            slab.end_write_keys();
            (*number, Arc::new(slab.share()))
        };
        Slabs {
            next: slabs.next,
            map: slabs.map.iter().map(share).collect(),
        }
    }
}

/// All sessions of a server.
pub(crate) struct Sessions {
    inner: Mutex<Inner>,
    /// A connection left, or a deadline came to be.
    changed: Condvar,
    limit: usize,
    grace: Duration,
    pool: Arc<Pool>,
}

#[derive(Default)]
struct Inner {
    slots: HashMap<SessionId, Slot>,
    closing: bool,
}

struct Slot {
    session: Arc<Session>,
    members: Vec<Member>,
    /// When it ends unless somebody joins.
    deadline: Option<Instant>,
    /// A child that nobody joined yet lives with this parent.
    parent: Option<SessionId>,
    /// Somebody said BYE.
    ending: bool,
}

impl Sessions {
    /// None yet; at most `limit` at a time.
    pub(crate) fn new(pool: Arc<Pool>, limit: usize, grace: Duration) -> Sessions {
        Sessions {
            inner: Mutex::default(),
            changed: Condvar::new(),
            limit,
            grace,
            pool,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Opens the session `id`, which nobody else can know.
    pub(crate) fn open(&self, id: SessionId, member: Member) -> Result<Arc<Session>, Status> {
        let mut inner = self.lock();
        inner.admit(self.limit)?;
        let session = Session::new(id, Slabs::default());
        inner.slots.insert(
            id,
            Slot {
                session: session.clone(),
                members: vec![member],
                deadline: None,
                parent: None,
                ending: false,
            },
        );
        Ok(session)
    }

    /// Joins the session `id`. What connection the new one replaces has left
    /// when this returns, so that nothing of it comes after.
    pub(crate) fn join(
        &self,
        id: SessionId,
        member: &Member,
        patience: Instant,
    ) -> Result<Arc<Session>, Status> {
        let mut inner = self.lock();
        // From here on the session does not end, whatever is cut.
        let slot = inner.slots.get_mut(&id).ok_or(Status::NoSession)?;
        let replaced = slot.replaced_by(member);
        slot.deadline = None;
        slot.parent = None;
        slot.members.push(member.clone());
        loop {
            if inner.closing {
                inner.forget(id, member.key);
                return Err(Status::ShuttingDown);
            }
            let slot = inner.slots.get(&id).ok_or(Status::NoSession)?;
            let left = |m: &&Member| replaced.contains(&m.key);
            let mut waiting = slot.members.iter().filter(left).peekable();
            if waiting.peek().is_none() {
                return Ok(slot.session.clone());
            }
            waiting.for_each(|m| m.link.cut());
            if Instant::now() >= patience {
                inner.forget(id, member.key);
                let gone = inner.left(id, Instant::now() + self.grace);
                drop(inner);
                drop(gone);
                return Err(Status::Internal);
            }
            inner = self
                .changed
                .wait_timeout(inner, JOIN_CHECK)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// A connection is gone. The session ends with its last connection if one
    /// said BYE, soon after it if that was closed, else after the grace.
    pub(crate) fn leave(&self, id: SessionId, key: u64, how: Left, now: Instant) {
        let mut inner = self.lock();
        if let Some(slot) = inner.slots.get_mut(&id) {
            slot.ending |= how == Left::Bye;
        }
        inner.forget(id, key);
        let grace = match how {
            Left::Closed => self.grace.min(CLOSED),
            Left::Bye | Left::Broken => self.grace,
        };
        let gone = inner.left(id, now + grace);
        drop(inner);
        // Its memory goes here, where nobody waits for the lock.
        drop(gone);
        self.changed.notify_all();
    }

    /// A child of `parent` that owns every slab too.
    pub(crate) fn share(&self, parent: &Session, id: SessionId) -> Result<(), Status> {
        let check = |inner: &Inner| {
            inner.admit(self.limit)?;
            let waits = |s: &&Slot| s.parent == Some(parent.id);
            if inner.slots.values().filter(waits).count() >= MAX_UNJOINED {
                return Err(Status::Limit);
            }
            Ok(())
        };
        check(&self.lock())?;
        let slabs = parent.shared();
        let mut inner = self.lock();
        check(&inner)?;
        let slot = Slot {
            session: Session::new(id, slabs),
            members: Vec::new(),
            deadline: None,
            parent: Some(parent.id),
            ending: false,
        };
        inner.slots.insert(id, slot);
        Ok(())
    }

    /// Ends what is overdue; when to look again.
    pub(crate) fn reap(&self, now: Instant) -> Option<Instant> {
        let mut inner = self.lock();
        let overdue = |s: &Slot| s.deadline.is_some_and(|d| d <= now);
        let ids: Vec<SessionId> = inner
            .slots
            .iter()
            .filter(|(_, s)| overdue(s))
            .map(|(id, _)| *id)
            .collect();
        let gone: Vec<_> = ids
            .into_iter()
            .map(|id| inner.end(id, now + self.grace))
            .collect();
        let next = inner.slots.values().filter_map(|s| s.deadline).min();
        drop(inner);
        drop(gone);
        next
    }

    /// Ends sessions as they fall due, until [`Sessions::close`].
    pub(crate) fn keep(&self) {
        loop {
            let next = self.reap(Instant::now());
            let inner = self.lock();
            if inner.closing {
                return;
            }
            // What fell due since is looked at within the grace at the latest.
            let wait = next.map_or(self.grace, |at| {
                at.saturating_duration_since(Instant::now())
            });
            let wait = wait.clamp(Duration::from_millis(1), Duration::from_secs(1));
            drop(self.changed.wait_timeout(inner, wait));
        }
    }

    /// Nothing is opened or joined any more.
    pub(crate) fn close(&self) {
        self.lock().closing = true;
        self.changed.notify_all();
    }

    /// The largest number of pages that can still be granted.
    pub(crate) fn free_pages(&self) -> u64 {
        self.pool
            .capacity_pages()
            .saturating_sub(self.pool.granted_pages())
    }

    /// What slabs are taken from.
    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }
}

impl Inner {
    fn admit(&self, limit: usize) -> Result<(), Status> {
        if self.closing {
            return Err(Status::ShuttingDown);
        }
        if self.slots.len() >= limit {
            return Err(Status::Limit);
        }
        Ok(())
    }

    fn forget(&mut self, id: SessionId, key: u64) {
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.members.retain(|m| m.key != key);
        }
    }

    /// Someone left: the session ends now, at `deadline`, or not.
    fn left(&mut self, id: SessionId, deadline: Instant) -> Option<Arc<Session>> {
        let slot = self.slots.get_mut(&id)?;
        if !slot.members.is_empty() {
            return None;
        }
        if slot.ending {
            return self.end(id, deadline);
        }
        slot.deadline = Some(deadline);
        None
    }

    /// Takes a session out; its children that nobody joined have until
    /// `deadline`.
    fn end(&mut self, id: SessionId, deadline: Instant) -> Option<Arc<Session>> {
        let slot = self.slots.remove(&id)?;
        for child in self.slots.values_mut().filter(|s| s.parent == Some(id)) {
            child.parent = None;
            child.deadline = Some(deadline);
        }
        Some(slot.session)
    }
}

impl Slot {
    /// The connections that a new one takes the place of: that of its lane. A
    /// client that names no lanes has two connections at most, so that a third
    /// replaces both: which of them is the broken one cannot be known.
    fn replaced_by(&self, new: &Member) -> Vec<u64> {
        let same = self.members.iter().filter(|m| m.lane == new.lane);
        if new.lane != 0 {
            return same.map(|m| m.key).collect();
        }
        let (dead, live): (Vec<_>, Vec<_>) = same.partition(|m| m.link.is_dead());
        let all = live.len() >= 2;
        dead.into_iter()
            .chain(live.into_iter().filter(|_| all))
            .map(|m| m.key)
            .collect()
    }
}

/// Bytes of `pages`.
pub(crate) fn bytes(pages: u32) -> usize {
    pages as usize * PAGE_SIZE
}
