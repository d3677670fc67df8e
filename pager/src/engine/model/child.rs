//! What a forked child would find: the pages that were copied, and for the others what the
//! fork manifest says of them.

use super::world::World;
use crate::engine::fork::current::current;
use crate::engine::fork::manifest::EntryKind;
use crate::net::At;
use crate::net::model::ModelServers;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use std::collections::BTreeMap;
use tmem_wire::PAGE_SIZE;

/// A page that the child has on servers.
#[derive(Debug)]
struct Remote {
    copies: Vec<Copy>,
    allowed: Vec<u64>,
}

/// Where it is on one of them.
#[derive(Clone, Copy, Debug)]
struct Copy {
    server: usize,
    session: [u8; 16],
    slab: u32,
    page: u32,
}

impl Copy {
    /// What each word of the page is, if all are the same.
    fn read(&self, servers: &ModelServers) -> Option<u64> {
        let bytes = servers.page(self.server, self.session, self.slab, self.page)?;
        let words = bytes.as_chunks::<8>().0;
        let is_whole = words.len() == PAGE_SIZE / 8 && words.iter().all(|w| *w == words[0]);
        is_whole.then(|| u64::from_le_bytes(words[0]))
    }
}

impl Remote {
    fn is_right(&self, copy: &Copy, servers: &ModelServers) -> bool {
        let word = copy.read(servers);
        word.is_some_and(|word| self.allowed.contains(&word))
    }
}

/// A child that lives.
#[derive(Debug, Default)]
pub(super) struct Child {
    remote: Vec<Remote>,
    sessions: Vec<(usize, [u8; 16])>,
    is_some_spoilt: bool,
}

impl Child {
    /// The child of a fork at this moment; servers may have some pages spoilt. `of_local`
    /// reads a page of the local tier, which the child has as well.
    ///
    /// # Errors
    /// What it would find that is wrong.
    pub(super) fn fork(
        world: &mut World,
        servers: &ModelServers,
        is_some_spoilt: bool,
        of_local: &mut dyn FnMut(At) -> Option<Option<u64>>,
    ) -> Result<Child, String> {
        world.ptes.values_mut().for_each(|pte| pte.shared = true);
        let mut child = Child {
            is_some_spoilt,
            ..Child::default()
        };
        let manifest = current();
        let sessions = manifest.map_or(&[][..], |m| &m.sessions);
        for (server, session) in sessions.iter().enumerate() {
            child
                .sessions
                .extend(session.as_ref().map(|s| (server, s.session.0)));
        }
        // What is given up at this moment may be there for the child or not; and a child
        // that cannot be told where its pages are ends.
        if world.changing() > 0 || !world.held.is_empty() {
            return Ok(child);
        }
        if manifest.is_some_and(|m| m.refused.is_some()) {
            return Ok(child);
        }
        // Something else may have been moved to where an entry is struck.
        let entries: BTreeMap<u64, _> = manifest
            .map_or(&[][..], |m| &m.entries)
            .iter()
            .filter(|entry| entry.kind() != EntryKind::Struck)
            .map(|entry| (entry.page.get(), entry))
            .collect();
        for (page, plain) in &world.program.plain {
            if world.ptes.contains_key(page) {
                continue;
            }
            if plain.may_be_lost {
                continue;
            }
            let entry = entries.get(page).map(|e| (e.kind(), e.slot()));
            match entry {
                Some((EntryKind::Remote, Some(slot))) => {
                    let places = manifest.into_iter().flat_map(|m| m.slots.readable(slot));
                    let (mut copies, mut is_local) = (Vec::new(), false);
                    for at in places {
                        if let Some(word) = of_local(at) {
                            is_local = true;
                            if !word.is_some_and(|word| plain.allowed.contains(&word)) {
                                return Err(format!(
                                    "page {page:x} is {word:x?} in the local tier"
                                ));
                            }
                            continue;
                        }
                        let server = at.server.index();
                        // A server that was lost at this moment shows when the child joins.
                        let lives = |id| servers.has_session(server, id);
                        let mut sessions = child.sessions.iter();
                        let session = sessions.find(|(s, id)| *s == server && lives(*id));
                        copies.extend(session.map(|(_, session)| Copy {
                            server,
                            session: *session,
                            slab: at.slab,
                            page: at.page,
                        }));
                    }
                    if is_local {
                        continue;
                    }
                    if copies.is_empty() {
                        return Err(format!("page {page:x} has no place for the child"));
                    }
                    child.remote.push(Remote {
                        copies,
                        allowed: plain.allowed.clone(),
                    });
                }
                Some((EntryKind::Remote, None)) => {
                    return Err(format!("page {page:x} has no slot for the child"));
                }
                Some((EntryKind::Lost, _)) => {
                    return Err(format!("page {page:x} is lost to the child"));
                }
                _ if plain.allowed.contains(&0) => {}
                _ => return Err(format!("page {page:x} reads as zeros in the child")),
            }
        }
        child.check(servers)?;
        Ok(child)
    }

    /// Whether servers still have what they had at the fork.
    ///
    /// # Errors
    /// What they have not.
    pub(super) fn check(&self, servers: &ModelServers) -> Result<(), String> {
        for remote in &self.remote {
            let copies = remote.copies.iter();
            let wrong = copies.filter(|copy| !remote.is_right(copy, servers));
            let wrong: Vec<_> = wrong.map(|copy| copy.read(servers)).collect();
            // Where a page was spoilt on one server the child reads it from another.
            let may_be_wrong = match self.is_some_spoilt {
                true => remote.copies.len().saturating_sub(1),
                false => 0,
            };
            if wrong.len() > may_be_wrong {
                let allowed = &remote.allowed;
                return Err(format!("the child reads {wrong:x?}, not {allowed:x?}"));
            }
        }
        Ok(())
    }

    /// A server has lost all that it had. Where the others have a page spoilt it is lost.
    pub(super) fn has_lost(&mut self, server: usize, servers: &ModelServers) {
        for remote in &mut self.remote {
            remote.copies.retain(|c| c.server != server);
            let mut copies = remote.copies.iter();
            if self.is_some_spoilt && !copies.any(|copy| remote.is_right(copy, servers)) {
                remote.copies.clear();
            }
        }
    }

    /// The child ends.
    pub(super) fn end(&self, servers: &ModelServers) {
        let sessions = self.sessions.iter();
        sessions.for_each(|(server, session)| servers.end_session(*server, *session));
    }
}
