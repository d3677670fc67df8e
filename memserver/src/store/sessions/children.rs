//! How a session gets children, for forked processes.

use super::{CHECK, Inner, Sessions, Slot};
use crate::client::Client;
use crate::store::files::record::Record;
use crate::store::name::SessionName;
use crate::store::session::Session;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tmem_wire::Status;

/// Children of one session that nobody has joined yet.
const MAX_UNJOINED: usize = 64;

/// How long the request for a child waits where a limit is met: children that are being
/// started join, and their number counts no more. A client waits longer for an answer.
const CHILD_PATIENCE: Duration = Duration::from_secs(10);

/// A child that nobody has joined for so long gives its place to another: its process ended
/// before it could.
const ABANDONED: Duration = Duration::from_secs(60);

impl Sessions {
    /// A child of `parent` that owns every slab too. Where a limit is met it waits, until it
    /// is no use to the client any more.
    pub(crate) fn share(
        &self,
        parent: &Session,
        id: SessionName,
        is_useless: impl Fn() -> bool,
    ) -> Result<(), Status> {
        let patience = Instant::now() + CHILD_PATIENCE;
        let mut inner = self.lock();
        let (client, bytes) = loop {
            match self.room_for_child(&mut inner, parent) {
                Err(Status::Limit)
                    if Instant::now() < patience && !inner.frozen && !is_useless() =>
                {
                    inner = self.wait(inner, CHECK);
                }
                Err(status) => return Err(status),
                Ok(room) => break room,
            }
        };
        // Its place is taken before its table is made, which takes its time.
        let session = self.new_session(&mut inner, id, client);
        let tables = session.tables().clone();
        tables.add(bytes);
        let child = Slot {
            parent: Some(parent.name),
            ..Slot::new(session, client)
        };
        inner.slots.insert(id, child);
        if let Some(slot) = inner.slots.get_mut(&parent.name) {
            slot.children.insert(id);
        }
        drop(inner);
        let slabs = parent.shared();
        let mut inner = self.lock();
        let filled = slabs.ok_or(Status::Full).and_then(|slabs| {
            let slot = inner.slots.get(&id).ok_or(Status::Limit)?;
            self.pool.note(|| Record::Session {
                name: id,
                client,
                parent: slot.parent,
                next: slabs.next(),
                slabs: slabs.held(),
            })?;
            slot.session.fill(slabs);
            Ok(())
        });
        let gone = match filled {
            Ok(()) => None,
            Err(_) => inner.end(id, Instant::now() + self.limits.grace),
        };
        drop(inner);
        drop(gone);
        tables.sub(bytes);
        filled
    }

    /// The client of `parent` and the bytes of its table, if there may be a child of it.
    fn room_for_child(&self, inner: &mut Inner, parent: &Session) -> Result<(Client, u64), Status> {
        let slot = inner.slots.get(&parent.name).ok_or(Status::NoSession)?;
        let client = slot.client;
        if slot.children.len() >= MAX_UNJOINED {
            let age = |id: &&SessionName| inner.slots.get(id).map(|s| s.made);
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
}
