//! What the engine knows of each page: 2 MiB chunks of entries, made when the
//! first page of a chunk is evicted.

use crate::slots::Slot;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// Pages per chunk.
pub(crate) const CHUNK: u64 = 512;

/// Where a page is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    /// Not held by the engine: in the program, or never touched.
    #[default]
    Local,
    /// In a frame of the pool.
    Pooled(u32),
    /// On a server only.
    Remote,
    /// On its way from a server into a frame.
    Fetching(u32),
    /// On a server that is gone.
    Lost,
}

/// An entry.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Page {
    /// Where the page is.
    pub(crate) state: State,
    /// Where a server has what `hash` is the hash of.
    pub(crate) slot: Option<Slot>,
    /// XXH3 of what was sent last.
    pub(crate) hash: u64,
    /// In a resident queue.
    pub(crate) queued: bool,
    /// Was used again after an eviction.
    pub(crate) hot: bool,
    /// A thread waits for it.
    pub(crate) wanted: bool,
    /// Fetched ahead, and not asked for yet.
    pub(crate) ahead: bool,
}

/// Entries of all pages that have one.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    chunks: BTreeMap<u64, Box<[Page; CHUNK as usize]>>,
}

impl Pages {
    /// The entry of a page, that of an unknown page when there is none.
    pub(crate) fn get(&self, page: u64) -> Page {
        self.chunks
            .get(&(page / CHUNK))
            .map_or_else(Page::default, |c| c[(page % CHUNK) as usize])
    }

    /// The entry of a page, made if there is none.
    pub(crate) fn entry(&mut self, page: u64) -> &mut Page {
        let chunk = self
            .chunks
            .entry(page / CHUNK)
            .or_insert_with(|| Box::new([Page::default(); CHUNK as usize]));
        &mut chunk[(page % CHUNK) as usize]
    }

    /// Visits every entry from `start` to `end` that exists.
    pub(crate) fn for_range(
        &mut self,
        start: u64,
        end: u64,
        mut visit: impl FnMut(u64, &mut Page),
    ) {
        if start >= end {
            return;
        }
        for (&number, chunk) in self.chunks.range_mut(start / CHUNK..=(end - 1) / CHUNK) {
            let base = number * CHUNK;
            let from = start.saturating_sub(base).min(CHUNK) as usize;
            let to = (end - base).min(CHUNK) as usize;
            for (i, page) in chunk[from..to].iter_mut().enumerate() {
                visit(base + (from + i) as u64, page);
            }
        }
    }

    /// Visits every entry.
    pub(crate) fn for_all(&mut self, visit: impl FnMut(u64, &mut Page)) {
        self.for_range(0, u64::MAX / CHUNK * CHUNK, visit);
    }

    /// Takes the entries from `start` to `end` out, those that say something.
    pub(crate) fn take_range(&mut self, start: u64, end: u64, out: &mut Vec<(u64, Page)>) {
        self.for_range(start, end, |number, page| {
            let says = page.state != State::Local || page.slot.is_some() || page.queued;
            if says {
                out.push((number, core::mem::take(page)));
            }
        });
        // Chunks that lie wholly within say nothing any more.
        let (first, last) = (start.div_ceil(CHUNK), end / CHUNK);
        if first < last {
            let gone: Vec<u64> = self.chunks.range(first..last).map(|(n, _)| *n).collect();
            for n in gone {
                self.chunks.remove(&n);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn taking_a_range_takes_its_entries_and_no_others(
            set in proptest::collection::btree_set(0u64..3000, 0..60), a in 0u64..3000, b in 0u64..3000,
        ) {
            let (a, b) = (a.min(b), a.max(b));
            let mut pages = Pages::default();
            for &p in &set {
                pages.entry(p).state = State::Remote;
            }
            let mut out = Vec::new();
            pages.take_range(a, b, &mut out);
            let taken: Vec<u64> = out.iter().map(|(p, _)| *p).collect();
            let expected: Vec<u64> = set.range(a..b).copied().collect();
            prop_assert_eq!(taken, expected);
            for p in 0..3000 {
                let there = set.contains(&p) && !(a..b).contains(&p);
                prop_assert_eq!(pages.get(p).state == State::Remote, there);
            }
        }
    }
}
