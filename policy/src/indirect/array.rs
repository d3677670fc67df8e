//! An array of pointers that a thread walks: the place of its next pointer, the distance
//! between pointers, and the pages of the last batch.

use crate::PageNumber;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// A pointer leads to an address if it points at most this many bytes before it.
const NEAR: u64 = 64;
/// The most words from one pointer to the next.
const WIDEST: usize = 16;
/// The fewest pointers at equal distances that make an array, and the fewest pages that
/// they lead to.
const POINTERS: usize = 4;
pub(super) const PAGES: usize = 3;
/// Pages of the first batch, and the fewest and the most of any batch.
const FIRST: usize = 8;
const SMALLEST: usize = 2;
const LARGEST: usize = 64;
/// Pointers that are remembered.
const RECENT: usize = 2 * LARGEST;
/// Batches in a row without pages after which an array is given up.
const PATIENCE: usize = 256;

const PAGE: u64 = tmem_wire::PAGE_SIZE as u64;
/// Bytes of a word.
pub(super) const WORD: u64 = 8;

/// An array, and how far its thread has come.
#[derive(Clone, Debug)]
pub(super) struct PointerArray {
    /// The thread that walks it.
    pub(super) tid: u32,
    /// Bytes from one pointer to the next; negative if the thread goes down.
    pub(super) step: i64,
    /// The address of the first pointer that was not examined yet.
    pub(super) next: u64,
    /// Pages of the last batch, and pages that the thread has missed since.
    size: usize,
    misses: usize,
    /// Batches in a row without pages.
    empty: usize,
    /// The last batch.
    pages: Vec<PageNumber>,
    /// The pointers that were examined last, the oldest first.
    recent: VecDeque<u64>,
    /// How far an object extends beyond the address of its pointer, in bytes, as far as is
    /// known; and a distance that was seen only once.
    reach: u64,
    hint: u64,
}

impl PointerArray {
    /// Finds the array that thread `tid` walks upwards or downwards, if a word of `words`,
    /// which begin at address `start`, has led it to `at`.
    pub(super) fn find(
        tid: u32,
        words: &[u64],
        start: u64,
        at: u64,
        down: bool,
        is_pointer: impl Fn(u64) -> bool,
    ) -> Option<PointerArray> {
        let here = leads(words, at)?;
        PointerArray::at(tid, words, start, here, down, is_pointer)
    }

    /// The same as [`PointerArray::find`] if the word is known: it is number `here`.
    pub(super) fn at(
        tid: u32,
        words: &[u64],
        start: u64,
        here: usize,
        down: bool,
        is_pointer: impl Fn(u64) -> bool,
    ) -> Option<PointerArray> {
        let step = step(words, here, is_pointer)? as i64 * WORD as i64;
        let step = if down { -step } else { step };
        let next = (start + here as u64 * WORD).checked_add_signed(step)?;
        Some(PointerArray {
            tid,
            step,
            next,
            size: FIRST / 2,
            misses: 0,
            empty: 0,
            pages: Vec::new(),
            recent: VecDeque::with_capacity(RECENT),
            reach: 0,
            hint: 0,
        })
    }

    /// Tells whether a page is one of the last batch.
    pub(super) fn has(&self, page: PageNumber) -> bool {
        self.pages.contains(&page)
    }

    /// Tells whether the last batch is empty, because the next pointers could not be read,
    /// or led to nothing that is elsewhere.
    pub(super) fn rests(&self) -> bool {
        self.pages.is_empty()
    }

    /// Handles an unexpected miss at `at`. It may be the rest of an object, in the page
    /// after that of its address.
    pub(super) fn missed(&mut self, at: u64) {
        self.misses += 1;
        let beyond = |word: &u64| word / PAGE + 1 == at / PAGE && at - word < PAGE;
        if let Some(word) = self.recent.iter().copied().find(beyond) {
            let reach = at - word;
            if self.hint > 0 {
                self.reach = self.reach.max(reach).max(self.hint);
            }
            self.hint = reach;
        }
    }

    /// Takes the next pointer. Returns the pages of its object.
    pub(super) fn lead(&mut self, word: u64) -> impl Iterator<Item = PageNumber> + use<> {
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(word);
        (word / PAGE..=(word + self.reach) / PAGE).map(PageNumber::new)
    }

    /// Returns the most pages of the next batch: twice as many each time, but half as many
    /// if the thread still misses pages.
    pub(super) fn next_size(&mut self) -> usize {
        let spares = self.misses <= self.size / 2;
        self.size = match spares {
            true => (self.size * 2).min(LARGEST),
            false => (self.size / 2).max(SMALLEST),
        };
        self.misses = 0;
        self.size
    }

    /// Tells whether to continue with the array after batches without pages.
    pub(super) fn is_patient(&self) -> bool {
        self.empty < PATIENCE
    }

    /// Sets the next batch.
    pub(super) fn set(&mut self, pages: &[PageNumber]) {
        self.empty = if pages.is_empty() { self.empty + 1 } else { 0 };
        self.pages.clear();
        self.pages.extend_from_slice(pages);
    }
}

/// Returns the number of the first word that leads to an address.
pub(super) fn leads(words: &[u64], at: u64) -> Option<usize> {
    let leads = |word: &u64| at.checked_sub(*word).is_some_and(|by| by < NEAR);
    words.iter().position(leads)
}

/// Returns the number of different pages that pointers lead to.
pub(super) fn spread(pointers: &[u64]) -> usize {
    let mut pages: Vec<u64> = pointers.iter().map(|word| word / PAGE).collect();
    pages.sort_unstable();
    pages.dedup();
    pages.len()
}

/// Returns the smallest distance, in words, between the pointers of an array that has a
/// pointer at `here`.
fn step(words: &[u64], here: usize, is_pointer: impl Fn(u64) -> bool) -> Option<usize> {
    (1..=WIDEST).find(|step| {
        let after = words[here..].iter().step_by(*step).take(POINTERS + 1);
        let before = words[..=here].iter().rev().step_by(*step);
        let all: Vec<u64> = after.chain(before.take(POINTERS + 1)).copied().collect();
        // The pointer in the middle is in both lists.
        all.len() >= POINTERS + 2
            && spread(&all) >= PAGES
            && all.iter().all(|word| is_pointer(*word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    const HEAP: u64 = 0x7f00_0000_0000;

    fn in_heap(word: u64) -> bool {
        (HEAP..HEAP + (1 << 30)).contains(&word)
    }

    /// Records of `width` words, whose first word is a pointer to page `i * 7 % 1009`.
    fn records(width: usize, n: usize) -> Vec<u64> {
        let mut words = vec![3; width * n];
        for (i, record) in words.chunks_mut(width).enumerate() {
            record[0] = HEAP + (i as u64 * 7 % 1009) * PAGE + 100;
        }
        words
    }

    #[test]
    fn the_word_that_led_to_a_place_is_found_and_how_far_apart_pointers_are() {
        for width in [1, 3, 4, 16] {
            let words = records(width, 64);
            let at = words[20 * width] + 17;
            for (down, beyond) in [(false, 21), (true, 19)] {
                let trail = PointerArray::find(7, &words, 0x1000, at, down, in_heap).unwrap();
                assert_eq!(trail.step.unsigned_abs(), width as u64 * WORD);
                assert_eq!(trail.next, 0x1000 + beyond * width as u64 * WORD);
                assert!(trail.rests());
            }
        }
    }

    #[test]
    fn numbers_and_pointers_to_one_page_are_no_array_of_pointers() {
        let words = records(4, 64);
        assert!(PointerArray::find(7, &words, 0, HEAP + 5, false, in_heap).is_none());
        // Only one word is a pointer.
        let mut words = vec![3; 64];
        words[9] = HEAP + 100;
        assert!(PointerArray::find(7, &words, 0, HEAP + 100, false, in_heap).is_none());
        words.fill(HEAP + 100);
        assert!(PointerArray::find(7, &words, 0, HEAP + 100, false, in_heap).is_none());
        // Too far apart.
        let words = records(WIDEST + 1, 64);
        assert!(PointerArray::find(7, &words, 0, words[0], false, in_heap).is_none());
        assert!(PointerArray::find(7, &[], 0, HEAP, false, in_heap).is_none());
    }

    #[test]
    fn batches_grow_and_tell_which_pages_are_theirs() {
        let words = records(1, 64);
        let mut trail = PointerArray::find(7, &words, 0, words[0], false, in_heap).unwrap();
        let sizes: Vec<_> = (0..5).map(|_| trail.next_size()).collect();
        assert_eq!(sizes, [8, 16, 32, 64, 64]);
        (0..33).for_each(|_| trail.missed(0));
        assert_eq!([trail.next_size(), trail.next_size()], [32, 64]);
        let page = PageNumber::new;
        trail.set(&[page(4), page(9)]);
        assert!(trail.has(page(9)) && !trail.has(page(5)) && !trail.rests());
        trail.set(&[page(5)]);
        assert!(trail.has(page(5)) && !trail.has(page(9)));
    }

    #[test]
    fn what_ends_in_the_page_behind_is_fetched_whole_once_it_was_missed_twice() {
        let words = records(1, 64);
        let mut trail = PointerArray::find(7, &words, 0, words[0], false, in_heap).unwrap();
        let word = |page: u64| HEAP + page * PAGE + 3500;
        let pages = |first: u64, n: usize| PageNumber::new(HEAP / PAGE + first).run(n);
        assert!(trail.lead(word(1)).eq(pages(1, 1)));
        trail.missed(word(1) + 700);
        // A page that is too far away, and the page of the pointer itself.
        trail.missed(word(2) + 700);
        trail.missed(word(1) + 100);
        assert!(trail.lead(word(5)).eq(pages(5, 1)));
        trail.missed(word(5) + 650);
        assert!(trail.lead(word(9)).eq(pages(9, 2)));
        assert!(trail.lead(word(9) - 200).eq(pages(9, 1)));
    }
}
