//! The table of sessions, as data: no locks, no waiting.

use super::Member;
use crate::client::Client;
use crate::store::name::SessionName;
use crate::store::session::Session;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;
use tmem_wire::Status;

/// The table of sessions.
#[derive(Default)]
pub(super) struct Inner {
    pub(super) slots: HashMap<SessionName, Slot>,
    pub(super) clients: HashMap<Client, Share>,
    /// Sessions that have ended, and whose memory is to be freed.
    pub(super) ended: Vec<Arc<Session>>,
    /// How many others are being freed now, and how many slabs they had.
    pub(super) freeing: usize,
    pub(super) freeing_slabs: usize,
    /// When the next deadline is, as far as was looked.
    pub(super) look: Option<Instant>,
    pub(super) closing: bool,
    /// Another process is about to go on with the sessions: no memory is freed.
    pub(super) frozen: bool,
}

/// What one client has of the server.
#[derive(Default)]
pub(super) struct Share {
    pub(super) sessions: usize,
    pub(super) tables: Arc<AtomicU64>,
    pub(super) pages: Arc<AtomicU64>,
}

/// A session and its connections.
pub(super) struct Slot {
    pub(super) session: Arc<Session>,
    pub(super) client: Client,
    pub(super) members: Vec<Member>,
    /// When it ends unless somebody joins.
    pub(super) deadline: Option<Instant>,
    /// Since when it has been without a connection because its client closed the last.
    pub(super) closed: Option<Instant>,
    /// A child that nobody joined yet lives with this parent.
    pub(super) parent: Option<SessionName>,
    /// Its own such children.
    pub(super) children: HashSet<SessionName>,
    pub(super) made: Instant,
    /// Somebody said BYE.
    pub(super) ending: bool,
    /// A connection was closed without LEAVE while another had said it: the client lives.
    pub(super) stays: bool,
    /// Connections that are about to join.
    pub(super) coming: usize,
}

impl Inner {
    /// Whether there may be one more, of so many in all and of that client.
    pub(super) fn admit(&self, client: Client, most: usize, own: usize) -> Result<(), Status> {
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
    pub(super) fn unused(&self, client: Client) -> Option<SessionName> {
        let closed = |(id, slot): (&SessionName, &Slot)| {
            let empty = slot.client == client && slot.session.len() == 0;
            slot.closed.filter(|_| empty).map(|at| (at, *id))
        };
        let oldest = self.slots.iter().filter_map(closed).min();
        oldest.map(|(_, id)| id)
    }

    pub(super) fn forget(&mut self, id: SessionName, key: u64) {
        if let Some(slot) = self.slots.get_mut(&id) {
            slot.members.retain(|m| m.key != key);
        }
    }

    /// Takes a session out; its children that nobody joined have until
    /// `deadline`.
    pub(super) fn end(&mut self, id: SessionName, deadline: Instant) -> Option<Arc<Session>> {
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
    pub(super) fn new(session: Arc<Session>, client: Client) -> Slot {
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
    pub(super) fn replaced_by(&self, new: &Member) -> Vec<u64> {
        let same = self.members.iter().filter(|m| m.lane == new.lane);
        if new.lane != 0 {
            return same.map(|m| m.key).collect();
        }
        let (dead, live): (Vec<_>, Vec<_>) = same.partition(|m| m.socket.is_dead());
        let all = live.len() >= 2;
        dead.into_iter()
            .chain(live.into_iter().filter(|_| all))
            .map(|m| m.key)
            .collect()
    }
}
