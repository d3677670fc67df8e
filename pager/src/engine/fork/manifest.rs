//! The fork manifest: what a child is told of pages that are not in its memory, and the log
//! of what the program changed during the fork (see `fork`).

use crate::digest::Digester;
use crate::net::LocalCopy;
use crate::slots::{Slot, Slots};
use crate::sys::mem::Region;
use crate::sys::{now_ns, thread};
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::Ordering::SeqCst;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize};
use rustix::io::Errno;
use tmem_policy::PageNumber;
use tmem_wire::HelloReply;

/// How long the child waits until its parent's engine closes the log.
const LOG_PATIENCE_NS: u64 = 10_000_000_000;
/// Time between two checks, in microseconds.
const NAP_US: u64 = 50;

/// An entry for one page, in 24 bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) page: PageNumber,
    pub(crate) hash: u64,
    /// The slot in the low 40 bits, then whether there is one, then the kind.
    bits: u64,
}

const _: () = assert!(size_of::<Entry>() == 24);
const HAS_SLOT: u64 = 1 << Slot::BITS;
const KIND: u32 = Slot::BITS + 1;

impl Entry {
    pub(crate) fn new(page: PageNumber, slot: Option<Slot>, hash: u64, kind: EntryKind) -> Entry {
        let slot = slot.map_or(0, |slot| slot.bits() | HAS_SLOT);
        let bits = slot | (kind as u64) << KIND;
        Entry { page, hash, bits }
    }

    /// Returns the slot, if there is one.
    pub(crate) fn slot(&self) -> Option<Slot> {
        (self.bits & HAS_SLOT != 0).then(|| Slot::from_bits(self.bits))
    }

    pub(crate) fn kind(&self) -> EntryKind {
        match self.bits >> KIND {
            0 => EntryKind::Local,
            1 => EntryKind::Remote,
            2 => EntryKind::Lost,
            _ => EntryKind::Struck,
        }
    }

    /// Changes the kind. A lost page has no slot.
    pub(crate) fn become_kind(&mut self, kind: EntryKind) {
        let slot = self.slot().filter(|_| kind != EntryKind::Lost);
        *self = Entry::new(self.page, slot, self.hash, kind);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    /// In the program's memory, with a copy in the slot.
    Local,
    /// On a server only.
    Remote,
    /// Lost.
    Lost,
    /// Given up by the program.
    Struck,
}

/// The fork manifest.
#[derive(Debug)]
pub struct ForkManifest {
    pub(crate) entries: Vec<Entry>,
    pub(crate) adopted: Vec<Range<usize>>,
    /// The child's session with each server.
    pub(crate) sessions: Vec<Option<HelloReply>>,
    pub(crate) slots: Slots,
    /// The local tier, if the parent has one.
    pub(crate) local: Option<LocalCopy>,
    /// Has computed the digests of the entries.
    pub(crate) digester: &'static Digester,
    /// Why the child cannot go on.
    pub(crate) refused: Option<String>,
    /// Twice the number of batches of events read so far, plus one while a batch is being
    /// read and followed.
    batch: AtomicU32,
    /// The entries may not be in the order of their pages any more.
    moved: AtomicBool,
    log: Region,
}

/// The log of what the program changed while the engine was quiescent. Parent and child
/// share it.
#[repr(C)]
struct Log {
    /// Set when nothing more will be added.
    closed: AtomicU32,
    /// Set when there were too many changes.
    overflown: AtomicU32,
    len: AtomicU32,
    records: [Record; RECORDS],
}

#[repr(C)]
struct Record {
    batch: AtomicU32,
    /// The kind of [`Change`].
    kind: AtomicU32,
    start: AtomicUsize,
    end: AtomicUsize,
    to: AtomicUsize,
}

/// A change of a range by the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The contents were given up.
    Discarded(Range<usize>),
    /// The range was unmapped.
    Unmapped(Range<usize>),
    /// The range was moved to this address.
    Moved(Range<usize>, usize),
}

impl Change {
    /// Returns the range that was changed.
    pub(crate) fn range(&self) -> &Range<usize> {
        match self {
            Change::Discarded(range) | Change::Unmapped(range) | Change::Moved(range, _) => range,
        }
    }

    /// Applies the change to entries.
    pub(crate) fn apply(&self, entries: &mut [Entry]) {
        let range = self.range();
        let pages = PageNumber::containing(range.start)..PageNumber::containing(range.end);
        for entry in entries.iter_mut().filter(|e| pages.contains(&e.page)) {
            match self {
                Change::Discarded(_) | Change::Unmapped(_) => {
                    entry.become_kind(EntryKind::Struck);
                }
                Change::Moved(_, to) => {
                    entry.page = PageNumber::containing(*to) + (entry.page - pages.start);
                }
            }
        }
    }
}

const RECORDS: usize = 1024;

impl ForkManifest {
    /// Creates a manifest.
    ///
    /// # Errors
    /// Those of the kernel, when there is no memory for the log.
    pub(crate) fn new(
        entries: Vec<Entry>,
        adopted: Vec<Range<usize>>,
        sessions: Vec<Option<HelloReply>>,
        (slots, local): (Slots, Option<LocalCopy>),
        digester: &'static Digester,
        refused: Option<String>,
    ) -> Result<ForkManifest, Errno> {
        Ok(ForkManifest {
            entries,
            adopted,
            sessions,
            slots,
            local,
            digester,
            refused,
            batch: AtomicU32::new(0),
            moved: AtomicBool::new(false),
            log: Region::shared(size_of::<Log>())?,
        })
    }

    /// Notes that events are about to be read.
    pub(crate) fn batch_begins(&self) {
        self.batch.fetch_add(1, SeqCst);
    }

    /// Notes that these events have been followed.
    pub(crate) fn batch_ends(&self) {
        self.batch.fetch_add(1, SeqCst);
    }

    /// Applies a change of the program's memory, and logs it.
    pub(crate) fn strike(&mut self, change: &Change) {
        self.log().add(self.batch.load(SeqCst) + 1, change);
        if matches!(change, Change::Moved(..)) {
            self.moved.store(true, SeqCst);
        }
        // Each store is one word of an entry, so a child that is copied at this moment has
        // consistent words.
        change.apply(&mut self.entries);
    }

    /// Closes the log after the fork.
    pub(crate) fn close(&self) {
        self.log().closed.store(1, SeqCst);
        self.log.unmap();
    }

    fn log(&self) -> &Log {
        // SAFETY: a shared mapping of that size. Its initial zeros are valid, since all
        // fields are atomics.
        unsafe { &*(self.log.start as *const Log) }
    }

    /// Waits until all changes at the time of the fork are known. Returns those that came
    /// before the fork, and those that may have come before or after it.
    pub(crate) fn changes(&self) -> Result<(Vec<Change>, Vec<Change>), String> {
        let log = self.log();
        let start = now_ns();
        while log.closed.load(SeqCst) == 0 {
            if now_ns() > start + LOG_PATIENCE_NS {
                return Err(String::from(
                    "the parent ended before it could tell what its child inherits",
                ));
            }
            thread::sleep_us(NAP_US);
        }
        if log.overflown.load(SeqCst) != 0 {
            return Err(String::from(
                "the parent changed too much of its memory while it forked",
            ));
        }
        Ok(self.changes_since(self.batch()))
    }

    /// Returns the batch number, which is odd while a batch is being followed.
    pub(crate) fn batch(&self) -> u32 {
        self.batch.load(SeqCst)
    }

    /// Returns [`ForkManifest::changes`] for a child that was forked at `batch`.
    pub(crate) fn changes_since(&self, batch: u32) -> (Vec<Change>, Vec<Change>) {
        // The number of the batch that was being followed when the address space was
        // copied.
        let at_fork = batch.next_multiple_of(2);
        let (mut before, mut unknown) = (Vec::new(), Vec::new());
        let log = self.log();
        for record in &log.records[..log.len.load(SeqCst) as usize] {
            let change = record.change();
            let of = record.batch.load(SeqCst);
            // A page whose contents were given up at that moment may hold either the old
            // contents or zeros. The program cannot expect one of them.
            let matters = !matches!(change, Change::Discarded(_));
            if of == at_fork && batch != at_fork {
                before.push(change);
            } else if of > at_fork && matters {
                unknown.push(change);
            }
        }
        (before, unknown)
    }

    /// Tells whether the entries are in the order of their pages.
    pub(crate) fn is_sorted(&self) -> bool {
        !self.moved.load(SeqCst)
    }

    /// Frees the log in the child, which has read everything.
    pub(crate) fn read(&self) {
        self.log.unmap();
    }
}

impl Log {
    fn add(&self, batch: u32, change: &Change) {
        let len = self.len.load(SeqCst);
        let Some(record) = self.records.get(len as usize) else {
            self.overflown.store(1, SeqCst);
            return;
        };
        let (kind, to) = match change {
            Change::Discarded(_) => (0, 0),
            Change::Unmapped(_) => (1, 0),
            Change::Moved(_, to) => (2, *to),
        };
        record.batch.store(batch, SeqCst);
        record.kind.store(kind, SeqCst);
        record.start.store(change.range().start, SeqCst);
        record.end.store(change.range().end, SeqCst);
        record.to.store(to, SeqCst);
        self.len.store(len + 1, SeqCst);
    }
}

impl Record {
    fn change(&self) -> Change {
        let range = self.start.load(SeqCst)..self.end.load(SeqCst);
        match self.kind.load(SeqCst) {
            0 => Change::Discarded(range),
            1 => Change::Unmapped(range),
            _ => Change::Moved(range, self.to.load(SeqCst)),
        }
    }
}
