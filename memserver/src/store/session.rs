//! One session: the slabs of one client.

use super::files::record::{Held, Record};
use super::name::SessionName;
use super::pool::Pool;
use super::slab::Slab;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use tmem_wire::{MAX_CONTROL, Status};

/// The most slabs one GRANT gives: what its reply can list.
const MAX_GRANT: u32 = MAX_CONTROL / 4;

/// Bytes of the tables in which sessions have their slabs: of one client, and of all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tables {
    pub(crate) all: Arc<AtomicU64>,
    pub(crate) own: Arc<AtomicU64>,
    /// Pages of the slabs that the client was granted.
    pub(crate) pages: Arc<AtomicU64>,
}

impl Tables {
    pub(crate) fn add(&self, bytes: u64) {
        self.all.fetch_add(bytes, Ordering::Relaxed);
        self.own.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn sub(&self, bytes: u64) {
        self.all.fetch_sub(bytes, Ordering::Relaxed);
        self.own.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The slabs of one client.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) name: SessionName,
    slabs: RwLock<Slabs>,
    /// Held by WRITEs, and KEYS for writing, under way; SHARE waits for them.
    pub(crate) writing: RwLock<()>,
    tables: Tables,
    pool: Arc<Pool>,
}

#[derive(Debug, Default)]
pub(crate) struct Slabs {
    /// Numbers are not used twice, so that a RELEASE that is sent again after
    /// a broken connection cannot hit another slab.
    next: u32,
    map: HashMap<u32, Arc<Slab>>,
}

impl Slabs {
    /// Slabs with their numbers, and the number of the next.
    pub(super) fn of(next: u32, slabs: impl Iterator<Item = (u32, Slab)>) -> Slabs {
        Slabs {
            next,
            map: slabs
                .map(|(number, slab)| (number, Arc::new(slab)))
                .collect(),
        }
    }

    /// The number of the next.
    pub(super) fn next(&self) -> u32 {
        self.next
    }

    /// Where they are in the server's files.
    pub(super) fn held(&self) -> Vec<Held> {
        let held = |(number, slab): (&u32, &Arc<Slab>)| {
            let (slab, bits) = slab.place()?;
            Some(Held {
                number: *number,
                slab,
                bits,
            })
        };
        self.map.iter().filter_map(held).collect()
    }
}

impl Session {
    /// One without slabs.
    pub(crate) fn new(name: SessionName, tables: Tables, pool: Arc<Pool>) -> Session {
        Session {
            name,
            slabs: RwLock::default(),
            writing: RwLock::new(()),
            tables,
            pool,
        }
    }

    /// Gives the slabs of its parent, or those that it had before, to a session that has none yet.
    pub(crate) fn fill(&self, slabs: Slabs) {
        let mut own = self.slabs.write().unwrap_or_else(PoisonError::into_inner);
        *own = slabs;
        drop(own);
        self.tables.add(self.table_bytes());
    }

    /// The account of its client.
    pub(crate) fn tables(&self) -> &Tables {
        &self.tables
    }

    /// How many slabs it has.
    pub(crate) fn len(&self) -> usize {
        let slabs = self.slabs.read().unwrap_or_else(PoisonError::into_inner);
        slabs.map.len()
    }

    /// Bytes of its table.
    pub(crate) fn table_bytes(&self) -> u64 {
        self.len() as u64 * self.pool.bytes_of_hold()
    }

    /// The slab of that number.
    pub(crate) fn slab(&self, number: u32) -> Option<Arc<Slab>> {
        let slabs = self.slabs.read().unwrap_or_else(PoisonError::into_inner);
        slabs.map.get(&number).cloned()
    }

    /// Whether its client would have more than so many pages with a further slab.
    pub(crate) fn is_at_limit(&self, most: u64) -> bool {
        let pages = self.tables.pages.load(Ordering::Relaxed);
        pages.saturating_add(self.pool.slab_pages().into()) > most
    }

    /// Up to `count` fresh slabs.
    ///
    /// # Errors
    /// [`Status::Full`] when there is none, or its client may have no more than `most` pages and
    /// has them.
    pub(crate) fn grant(&self, count: u32, most: u64) -> Result<Vec<u32>, Status> {
        if count == 0 {
            return Err(Status::BadRequest);
        }
        let mut slabs = self.slabs.write().unwrap_or_else(PoisonError::into_inner);
        let (mut next, mut granted) = (slabs.next, Slabs::default());
        for _ in 0..count.min(MAX_GRANT) {
            let Some(after) = next.checked_add(1) else {
                break;
            };
            if self.is_at_limit(most) {
                break;
            }
            let Some(slab) = Slab::of(&self.pool, &self.tables.pages) else {
                break;
            };
            granted.map.insert(next, Arc::new(slab));
            next = after;
        }
        if granted.map.is_empty() {
            return Err(Status::Full);
        }
        self.pool.note(|| Record::Grant {
            name: self.name,
            next,
            slabs: granted.held(),
        })?;
        let mut numbers: Vec<u32> = granted.map.keys().copied().collect();
        numbers.sort_unstable();
        slabs.next = next;
        slabs.map.extend(granted.map);
        self.tables
            .add(numbers.len() as u64 * self.pool.bytes_of_hold());
        Ok(numbers)
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
        // Where that is not noted, a later note says it too.
        let _ = self.pool.note(|| Record::Release {
            name: self.name,
            numbers: numbers.to_vec(),
        });
        // The kernel takes its time to take memory back.
        drop(slabs);
        self.tables
            .sub(gone.len() as u64 * self.pool.bytes_of_hold());
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

    /// Every slab once more, for another session; none where there is no room for that.
    pub(crate) fn shared(&self) -> Option<Slabs> {
        // A page that is half received must not change after it is shared.
        let _writing = self.writing.write().unwrap_or_else(PoisonError::into_inner);
        let slabs = self.slabs.read().unwrap_or_else(PoisonError::into_inner);
        let share = |(number, slab): (&u32, &Arc<Slab>)| {
            slab.end_write_keys();
            Some((*number, Arc::new(slab.share()?)))
        };
        Some(Slabs {
            next: slabs.next,
            map: slabs.map.iter().map(share).collect::<Option<_>>()?,
        })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.pool.is_closing() {
            // Before its slabs go. Where that is not noted, a later note says it too.
            let _ = self.pool.note(|| Record::End(self.name));
        }
        self.tables.sub(self.table_bytes());
    }
}
