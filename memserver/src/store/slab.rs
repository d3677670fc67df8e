//! Slabs: the pages that one or several sessions own.

use super::bitmap::{Bitmap, Run, runs};
use super::keys::Keys;
use super::pool::Pool;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use tmem_wire::{PAGE_SIZE, PageBytes, Status};

/// The pages of one slab, which several sessions may own.
#[derive(Debug)]
struct Memory {
    number: u64,
    /// Pages of the slabs that the client was granted of whose account this is.
    account: Arc<AtomicU64>,
    owners: Mutex<Owners>,
    pool: Arc<Pool>,
}

/// Who has a slab. What no owner has stored is zeros, or partly received.
#[derive(Debug)]
struct Owners {
    /// How many there are.
    count: usize,
    /// Where there are several: how many of them have stored each page. Its memory is given
    /// back when none has it. Nothing is stored meanwhile.
    held: Option<Box<[u32]>>,
    /// Devices that may reach the memory, which then stays where it is.
    pins: usize,
    /// Those of them that may write it.
    writers: usize,
}

impl Memory {
    /// The slab of a number, which nobody owns yet, on the account of a client.
    fn new(pool: &Arc<Pool>, number: u64, account: &Arc<AtomicU64>) -> Memory {
        account.fetch_add(pool.slab_pages().into(), Ordering::Relaxed);
        Memory {
            number,
            account: account.clone(),
            owners: Mutex::new(Owners {
                count: 0,
                held: None,
                pins: 0,
                writers: 0,
            }),
            pool: pool.clone(),
        }
    }

    fn owners(&self) -> MutexGuard<'_, Owners> {
        // Nothing panics while it is held, and any state of it is valid.
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where `page` is, which must be one of the slab's or the end.
    fn at(&self, page: u32) -> *mut u8 {
        self.pool.at(self.number, page)
    }

    /// Gives pages back, or empties them where a device goes on with them.
    fn empty(&self, pins: usize, start: u32, end: u32) {
        if pins == 0 {
            self.give_back(start, end);
            return;
        }
        let len = (end - start) as usize * PAGE_SIZE;
        // SAFETY: the range lies within the slab, and nobody has references
        // to it.
        unsafe { self.at(start).write_bytes(0, len) };
    }

    /// One of several owners has the pages no longer; how many nobody has any more.
    fn let_go(&self, owners: &mut Owners, start: u32, end: u32) -> u32 {
        let pins = owners.pins;
        let Some(held) = &mut owners.held else {
            return 0;
        };
        held[start as usize..end as usize]
            .iter_mut()
            .for_each(|n| *n -= 1);
        let mut gone = 0;
        for run in runs(start, end, |page| held[page as usize] > 0) {
            if !run.set {
                self.empty(pins, run.start, run.end);
                gone += run.end - run.start;
            }
        }
        gone
    }

    /// The caller knows that no device has the slab.
    fn give_back(&self, start: u32, end: u32) {
        self.pool.give_back(self.number, start, end);
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let pages = self.pool.slab_pages();
        self.account.fetch_sub(pages.into(), Ordering::Relaxed);
        if self.pool.is_closing() {
            return;
        }
        self.give_back(0, self.pool.slab_pages());
        // Only now: what is granted is never more than the capacity.
        self.pool.put_back(self.number);
    }
}

/// Keeps a slab's memory where it is, as long as a device may reach it.
#[derive(Debug)]
pub(crate) struct Pin {
    memory: Arc<Memory>,
    write: bool,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut owners = self.memory.owners();
        owners.pins -= 1;
        owners.writers -= usize::from(self.write);
    }
}

/// One session's ownership of a slab. Dropping it gives the slab back, as far
/// as no other session owns it.
#[derive(Debug)]
pub(crate) struct Slab {
    memory: Arc<Memory>,
    /// What this owner has stored.
    present: Bitmap,
    keys: Keys<Pin>,
    /// Held by WRITEs under way, where memory that is given back meanwhile may not be had again.
    writing: RwLock<()>,
}

impl Slab {
    /// A slab without contents, on the account of a client; none when the pool is used up.
    pub(crate) fn of(pool: &Arc<Pool>, account: &Arc<AtomicU64>) -> Option<Slab> {
        let present = pool.bitmap()?;
        let memory = Memory::new(pool, pool.take()?, account);
        memory.owners().count = 1;
        Some(Slab::owned(Arc::new(memory), present))
    }

    fn owned(memory: Arc<Memory>, present: Bitmap) -> Slab {
        Slab {
            memory,
            present,
            keys: Keys::default(),
            writing: RwLock::new(()),
        }
    }

    /// The ownerships of a slab that was there before this process, each by what it has stored.
    pub(crate) fn restored(
        pool: &Arc<Pool>,
        number: u32,
        account: &Arc<AtomicU64>,
        owners: Vec<Bitmap>,
    ) -> Vec<Slab> {
        let memory = Arc::new(Memory::new(pool, number.into(), account));
        let mut stored = vec![0; pool.slab_pages() as usize];
        for run in owners.iter().flat_map(Bitmap::all_set) {
            let pages = run.start as usize..run.end as usize;
            stored[pages].iter_mut().for_each(|n| *n += 1);
        }
        pool.add_stored(stored.iter().filter(|n| **n > 0).count() as u32);
        let mut own = memory.owners();
        own.count = owners.len();
        own.held = (owners.len() > 1).then(|| stored.into());
        drop(own);
        let slab = |present| Slab::owned(memory.clone(), present);
        owners.into_iter().map(slab).collect()
    }

    /// Another ownership of the same pages, which then cannot be written until
    /// one of the two is gone; none when there is no room for it.
    pub(crate) fn share(&self) -> Option<Slab> {
        let present = self.memory.pool.bitmap()?;
        let mut owners = self.memory.owners();
        present.copy_from(&self.present);
        let pages = self.memory.pool.slab_pages();
        let own = |page| u32::from(self.present.get(page));
        let held = owners
            .held
            .get_or_insert_with(|| (0..pages).map(own).collect());
        for run in present.all_set() {
            held[run.start as usize..run.end as usize]
                .iter_mut()
                .for_each(|n| *n += 1);
        }
        owners.count += 1;
        drop(owners);
        Some(Slab::owned(self.memory.clone(), present))
    }

    /// Where it is in the server's files: which slab it is, and where its bits are.
    pub(crate) fn place(&self) -> Option<(u32, u32)> {
        let slab = u32::try_from(self.memory.number).ok()?;
        Some((slab, self.present.place()?))
    }

    /// Makes sure that pages, which must be the slab's, have memory to be written to, which
    /// they keep as long as the guard is there.
    ///
    /// # Errors
    /// [`Status::Full`] when there is none.
    pub(crate) fn begin_write(
        &self,
        start: u32,
        end: u32,
    ) -> Result<RwLockReadGuard<'_, ()>, Status> {
        let guard = self.writing.read().unwrap_or_else(PoisonError::into_inner);
        let taken_ahead = self.memory.pool.files().is_some();
        let runs = taken_ahead.then(|| self.runs(start, end));
        for run in runs.into_iter().flatten().filter(|run| !run.set) {
            self.memory
                .pool
                .reserve(self.memory.number, run.start, run.end)?;
        }
        Ok(guard)
    }

    /// Whether somebody else owns it too.
    pub(crate) fn is_shared(&self) -> bool {
        self.memory.owners().count > 1
    }

    /// The keys to it.
    pub(crate) fn keys(&self) -> &Keys<Pin> {
        &self.keys
    }

    /// Keeps its memory where it is; for writing, only when nobody else has
    /// it.
    pub(crate) fn pin(&self, write: bool) -> Result<Pin, Status> {
        let mut owners = self.memory.owners();
        if write && owners.count > 1 {
            return Err(Status::Shared);
        }
        owners.pins += 1;
        owners.writers += usize::from(write);
        Ok(Pin {
            memory: self.memory.clone(),
            write,
        })
    }

    /// Pages of it.
    pub(crate) fn pages(&self) -> u32 {
        self.memory.pool.slab_pages()
    }

    /// Bytes of it.
    pub(crate) fn len(&self) -> usize {
        self.memory.pool.slab_pages() as usize * PAGE_SIZE
    }

    /// The memory of `page`, which must be one of the slab's.
    pub(crate) fn page(&self, page: u32) -> *mut u8 {
        self.memory.at(page)
    }

    /// Copies what `page`, which must be one of the slab's, holds now. Where it is written
    /// meanwhile, that is any mixture.
    pub(crate) fn copy(&self, page: u32, to: &mut PageBytes) {
        self.memory.pool.copy(self.memory.number, page, to);
    }

    /// The runs of pages that this owner has stored, and has not.
    pub(crate) fn runs(&self, start: u32, end: u32) -> impl Iterator<Item = Run> {
        self.present.runs(start, end)
    }

    /// The pages hold what their owner sent.
    pub(crate) fn written(&self, start: u32, end: u32) {
        let new = self.present.set(start, end);
        if new > 0 {
            self.memory.pool.add_stored(new);
        }
    }

    /// Any page may hold what its owner has sent.
    pub(crate) fn all_written(&self) {
        self.written(0, self.memory.pool.slab_pages());
    }

    /// This owner wants the pages no longer.
    pub(crate) fn discard(&self, start: u32, end: u32) {
        let mut owners = self.memory.owners();
        let mut gone = 0;
        if owners.count == 1 {
            // A device that may write does not say when it does.
            if owners.writers == 0 {
                gone = self.present.clear(start, end);
            }
            // Memory that a WRITE relies on stays until the slab goes, or another DISCARD comes.
            let alone = self.writing.try_write();
            if alone.is_ok() || self.memory.pool.files().is_none() {
                self.memory.empty(owners.pins, start, end);
            }
        } else {
            let mine: Vec<Run> = self.runs(start, end).filter(|r| r.set).collect();
            for run in mine {
                self.present.clear(run.start, run.end);
                gone += self.memory.let_go(&mut owners, run.start, run.end);
            }
        }
        self.memory.pool.sub_stored(gone);
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        // No device may reach what the next owner is given.
        self.keys.end();
        if self.memory.pool.is_closing() {
            return;
        }
        let mut owners = self.memory.owners();
        let mut gone = 0;
        if owners.count == 1 {
            // The memory goes with its last owner.
            gone = self.present.count();
        } else {
            for run in self.present.all_set() {
                gone += self.memory.let_go(&mut owners, run.start, run.end);
            }
        }
        owners.count -= 1;
        if owners.count == 1 {
            // It may store again, which is not counted.
            owners.held = None;
        }
        self.memory.pool.sub_stored(gone);
    }
}
