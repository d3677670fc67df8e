//! What the records of a session table amount to, as pure data.

use super::record::{Held, Record};
use crate::client::Client;
use crate::store::name::SessionName;
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// The sessions that there are, and what they hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) sessions: BTreeMap<SessionName, Kept>,
}

/// One session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) client: Client,
    /// Nobody has joined it, and it lives with this one.
    pub(crate) parent: Option<SessionName>,
    /// The number of its next slab.
    pub(crate) next: u32,
    /// By its numbers: which slab of the server, and where the bits of its pages are.
    pub(crate) slabs: BTreeMap<u32, (u32, u32)>,
}

impl State {
    /// Takes in a record; `false` when it contradicts those before it.
    pub(crate) fn apply(&mut self, record: &Record) -> bool {
        match record {
            Record::Session {
                name,
                client,
                parent,
                next,
                slabs,
            } => {
                let kept = Kept {
                    client: *client,
                    parent: *parent,
                    next: *next,
                    slabs: BTreeMap::new(),
                };
                let is_new = self.sessions.insert(*name, kept).is_none();
                is_new && self.add(*name, slabs)
            }
            Record::Grant { name, next, slabs } => {
                let Some(session) = self.sessions.get_mut(name) else {
                    return false;
                };
                session.next = *next;
                self.add(*name, slabs)
            }
            Record::Release { name, numbers } => {
                let Some(session) = self.sessions.get_mut(name) else {
                    return false;
                };
                let gone = numbers.iter().filter_map(|n| session.slabs.remove(n));
                gone.count() == numbers.len()
            }
            Record::Joined(name) => match self.sessions.get_mut(name) {
                Some(session) => {
                    session.parent = None;
                    true
                }
                None => false,
            },
            Record::End(name) => self.sessions.remove(name).is_some(),
        }
    }

    /// Notes that a session has slabs; whether it had none of these numbers.
    fn add(&mut self, name: SessionName, slabs: &[Held]) -> bool {
        let Some(session) = self.sessions.get_mut(&name) else {
            return false;
        };
        for held in slabs {
            let place = (held.slab, held.bits);
            if session.slabs.insert(held.number, place).is_some() {
                return false;
            }
        }
        true
    }

    /// The fewest records that amount to the same.
    pub(crate) fn records(&self) -> impl Iterator<Item = Record> {
        self.sessions.iter().map(|(name, kept)| {
            let held = |(number, (slab, bits)): (&u32, &(u32, u32))| Held {
                number: *number,
                slab: *slab,
                bits: *bits,
            };
            Record::Session {
                name: *name,
                client: kept.client,
                parent: kept.parent,
                next: kept.next,
                slabs: kept.slabs.iter().map(held).collect(),
            }
        })
    }

    /// Whether all that is held is there: slabs below `slabs`, numbers below each session's next,
    /// and places of bits below `places` that nobody else has.
    pub(crate) fn fits(&self, slabs: u64, places: u32) -> bool {
        let mut taken = HashSet::new();
        self.sessions.values().all(|session| {
            session.slabs.iter().all(|(number, (slab, bits))| {
                *number < session.next
                    && u64::from(*slab) < slabs
                    && *bits < places
                    && taken.insert(*bits)
            })
        })
    }

    /// The slabs that are held.
    pub(crate) fn slabs(&self) -> BTreeSet<u32> {
        let of = |s: &Kept| s.slabs.values().map(|(slab, _)| *slab).collect::<Vec<_>>();
        self.sessions.values().flat_map(of).collect()
    }

    /// The places of bits that are taken.
    pub(crate) fn places(&self) -> impl Iterator<Item = u32> {
        let of = |s: &Kept| s.slabs.values().map(|(_, bits)| *bits).collect::<Vec<_>>();
        self.sessions.values().flat_map(of)
    }

    /// The largest of them.
    pub(crate) fn last_place(&self) -> Option<u32> {
        self.places().max()
    }
}
