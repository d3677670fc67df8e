//! One slab group: its replicas, and a bitmap of the pages that are free in all of them.

use super::replica::Replica;
use alloc::vec::Vec;

/// How full a slab is: the lists that slabs are kept in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Class(u8);

impl Class {
    /// Nothing to allocate in it.
    const CLOSED: Class = Class(0);
    /// Wholly free.
    pub(super) const EMPTY: Class = Class(9);
    /// Wholly free, but not to be written: to be given back.
    pub(super) const FROZEN_EMPTY: Class = Class(10);
    /// How many classes there are.
    pub(super) const COUNT: usize = 11;

    /// Small runs fill up crowded slabs.
    pub(super) const FOR_SMALL: &[Class] = &[
        Class(1),
        Class(2),
        Class(3),
        Class(4),
        Class(5),
        Class(6),
        Class(7),
        Class(8),
        Class::EMPTY,
    ];
    /// Long runs are likely in slabs mostly free; slabs wholly free come after
    /// those, since they may be given back.
    pub(super) const FOR_LARGE: &[Class] = &[
        Class(8),
        Class(7),
        Class::EMPTY,
        Class(6),
        Class(5),
        Class(4),
        Class(3),
        Class(2),
        Class(1),
    ];

    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Slab {
    /// At least one; of different servers.
    replicas: Vec<Replica>,
    /// Those whose slabs lie on the same servers.
    pub(super) set: u32,
    /// The list it is in, and where in that list.
    pub(super) class: Class,
    pub(super) place: u32,
    /// Shared with another session, or given up for failing: not written any
    /// more.
    pub(super) frozen: bool,
    /// Writes that failed, one after the other.
    pub(super) failed: u8,
    pages: u32,
    free: u32,
    /// No free run is longer than this.
    longest: u32,
    /// The word where the search for a run begins.
    hint: u32,
    /// A set bit is a free page.
    bits: Vec<u64>,
}

impl Slab {
    pub(super) fn new(replicas: Vec<Replica>, pages: u32, set: u32) -> Slab {
        let mut bits = alloc::vec![u64::MAX; pages.div_ceil(64) as usize];
        if let (Some(last), rest @ 1..) = (bits.last_mut(), pages % 64) {
            *last = (1 << rest) - 1;
        }
        Slab {
            replicas,
            set,
            class: Class::EMPTY,
            place: 0,
            frozen: false,
            failed: 0,
            pages,
            free: pages,
            longest: pages,
            hint: 0,
            bits,
        }
    }

    /// Where its pages are.
    #[inline]
    pub(super) fn replicas(&self) -> &[Replica] {
        &self.replicas
    }

    pub(super) fn replicas_mut(&mut self) -> &mut Vec<Replica> {
        &mut self.replicas
    }

    /// Replicas that are being made by fills up to `last` have these pages.
    pub(super) fn filled(&mut self, page: u32, len: u32, last: u64) {
        let replicas = self.replicas.iter_mut();
        replicas.for_each(|r| r.filled(page, len, last));
    }

    /// The class that the slab belongs to by its contents.
    pub(super) fn now(&self) -> Class {
        // What is being copied is not given back meanwhile.
        let is_bound = self.replicas.iter().any(|r| !r.is_whole());
        if is_bound && self.free == self.pages {
            return Class::CLOSED;
        }
        match (self.frozen, self.free) {
            (true, free) if free == self.pages => Class::FROZEN_EMPTY,
            (true, _) | (_, 0) => Class::CLOSED,
            (false, free) if free == self.pages => Class::EMPTY,
            (false, free) => Class(1 + (u64::from(free) * 8 / u64::from(self.pages)) as u8),
        }
    }

    /// Whether a free run of `want` pages is not known to be absent.
    pub(super) fn may_have_run(&self, want: u32) -> bool {
        !self.frozen && self.longest >= want
    }

    /// Takes a run of `want` pages, or the longest there is: first page and
    /// length.
    pub(super) fn take_run(&mut self, want: u32) -> Option<(u32, u32)> {
        // From the hint to the end, then all: a run across the hint counts.
        let start = self.hint * 64;
        let (mut page, mut len) = self.find_run(start, want);
        if len < want && start > 0 {
            (page, len) = self.find_run(0, want);
        }
        if len < want {
            self.longest = len;
        }
        if len == 0 {
            return None;
        }
        self.mark(page, len, false);
        self.free -= len;
        self.hint = (page + len) / 64;
        if self.hint as usize >= self.bits.len() {
            self.hint = 0;
        }
        Some((page, len))
    }

    /// A page that is not in use.
    pub(super) fn a_free_page(&self) -> Option<u32> {
        let word = self.bits.iter().position(|w| *w != 0)?;
        Some(word as u32 * 64 + self.bits[word].trailing_zeros())
    }

    /// How many pages can be allocated.
    pub(super) fn open_pages(&self) -> u64 {
        match self.frozen {
            true => 0,
            false => u64::from(self.free),
        }
    }

    /// How many pages are in use.
    pub(super) fn used(&self) -> u64 {
        u64::from(self.pages - self.free)
    }

    /// How many pages it has.
    pub(super) fn pages(&self) -> u32 {
        self.pages
    }

    /// The first run of pages in use at or after `from`, of at most `most`: first page and
    /// length.
    pub(super) fn used_run(&self, from: u32, most: u32) -> Option<(u32, u32)> {
        let start = self.next_with(from, false)?;
        let end = self.next_with(start, true).unwrap_or(self.pages);
        Some((start, (end - start).min(most)))
    }

    /// Frees pages; returns how many of them were in use.
    pub(super) fn free_run(&mut self, page: u32, len: u32) -> u32 {
        let end = page.saturating_add(len).min(self.pages);
        if page >= end {
            return 0;
        }
        let freed = self.mark(page, end - page, true);
        self.free += freed;
        // The freed run may join one on either side.
        self.longest = (self.longest.saturating_mul(2))
            .saturating_add(end - page)
            .min(self.free);
        freed
    }

    /// The first free run of `want` pages at or after `from`, cut to `want`;
    /// else the longest there.
    fn find_run(&self, from: u32, want: u32) -> (u32, u32) {
        let (mut best, mut best_len) = (0, 0);
        let mut at = from;
        while let Some(start) = self.next_with(at, true) {
            let end = self.next_with(start, false).unwrap_or(self.pages);
            if end - start >= want {
                return (start, want);
            }
            if end - start > best_len {
                (best, best_len) = (start, end - start);
            }
            at = end;
        }
        (best, best_len)
    }

    /// The first page at or after `from` that is free (or, with `free` false,
    /// in use).
    fn next_with(&self, from: u32, free: bool) -> Option<u32> {
        if from >= self.pages {
            return None;
        }
        let look = |word: u64| if free { word } else { !word };
        let mut i = (from / 64) as usize;
        let mut word = look(self.bits[i]) & (u64::MAX << (from % 64));
        while word == 0 {
            i += 1;
            word = look(*self.bits.get(i)?);
        }
        let page = i as u32 * 64 + word.trailing_zeros();
        (page < self.pages).then_some(page)
    }

    /// Sets the bits of a run; returns how many changed.
    fn mark(&mut self, page: u32, len: u32, free: bool) -> u32 {
        let mut changed = 0;
        let (mut at, end) = (page, page + len);
        while at < end {
            let n = (64 - at % 64).min(end - at);
            let mask = (u64::MAX >> (64 - n)) << (at % 64);
            let word = &mut self.bits[(at / 64) as usize];
            if free {
                changed += (mask & !*word).count_ones();
                *word |= mask;
            } else {
                changed += (mask & *word).count_ones();
                *word &= !mask;
            }
            at += n;
        }
        changed
    }
}
