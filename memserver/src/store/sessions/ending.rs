//! How sessions end, and their memory is freed.

use super::{CHECK, CloseReason, Inner, Member, Sessions, Slot};
use crate::store::name::SessionName;
use crate::store::session::Session;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a session outlives its last connection when the client's system
/// closed that: as it does at the client's end. What breaks on the way is
/// mostly not closed, and a client that lost a connection is back at once.
const CLOSED: Duration = Duration::from_secs(2);

/// How long such a session is left alone even if its memory is wanted. A client that lives
/// has made several attempts to be back by then.
const SETTLED: Duration = Duration::from_millis(200);

impl Sessions {
    /// A connection is gone. The session ends with its last connection if one
    /// said BYE or the client said LEAVE, soon after it if that was closed, else after
    /// the grace.
    pub(crate) fn leave(&self, id: SessionName, key: u64, how: CloseReason, now: Instant) {
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

    /// Makes room for a slab: ends a session whose client is gone for all that is known, or
    /// waits for memory that is being freed. `false` when there is none of either.
    pub(crate) fn make_room(&self) -> bool {
        let mut inner = self.lock();
        loop {
            if inner.closing || inner.frozen {
                return false;
            }
            if inner.freeing > 0 || !inner.ended.is_empty() {
                drop(self.wait(inner, CHECK));
                return true;
            }
            let closed = |(id, slot): (&SessionName, &Slot)| {
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
        let ids: Vec<SessionName> = inner
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
            if inner.frozen {
                inner = self.wait(inner, CHECK);
                continue;
            }
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

    /// Frees no memory any more, once what is being freed is; until [`Sessions::thaw`].
    pub(crate) fn freeze(&self) {
        let mut inner = self.lock();
        inner.frozen = true;
        while inner.freeing > 0 {
            inner = self.wait(inner, CHECK);
        }
    }

    /// Goes on after [`Sessions::freeze`].
    pub(crate) fn thaw(&self) {
        self.lock().frozen = false;
        self.changed.notify_all();
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
}
