//! Which pages of a slab its owner has stored.

use super::files::bits::Place;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// One bit for each page. Readers and writers on several connections use it
/// at the same time; each bit by itself is always right.
#[derive(Debug)]
pub(crate) struct Bitmap {
    pages: u32,
    words: Words,
}

/// Where the bits are.
#[derive(Debug)]
enum Words {
    /// In memory that is taken when the first is set.
    Own(OnceLock<Box<[AtomicU64]>>),
    /// In a file, and nowhere else.
    File(Place),
}

/// Pages `start..end` that are all set, or all clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) set: bool,
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Bitmap {
    /// All clear.
    pub(crate) fn new(pages: u32) -> Bitmap {
        Bitmap {
            pages,
            words: Words::Own(OnceLock::new()),
        }
    }

    /// Those of a place in a file.
    pub(crate) fn in_file(pages: u32, place: Place) -> Bitmap {
        Bitmap {
            pages,
            words: Words::File(place),
        }
    }

    /// The place in a file, where it is in one.
    pub(crate) fn place(&self) -> Option<u32> {
        match &self.words {
            Words::Own(_) => None,
            Words::File(place) => Some(place.number()),
        }
    }

    fn words(&self) -> &[AtomicU64] {
        match &self.words {
            Words::Own(words) => words.get().map_or(&[], |words| words),
            Words::File(place) => place.words(),
        }
    }

    /// The words, with memory.
    fn words_to_set(&self) -> &[AtomicU64] {
        let none = || {
            let words = self.pages.div_ceil(64);
            (0..words).map(|_| AtomicU64::new(0)).collect()
        };
        match &self.words {
            Words::Own(words) => words.get_or_init(none),
            Words::File(place) => place.words(),
        }
    }

    /// Takes over the bits of another, of as many pages; its own must be clear.
    pub(crate) fn copy_from(&self, other: &Bitmap) {
        if other.count() > 0 {
            let both = self.words_to_set().iter().zip(other.words());
            both.for_each(|(to, from)| to.store(from.load(Ordering::Acquire), Ordering::Release));
        }
    }

    pub(crate) fn get(&self, page: u32) -> bool {
        let word = self.words().get(page as usize / 64);
        word.is_some_and(|w| w.load(Ordering::Acquire) & (1 << (page % 64)) != 0)
    }

    /// Sets `start..end`; how many were clear.
    pub(crate) fn set(&self, start: u32, end: u32) -> u32 {
        let mut changed = 0;
        let words = self.words_to_set();
        masks(start, end, |word, mask| {
            let old = words[word].fetch_or(mask, Ordering::AcqRel);
            changed += (mask & !old).count_ones();
        });
        changed
    }

    /// Clears `start..end`; how many were set.
    pub(crate) fn clear(&self, start: u32, end: u32) -> u32 {
        let mut changed = 0;
        let words = self.words();
        masks(start, end, |word, mask| {
            let Some(word) = words.get(word) else { return };
            let old = word.fetch_and(!mask, Ordering::AcqRel);
            changed += (mask & old).count_ones();
        });
        changed
    }

    /// How many are set.
    pub(crate) fn count(&self) -> u32 {
        let ones = |w: &AtomicU64| w.load(Ordering::Acquire).count_ones();
        self.words().iter().map(ones).sum()
    }

    /// The runs of set pages.
    pub(crate) fn all_set(&self) -> impl Iterator<Item = Run> {
        let end = if self.words().is_empty() {
            0
        } else {
            self.pages
        };
        self.runs(0, end).filter(|run| run.set)
    }

    /// `start..end` as runs that alternate.
    pub(crate) fn runs(&self, start: u32, end: u32) -> impl Iterator<Item = Run> {
        runs(start, end, |page| self.get(page))
    }
}

/// `start..end` as runs of pages for which `is_set` says the same.
pub(crate) fn runs(
    start: u32,
    end: u32,
    is_set: impl Fn(u32) -> bool,
) -> impl Iterator<Item = Run> {
    let mut next = start;
    let mut ahead = None;
    std::iter::from_fn(move || {
        if next >= end {
            return None;
        }
        let start = next;
        let set = ahead.take().unwrap_or_else(|| is_set(start));
        next += 1;
        while next < end {
            // Asked once only: another connection may change it meanwhile.
            let other = is_set(next);
            if other != set {
                ahead = Some(other);
                break;
            }
            next += 1;
        }
        Some(Run {
            set,
            start,
            end: next,
        })
    })
}

fn masks(start: u32, end: u32, mut f: impl FnMut(usize, u64)) {
    let mut at = start;
    while at < end {
        let bits = (64 - at % 64).min(end - at);
        let mask = (u64::MAX >> (64 - bits)) << (at % 64);
        f(at as usize / 64, mask);
        at += bits;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_bitmap_is_a_set_of_pages(
            steps in prop::collection::vec((any::<bool>(), 0u32..300, 0u32..300), 1..40),
        ) {
            let map = Bitmap::new(300);
            let mut model = [false; 300];
            for (set, a, b) in steps {
                let (start, end) = (a.min(b), a.max(b));
                let range = &mut model[start as usize..end as usize];
                let changed = range.iter().filter(|p| **p != set).count() as u32;
                range.fill(set);
                let got = if set { map.set(start, end) } else { map.clear(start, end) };
                prop_assert_eq!(got, changed);
            }
            for (page, set) in model.iter().enumerate() {
                prop_assert_eq!(map.get(page as u32), *set);
            }
            prop_assert_eq!(map.count() as usize, model.iter().filter(|p| **p).count());
            let copy = Bitmap::new(300);
            copy.copy_from(&map);
            prop_assert_eq!(copy.count(), map.count());
            let set: u32 = map.all_set().map(|run| run.end - run.start).sum();
            prop_assert_eq!(set, map.count());
            let mut at = 0;
            let mut last = None;
            for run in map.runs(0, 300) {
                prop_assert_eq!(run.start, at);
                prop_assert!(run.end > run.start);
                prop_assert_ne!(last, Some(run.set));
                prop_assert!((run.start..run.end).all(|p| map.get(p) == run.set));
                (at, last) = (run.end, Some(run.set));
            }
            prop_assert_eq!(at, 300);
        }
    }
}
