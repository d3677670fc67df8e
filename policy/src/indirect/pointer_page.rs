//! Pointer pages: pages full of pointers that threads had to wait for, and the misses that
//! these pointers led to.
//!
//! A thread that follows the pointers of an array misses a page of the array itself only
//! once in hundreds of misses. That is too rare to be recognized as reading in order. But
//! the contents of a page tell whether it may belong to such an array.

use super::array::{PAGES, PointerArray, WORD, leads, spread};
use alloc::boxed::Box;
use alloc::vec::Vec;

/// Words of a page.
const WORDS: usize = tmem_wire::PAGE_SIZE / WORD as usize;
/// The most pages that are kept.
const KEPT: usize = 8;
/// Words of a page that are examined first, the distance between them, and the fewest
/// pointers among them.
const SAMPLES: usize = 32;
const APART: usize = 15;
const FEWEST: usize = 2;
/// A page is forgotten after this many misses that it did not lead to.
const TRIES: u32 = 64;
/// The most steps between two pointers that are followed one after the other. The objects
/// of those in between may be in memory.
const NEAR: usize = 16;
/// Even if many pages led nowhere, one in this many is examined.
const RAREST: u32 = 64;

/// A page that may lead to the next misses.
#[derive(Debug)]
struct PointerPage {
    /// Its address.
    start: u64,
    words: Box<[u64; WORDS]>,
    /// Misses since it last led to one.
    tries: u32,
    /// The thread that last followed one of its words, and the number of the word.
    last: Option<(u32, usize)>,
}

/// The most recent pointer pages.
#[derive(Debug)]
pub(super) struct PointerPages {
    /// The most recent first.
    pages: Vec<PointerPage>,
    /// One page in `rarely` is examined; pages passed over since the last.
    rarely: u32,
    passed: u32,
}

impl Default for PointerPages {
    fn default() -> PointerPages {
        PointerPages {
            pages: Vec::with_capacity(KEPT),
            rarely: 1,
            passed: 0,
        }
    }
}

impl PointerPages {
    /// Examines the page at address `start`, which a thread had to wait for.
    pub(super) fn note(&mut self, start: u64, bytes: &[u8], is_pointer: impl Fn(u64) -> bool) {
        self.passed += 1;
        if self.passed < self.rarely {
            return;
        }
        let (words, _) = bytes.as_chunks();
        let samples = words.iter().step_by(APART).take(SAMPLES);
        let pointers: Vec<u64> = samples
            .map(|word| u64::from_ne_bytes(*word))
            .filter(|word| is_pointer(*word))
            .collect();
        if pointers.len() < FEWEST || spread(&pointers) < PAGES.min(pointers.len()) {
            return;
        }
        self.passed = 0;
        self.pages.retain(|page| page.start != start);
        let mut room = match self.pages.len() < KEPT {
            true => Box::new([0; WORDS]),
            false => {
                // A page that has led somewhere is dropped last.
                let vain = self.pages.iter().rposition(|page| page.last.is_none());
                if vain.is_some() {
                    self.failed();
                }
                self.pages.remove(vain.unwrap_or(KEPT - 1)).words
            }
        };
        let all = room.iter_mut().zip(words);
        all.for_each(|(to, word)| *to = u64::from_ne_bytes(*word));
        self.pages.insert(
            0,
            PointerPage {
                start,
                words: room,
                tries: 0,
                last: None,
            },
        );
    }

    /// Handles an unexpected miss of thread `tid` at `at`. Returns the array that the
    /// thread walks, if two words of a page led to misses.
    pub(super) fn missed(
        &mut self,
        tid: u32,
        at: u64,
        is_pointer: impl Fn(u64) -> bool,
    ) -> Option<PointerArray> {
        let mut found = None;
        for (i, page) in self.pages.iter_mut().enumerate() {
            match leads(&page.words[..], at) {
                Some(here) => {
                    found = Some((i, here));
                    break;
                }
                None => page.tries += 1,
            }
        }
        let trail = found.and_then(|(i, here)| {
            self.pages[..=i].rotate_right(1);
            let page = &mut self.pages[0];
            page.tries = 0;
            let before = page.last.replace((tid, here));
            let (_, before) = before.filter(|(of, before)| *of == tid && *before != here)?;
            let down = here < before;
            let trail = PointerArray::at(tid, &page.words[..], page.start, here, down, is_pointer)?;
            let steps = (here.abs_diff(before) as u64 * WORD) / trail.step.unsigned_abs();
            (steps <= NEAR as u64).then_some(trail)
        });
        if trail.is_some() {
            self.pages.remove(0);
        }
        let many = self.pages.len();
        self.pages.retain(|page| page.tries < TRIES);
        (self.pages.len()..many).for_each(|_| self.failed());
        trail
    }

    /// Notes that an array that was found here is really one.
    pub(super) fn succeeded(&mut self) {
        self.rarely = 1;
    }

    fn failed(&mut self) {
        self.rarely = (self.rarely * 2).min(RAREST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAP: u64 = 0x7f00_0000_0000;
    const START: u64 = HEAP + (1 << 29);

    fn in_heap(word: u64) -> bool {
        (HEAP..HEAP + (1 << 30)).contains(&word)
    }

    /// Returns where record `i` points to, in a page of records of four words.
    fn target(i: usize) -> u64 {
        HEAP + (i as u64 * 577 % 1009) * 4096 + 100
    }

    fn bytes(words: impl Fn(usize) -> u64) -> Vec<u8> {
        (0..WORDS).flat_map(|i| words(i).to_ne_bytes()).collect()
    }

    fn records() -> Vec<u8> {
        bytes(|i| if i % 4 == 0 { target(i / 4) } else { 3 })
    }

    #[test]
    fn two_misses_that_a_page_led_to_tell_the_array_and_its_direction() {
        for (second, step) in [(21, 32), (18, -32)] {
            let mut found = PointerPages::default();
            found.note(START, &records(), in_heap);
            assert!(found.missed(7, target(20) + 5, in_heap).is_none());
            // Other addresses tell nothing, and neither does the same word again.
            assert!(found.missed(7, HEAP + 50, in_heap).is_none());
            assert!(found.missed(7, target(20), in_heap).is_none());
            let trail = found.missed(7, target(second), in_heap).unwrap();
            assert_eq!((trail.tid, trail.step), (7, step));
            let next = second as i64 + step.signum();
            assert_eq!(trail.next, START + next as u64 * 32);
        }
    }

    #[test]
    fn words_that_are_far_from_one_another_or_of_two_threads_are_no_array() {
        let mut found = PointerPages::default();
        found.note(START, &records(), in_heap);
        let misses = [(7, 20), (7, 60), (8, 61), (7, 62)];
        for (tid, i) in misses {
            assert!(found.missed(tid, target(i), in_heap).is_none());
        }
        assert!(found.missed(7, target(63), in_heap).is_some());
    }

    #[test]
    fn pages_without_pointers_to_many_places_are_not_kept() {
        let mut found = PointerPages::default();
        found.note(START, &bytes(|i| i as u64), in_heap);
        found.note(START, &bytes(|_| HEAP + 100), in_heap);
        found.note(START, &bytes(|_| 0x6162_6364_6566_6768), in_heap);
        assert!(found.pages.is_empty());
    }

    #[test]
    fn pages_that_lead_nowhere_are_forgotten_and_looked_at_ever_more_rarely() {
        let mut found = PointerPages::default();
        let note = |found: &mut PointerPages| found.note(START, &records(), in_heap);
        note(&mut found);
        for _ in 0..TRIES {
            assert_eq!(found.pages.len(), 1);
            assert!(found.missed(7, HEAP + 50, in_heap).is_none());
        }
        assert!(found.pages.is_empty());
        note(&mut found);
        assert!(found.pages.is_empty());
        note(&mut found);
        assert_eq!(found.pages.len(), 1);
        found.succeeded();
        found.pages.clear();
        note(&mut found);
        assert_eq!(found.pages.len(), 1);
    }

    #[test]
    fn the_last_to_go_is_a_page_that_has_led_somewhere() {
        let mut found = PointerPages::default();
        found.note(START, &records(), in_heap);
        assert!(found.missed(7, target(1), in_heap).is_none());
        for i in 1..=2 * KEPT as u64 {
            found.rarely = 1;
            let others = bytes(|w| HEAP + (512 << 20) + w as u64 * 4096);
            found.note(START + i * 4096, &others, |_| true);
        }
        assert_eq!(found.pages.len(), KEPT);
        assert!(found.missed(7, target(2), in_heap).is_some());
    }
}
