//! How sessions are opened, and joined by further connections.

use super::{CHECK, CloseReason, Member, Sessions, Slot};
use crate::client::Client;
use crate::store::files::record::Record;
use crate::store::name::SessionName;
use crate::store::session::Session;
use std::sync::Arc;
use std::time::Instant;
use tmem_wire::Status;

/// Connections of one session.
const MAX_MEMBERS: usize = 16;

/// A connection that is about to join a session, until this is dropped.
pub(crate) struct Coming<'a> {
    sessions: &'a Sessions,
    id: SessionName,
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
    /// A connection is about to join: what it will be to its session.
    pub(crate) fn announce(&self, id: SessionName, new: &Member) -> Coming<'_> {
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
        id: SessionName,
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
        let session = self.new_session(&mut inner, id, client);
        let slot = Slot {
            members: vec![member],
            ..Slot::new(session.clone(), client)
        };
        inner.slots.insert(id, slot);
        let noted = self.pool.note(|| Record::Session {
            name: id,
            client,
            parent: None,
            next: 0,
            slabs: Vec::new(),
        });
        if let Err(status) = noted {
            inner.end(id, Instant::now());
            return Err(status);
        }
        Ok(session)
    }

    /// Joins the session `id`. What connection the new one replaces has left
    /// when this returns, so that nothing of it comes after.
    pub(crate) fn join(
        &self,
        id: SessionName,
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
        if let Some(parent) = slot.parent.take() {
            // Where that is not noted, a later note says it too.
            let _ = self.pool.note(|| Record::Joined(id));
            if let Some(parent) = inner.slots.get_mut(&parent) {
                parent.children.remove(&id);
                self.changed.notify_all();
            }
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
            waiting.for_each(|m| m.socket.cut());
            if Instant::now() >= patience {
                drop(inner);
                self.leave(id, member.key, CloseReason::Broken, Instant::now());
                return Err(Status::Internal);
            }
            inner = self.wait(inner, CHECK);
        }
    }
}
