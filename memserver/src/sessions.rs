//! Sessions: which there are, and until when.

use crate::client::Client;
use crate::memory::Pool;
use crate::session::{Session, Tables};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tmem_wire::{PAGE_SIZE, SessionId, Status};

/// Children of one session that nobody has joined yet.
const MAX_UNJOINED: usize = 64;

/// Connections of one session.
const MAX_MEMBERS: usize = 16;

/// How long the request for a child waits where a limit is met: children that are being
/// started join, and their number counts no more. A client waits longer for an answer.
const CHILD_PATIENCE: Duration = Duration::from_secs(10);

/// A child that nobody has joined for so long gives its place to another: its process ended
/// before it could.
const ABANDONED: Duration = Duration::from_secs(60);

/// How often one who waits looks whether what it waits for is gone.
const CHECK: Duration = Duration::from_millis(100);

/// How long a session outlives its last connection when the client's system
/// closed that: as it does at the client's end. What breaks on the way is
/// mostly not closed, and a client that lost a connection is back at once.
const CLOSED: Duration = Duration::from_secs(2);

/// How long such a session is left alone even if its memory is wanted. A client that lives
/// has made several attempts to be back by then.
const SETTLED: Duration = Duration::from_millis(200);

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

#[derive(Default)]
struct Inner {
    slots: HashMap<SessionId, Slot>,
    clients: HashMap<Client, Share>,
    /// Sessions that have ended, and whose memory is to be freed.
    ended: Vec<Arc<Session>>,
    /// How many others are being freed now, and how many slabs they had.
    freeing: usize,
    freeing_slabs: usize,
    /// When the next deadline is, as far as was looked.
    look: Option<Instant>,
    closing: bool,
}

/// What one client has of the server.
#[derive(Default)]
struct Share {
    sessions: usize,
    tables: Arc<AtomicU64>,
}

struct Slot {
    session: Arc<Session>,
    client: Client,
    members: Vec<Member>,
    /// When it ends unless somebody joins.
    deadline: Option<Instant>,
    /// Since when it has been without a connection because its client closed the last.
    closed: Option<Instant>,
    /// A child that nobody joined yet lives with this parent.
    parent: Option<SessionId>,
    /// Its own such children.
    children: HashSet<SessionId>,
    made: Instant,
    /// Somebody said BYE.
    ending: bool,
    /// A connection was closed without LEAVE while another had said it: the client lives.
    stays: bool,
    /// Connections that are about to join.
    coming: usize,
}

/// A connection that is about to join a session, until this is dropped.
pub(crate) struct Coming<'a> {
    sessions: &'a Sessions,
    id: SessionId,
    /// The session has another connection, or is about to.
    pub(crate) is_further: bool,
    /// It takes the place of another.
    pub(crate) replaces: bool,
}

impl Drop for Coming<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.sessions.lock().slots.get_mut(&self.id) {
            slot.coming = slot.coming.saturating_sub(1);
        }
    }
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

    /// A connection is about to join: what it will be to its session.
    pub(crate) fn announce(&self, id: SessionId, new: &Member) -> Coming<'_> {
        let mut inner = self.lock();
        let coming = |is_further, replaces| Coming {
            sessions: self,
            id,
            is_further,
            replaces,
        };
        let Some(slot) = inner.slots.get_mut(&id) else {
            return coming(false, false);
        };
        let replaced = slot.replaced_by(new).len();
        let beside = slot.members.len() - replaced + slot.coming;
        slot.coming += 1;
        coming(beside > 0, replaced > 0)
    }

    /// Opens the session `id`, which nobody else can know.
    pub(crate) fn open(
        &self,
        id: SessionId,
        client: Client,
        member: Member,
    ) -> Result<Arc<Session>, Status> {
        let mut inner = self.lock();
        let limits = &self.limits;
        let most = limits.sessions - limits.sessions / 4;
        while let Err(status) = inner.admit(client, most, limits.per_client) {
            // It is the first to go: it has nothing, and nobody is there who wants it.
            let unused = match status {
                Status::Limit => inner.unused(client),
                _ => None,
            };
            let gone = unused.and_then(|id| inner.end(id, Instant::now()));
            gone.ok_or(status)?;
        }
        let session = self.session(&mut inner, id, client);
        let slot = Slot {
            members: vec![member],
            ..Slot::new(session.clone(), client)
        };
        inner.slots.insert(id, slot);
        Ok(session)
    }

    /// A session on the account of its client.
    fn session(&self, inner: &mut Inner, id: SessionId, client: Client) -> Arc<Session> {
        let share = inner.clients.entry(client).or_default();
        share.sessions += 1;
        let tables = Tables {
            all: self.tables.clone(),
            own: share.tables.clone(),
        };
        Arc::new(Session::new(id, tables, self.pool.clone()))
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
        if slot.members.len() - replaced.len() >= MAX_MEMBERS {
            return Err(Status::Limit);
        }
        (slot.deadline, slot.closed, slot.stays) = (None, None, false);
        slot.members.push(member.clone());
        if let Some(parent) = slot.parent.take()
            && let Some(parent) = inner.slots.get_mut(&parent)
        {
            parent.children.remove(&id);
            self.changed.notify_all();
        }
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
                drop(inner);
                self.leave(id, member.key, CloseReason::Broken, Instant::now());
                return Err(Status::Internal);
            }
            inner = self.wait(inner, CHECK);
        }
    }

    /// A connection is gone. The session ends with its last connection if one
    /// said BYE or the client said LEAVE, soon after it if that was closed, else after
    /// the grace.
    pub(crate) fn leave(&self, id: SessionId, key: u64, how: CloseReason, now: Instant) {
        let mut inner = self.lock();
        inner.forget(id, key);
        let mut gone = None;
        if let Some(slot) = inner.slots.get_mut(&id) {
            let is_leaving = |m: &Member| m.leaving.load(Ordering::Relaxed);
            slot.ending |= how == CloseReason::Bye;
            slot.stays |= how != CloseReason::Left && slot.members.iter().any(is_leaving);
            let is_over = slot.ending || how == CloseReason::Left && !slot.stays;
            if slot.members.is_empty() && is_over {
                gone = inner.end(id, now + self.limits.grace);
                // Its children may be due from now on.
                self.due.notify_all();
            } else if slot.members.is_empty() {
                let is_closed = matches!(how, CloseReason::Closed | CloseReason::Left);
                slot.closed = is_closed.then_some(now);
                let short = self.limits.grace.min(CLOSED);
                let deadline = now + slot.closed.map_or(self.limits.grace, |_| short);
                slot.deadline = Some(deadline);
                if inner.look.is_none_or(|look| deadline < look) {
                    inner.look = Some(deadline);
                    self.due.notify_all();
                }
            }
        }
        match gone {
            Some(session) => drop(self.free(inner, session)),
            None => self.changed.notify_all(),
        }
    }

    /// Frees the memory of a session that has ended, where nobody waits for the lock. Those
    /// who look for memory wait for it.
    fn free<'a>(
        &'a self,
        mut inner: MutexGuard<'a, Inner>,
        session: Arc<Session>,
    ) -> MutexGuard<'a, Inner> {
        let slabs = session.len();
        inner.freeing += 1;
        inner.freeing_slabs += slabs;
        drop(inner);
        drop(session);
        let mut inner = self.lock();
        inner.freeing -= 1;
        inner.freeing_slabs -= slabs;
        self.changed.notify_all();
        inner
    }

    /// A child of `parent` that owns every slab too. Where a limit is met it waits, until it
    /// is no use to the client any more.
    pub(crate) fn share(
        &self,
        parent: &Session,
        id: SessionId,
        is_useless: impl Fn() -> bool,
    ) -> Result<(), Status> {
        let patience = Instant::now() + CHILD_PATIENCE;
        let mut inner = self.lock();
        let (client, bytes) = loop {
            match self.room_for_child(&mut inner, parent) {
                Err(Status::Limit) if Instant::now() < patience && !is_useless() => {
                    inner = self.wait(inner, CHECK);
                }
                Err(status) => return Err(status),
                Ok(room) => break room,
            }
        };
        // Its place is taken before its table is made, which takes its time.
        let session = self.session(&mut inner, id, client);
        let tables = session.tables().clone();
        tables.add(bytes);
        let child = Slot {
            parent: Some(parent.id),
            ..Slot::new(session, client)
        };
        inner.slots.insert(id, child);
        if let Some(slot) = inner.slots.get_mut(&parent.id) {
            slot.children.insert(id);
        }
        drop(inner);
        let slabs = parent.shared();
        let inner = self.lock();
        let child = inner.slots.get(&id).map(|slot| slot.session.fill(slabs));
        drop(inner);
        tables.sub(bytes);
        child.ok_or(Status::Limit)
    }

    /// The client of `parent` and the bytes of its table, if there may be a child of it.
    fn room_for_child(&self, inner: &mut Inner, parent: &Session) -> Result<(Client, u64), Status> {
        let slot = inner.slots.get(&parent.id).ok_or(Status::NoSession)?;
        let client = slot.client;
        if slot.children.len() >= MAX_UNJOINED {
            let age = |id: &&SessionId| inner.slots.get(id).map(|s| s.made);
            let oldest = slot.children.iter().min_by_key(age).copied();
            let made = oldest.and_then(|id| inner.slots.get(&id)).map(|s| s.made);
            if made.is_none_or(|made| made.elapsed() < ABANDONED) {
                return Err(Status::Limit);
            }
            let now = Instant::now();
            let gone = oldest.and_then(|id| inner.end(id, now + self.limits.grace));
            inner.ended.extend(gone);
            self.due.notify_all();
        }
        let limits = &self.limits;
        let own = limits.per_client.saturating_add(limits.sessions / 4);
        inner.admit(client, limits.sessions, own)?;
        let bytes = parent.table_bytes();
        let own = inner.clients.get(&client).map(|c| &c.tables);
        let own = own.map_or(0, |tables| tables.load(Ordering::Relaxed));
        let all = self.tables.load(Ordering::Relaxed);
        if all + bytes > limits.tables || own + bytes > limits.tables_per_client {
            return Err(Status::Limit);
        }
        Ok((client, bytes))
    }

    /// Makes room for a slab: ends a session whose client is gone for all that is known, or
    /// waits for memory that is being freed. `false` when there is none of either.
    pub(crate) fn make_room(&self) -> bool {
        let mut inner = self.lock();
        loop {
            if inner.closing {
                return false;
            }
            if inner.freeing > 0 || !inner.ended.is_empty() {
                drop(self.wait(inner, CHECK));
                return true;
            }
            let closed = |(id, slot): (&SessionId, &Slot)| {
                let at = slot.closed.filter(|_| slot.session.len() > 0)?;
                Some((at, *id))
            };
            let now = Instant::now();
            let Some((at, id)) = inner.slots.iter().filter_map(closed).min() else {
                return false;
            };
            let left = SETTLED.saturating_sub(now.saturating_duration_since(at));
            if left.is_zero() {
                let gone = inner.end(id, now + self.limits.grace);
                self.due.notify_all();
                if let Some(session) = gone {
                    drop(self.free(inner, session));
                }
                return true;
            }
            // Its client may be back by then.
            inner = self.wait(inner, left);
        }
    }

    /// Ends what is overdue.
    fn reap(&self, inner: &mut Inner, now: Instant) {
        if inner.look.is_none_or(|look| look > now) {
            return;
        }
        let overdue = |s: &Slot| s.deadline.is_some_and(|d| d <= now);
        let ids: Vec<SessionId> = inner
            .slots
            .iter()
            .filter(|(_, s)| overdue(s))
            .map(|(id, _)| *id)
            .collect();
        for id in ids {
            let gone = inner.end(id, now + self.limits.grace);
            inner.ended.extend(gone);
        }
        inner.look = inner.slots.values().filter_map(|s| s.deadline).min();
    }

    /// Ends sessions as they fall due, and frees their memory, until [`Sessions::close`].
    /// Several threads do so, that one large session holds up nobody; and small ones go
    /// first.
    pub(crate) fn keep(&self) {
        let mut inner = self.lock();
        while !inner.closing {
            self.reap(&mut inner, Instant::now());
            let size = |(_, session): &(usize, &Arc<Session>)| session.len();
            let smallest = inner.ended.iter().enumerate().min_by_key(size);
            if let Some((at, _)) = smallest {
                let gone = inner.ended.swap_remove(at);
                inner = self.free(inner, gone);
                continue;
            }
            let longest = Duration::from_secs(60);
            let wait = inner.look.map_or(longest, |at| {
                at.saturating_duration_since(Instant::now()).min(longest)
            });
            let waited = self.due.wait_timeout(inner, wait);
            inner = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Nothing is opened or joined any more.
    pub(crate) fn close(&self) {
        self.pool.close();
        self.lock().closing = true;
        self.changed.notify_all();
        self.due.notify_all();
    }

    /// The largest number of pages that can still be granted, with those of clients that
    /// are gone for all that is known.
    pub(crate) fn free_pages(&self) -> u64 {
        let inner = self.lock();
        let closed = inner.slots.values().filter(|s| s.closed.is_some());
        let slabs: usize = closed
            .map(|s| &s.session)
            .chain(&inner.ended)
            .map(|session| session.len())
            .sum();
        let slabs = slabs + inner.freeing_slabs;
        drop(inner);
        let (capacity, granted) = (self.pool.capacity_pages(), self.pool.granted_pages());
        let gone = slabs as u64 * u64::from(self.pool.slab_pages());
        capacity - granted.saturating_sub(gone).min(capacity)
    }

    /// What slabs are taken from.
    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }
}

impl Inner {
    /// Whether there may be one more, of so many in all and of that client.
    fn admit(&self, client: Client, most: usize, own: usize) -> Result<(), Status> {
        if self.closing {
            return Err(Status::ShuttingDown);
        }
        let had = self.clients.get(&client).map_or(0, |c| c.sessions);
        if self.slots.len() >= most || had >= own {
            return Err(Status::Limit);
        }
        Ok(())
    }

    /// The oldest of a client's sessions that were closed and have no slabs.
    fn unused(&self, client: Client) -> Option<SessionId> {
        let closed = |(id, slot): (&SessionId, &Slot)| {
            let empty = slot.client == client && slot.session.len() == 0;
            slot.closed.filter(|_| empty).map(|at| (at, *id))
        };
        let oldest = self.slots.iter().filter_map(closed).min();
        oldest.map(|(_, id)| id)
    }

    fn forget(&mut self, id: SessionId, key: u64) {
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.members.retain(|m| m.key != key);
        }
    }

    /// Takes a session out; its children that nobody joined have until
    /// `deadline`.
    fn end(&mut self, id: SessionId, deadline: Instant) -> Option<Arc<Session>> {
        let slot = self.slots.remove(&id)?;
        for child in slot.children {
            if let Some(child) = self.slots.get_mut(&child) {
                child.parent = None;
                child.deadline = Some(deadline);
                self.look = Some(self.look.map_or(deadline, |look| look.min(deadline)));
            }
        }
        if let Some(parent) = slot.parent.and_then(|p| self.slots.get_mut(&p)) {
            parent.children.remove(&id);
        }
        if let Some(share) = self.clients.get_mut(&slot.client) {
            share.sessions -= 1;
            if share.sessions == 0 {
                self.clients.remove(&slot.client);
            }
        }
        Some(slot.session)
    }
}

impl Slot {
    fn new(session: Arc<Session>, client: Client) -> Slot {
        Slot {
            session,
            client,
            members: Vec::new(),
            deadline: None,
            closed: None,
            parent: None,
            children: HashSet::new(),
            made: Instant::now(),
            ending: false,
            stays: false,
            coming: 0,
        }
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;

    impl Cut for Nobody {
        fn cut(&self) {}
        fn is_dead(&self) -> bool {
            true
        }
    }

    fn member(key: u64) -> Member {
        Member {
            key,
            lane: 0,
            link: Arc::new(Nobody),
            leaving: Arc::default(),
        }
    }

    fn client(n: u8) -> Client {
        Client::at(Some(([10, 0, 0, n], 1).into()))
    }

    /// Four slabs, and so many sessions.
    fn sessions(sessions: usize, per_client: usize) -> Sessions {
        let limits = Limits {
            sessions,
            per_client,
            tables: 1 << 20,
            tables_per_client: 1 << 20,
            grace: Duration::from_secs(3600),
        };
        Sessions::new(Pool::new(4, 64).unwrap(), limits)
    }

    fn open(all: &Sessions, n: u8, of: u8) -> Result<Arc<Session>, Status> {
        all.open(SessionId([n; 16]), client(of), member(n.into()))
    }

    fn leave(all: &Sessions, n: u8, how: CloseReason) {
        all.leave(SessionId([n; 16]), n.into(), how, Instant::now());
    }

    #[test]
    fn memory_is_taken_from_closed_sessions_only() {
        let all = sessions(8, 8);
        for (n, how) in [(1, CloseReason::Broken), (2, CloseReason::Closed)] {
            open(&all, n, 1).unwrap().grant(1).unwrap();
            leave(&all, n, how);
        }
        let mut there = open(&all, 3, 2).unwrap();
        there.grant(2).unwrap();
        assert_eq!(there.grant(1), Err(Status::Full));
        assert_eq!(all.free_pages(), 64);
        assert!(all.make_room());
        there.grant(1).unwrap();
        // A client whose connection broke is waited for, and one that is there lives.
        assert!(!all.make_room());
        assert!(all.has(SessionId([1; 16])) && !all.has(SessionId([2; 16])));
        // One that is back is not closed any more.
        leave(&all, 3, CloseReason::Closed);
        there = all.join(there.id, &member(4), Instant::now()).unwrap();
        assert!(!all.make_room());
        assert_eq!((there.len(), all.free_pages()), (3, 0));
    }

    /// Joins the session `n` by a second connection.
    fn join_again(all: &Sessions, n: u8, key: u64) -> Member {
        let member = Member {
            lane: 2,
            ..member(key)
        };
        all.join(SessionId([n; 16]), &member, Instant::now())
            .unwrap();
        member
    }

    #[test]
    fn a_session_whose_client_said_that_it_leaves_ends_with_its_last_connection() {
        let all = sessions(8, 8);
        let (id, now) = (SessionId([1; 16]), Instant::now());
        open(&all, 1, 1).unwrap().grant(4).unwrap();
        join_again(&all, 1, 2)
            .leaving
            .store(true, Ordering::Relaxed);
        all.leave(id, 1, CloseReason::Left, now);
        assert!(all.has(id));
        all.leave(id, 2, CloseReason::Left, now);
        assert!(!all.has(id));
        assert_eq!((all.free_pages(), all.pool().granted_pages()), (256, 0));
    }

    #[test]
    fn a_client_that_closes_a_connection_without_leaving_lives() {
        let all = sessions(8, 8);
        let (id, now) = (SessionId([1; 16]), Instant::now());
        open(&all, 1, 1).unwrap();
        join_again(&all, 1, 2)
            .leaving
            .store(true, Ordering::Relaxed);
        all.leave(id, 1, CloseReason::Closed, now);
        all.leave(id, 2, CloseReason::Left, now);
        assert!(all.has(id));
        // Once it is back, what it says counts again.
        join_again(&all, 1, 3);
        all.leave(id, 3, CloseReason::Left, now);
        assert!(!all.has(id));
    }

    #[test]
    fn memory_that_is_being_freed_counts_as_free_and_is_waited_for() {
        let all = sessions(8, 8);
        let session = open(&all, 1, 1).unwrap();
        session.grant(4).unwrap();
        // Another thread is at it.
        let mut inner = all.lock();
        inner.end(session.id, Instant::now());
        (inner.freeing, inner.freeing_slabs) = (1, 4);
        drop(inner);
        assert_eq!(all.free_pages(), 256);
        assert!(all.make_room());
    }

    #[test]
    fn one_client_does_not_get_all_sessions_and_children_have_some_left() {
        let all = sessions(16, 8);
        let ids = 1..=8;
        for n in ids.clone() {
            open(&all, n, 1).unwrap();
        }
        assert_eq!(open(&all, 9, 1).unwrap_err(), Status::Limit);
        for n in 11..=14 {
            open(&all, n, 2).unwrap();
        }
        assert_eq!(open(&all, 15, 3).unwrap_err(), Status::Limit);
        let parent = all.lock().slots[&SessionId([1; 16])].session.clone();
        for n in 21..=24 {
            all.share(&parent, SessionId([n; 16]), || true).unwrap();
        }
        let refused = all.share(&parent, SessionId([25; 16]), || true);
        assert_eq!(refused, Err(Status::Limit));
        // Those that were closed and have nothing make room at once.
        leave(&all, 2, CloseReason::Closed);
        leave(&all, 3, CloseReason::Closed);
        leave(&all, 4, CloseReason::Closed);
        leave(&all, 5, CloseReason::Closed);
        leave(&all, 6, CloseReason::Closed);
        open(&all, 9, 1).unwrap();
        assert!(!all.has(SessionId([2; 16])));
    }
}
