//! Pages full of pointers that threads had to wait for, and which misses they led to.
//!
//! A thread that follows the pointers of an array misses a page of it once in hundreds of
//! misses, far too rarely for it to show among these as one that is read in order. But what
//! is in a page tells whether it may be of such an array.

use super::array::{PAGES, PointerArray, WORD, leads, spread};
use alloc::boxed::Box;
use alloc::vec::Vec;

/// Words of a page.
const WORDS: usize = tmem_wire::PAGE_SIZE / WORD as usize;
/// Pages kept at a time.
const LEADS: usize = 8;
/// Words of a page that are looked at first, how far apart these are, and how many
/// pointers there have to be among them.
const SAMPLES: usize = 32;
const APART: usize = 15;
const FEWEST: usize = 2;
/// Misses that a page has not led to before it is no longer kept.
const TRIES: u32 = 64;
/// Steps between two pointers that are followed one after the other, at the most: what
/// those between them lead to may be there.
const NEAR: usize = 16;
/// Of pages that lead nowhere at least one in so many is looked at.
const RAREST: u32 = 64;

/// A page that may lead to what is missed next.
#[derive(Debug)]
struct Lead {
    /// Its address.
    start: u64,
    words: Box<[u64; WORDS]>,
    /// Misses since it led to one.
    tries: u32,
    /// The word that led to one last, and the thread that followed it.
    last: Option<(u32, usize)>,
}

/// The pages that came last.
#[derive(Debug)]
pub struct PointerPages {
    /// Most recent first.
    leads: Vec<Lead>,
    /// Of so many pages one is looked at, and how many have come since one was.
    rarely: u32,
    passed: u32,
}

impl Default for PointerPages {
    fn default() -> PointerPages {
        PointerPages {
            leads: Vec::with_capacity(LEADS),
            rarely: 1,
            passed: 0,
        }
    }
}

impl PointerPages {
    /// A thread had to wait for the page at address `start`, with these bytes.
    pub fn note(&mut self, start: u64, bytes: &[u8], is_pointer: impl Fn(u64) -> bool) {
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
        self.leads.retain(|lead| lead.start != start);
        let mut room = match self.leads.len() < LEADS {
            true => Box::new([0; WORDS]),
            false => {
                // One that has led somewhere is the last to go.
                let vain = self.leads.iter().rposition(|lead| lead.last.is_none());
                if vain.is_some() {
                    self.failed();
                }
                self.leads.remove(vain.unwrap_or(LEADS - 1)).words
            }
        };
        let all = room.iter_mut().zip(words);
        all.for_each(|(to, word)| *to = u64::from_ne_bytes(*word));
        self.leads.insert(
            0,
            Lead {
                start,
                words: room,
                tries: 0,
                last: None,
            },
        );
    }

    /// Thread `tid` has missed what is at `at`, which nothing let expect: the array that it
    /// goes through, if two words of one led to what it missed.
    pub fn missed(
        &mut self,
        tid: u32,
        at: u64,
        is_pointer: impl Fn(u64) -> bool,
    ) -> Option<PointerArray> {
        let mut found = None;
        for (i, lead) in self.leads.iter_mut().enumerate() {
            match leads(&lead.words[..], at) {
                Some(here) => {
                    found = Some((i, here));
                    break;
                }
                None => lead.tries += 1,
            }
        }
        let trail = found.and_then(|(i, here)| {
            self.leads[..=i].rotate_right(1);
            let lead = &mut self.leads[0];
            lead.tries = 0;
            let before = lead.last.replace((tid, here));
            let (_, before) = before.filter(|(of, before)| *of == tid && *before != here)?;
            let down = here < before;
            let trail = PointerArray::at(tid, &lead.words[..], lead.start, here, down, is_pointer)?;
            let steps = (here.abs_diff(before) as u64 * WORD) / trail.step.unsigned_abs();
            (steps <= NEAR as u64).then_some(trail)
        });
        if trail.is_some() {
            self.leads.remove(0);
        }
        let many = self.leads.len();
        self.leads.retain(|lead| lead.tries < TRIES);
        (self.leads.len()..many).for_each(|_| self.failed());
        trail
    }

    /// An array that was found is one.
    pub fn succeeded(&mut self) {
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

    /// Where record `i` of a page of records, of four words each, points to.
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
            let mut leads = PointerPages::default();
            leads.note(START, &records(), in_heap);
            assert!(leads.missed(7, target(20) + 5, in_heap).is_none());
            // What is elsewhere, and what was led to before, tells nothing.
            assert!(leads.missed(7, HEAP + 50, in_heap).is_none());
            assert!(leads.missed(7, target(20), in_heap).is_none());
            let trail = leads.missed(7, target(second), in_heap).unwrap();
            assert_eq!((trail.tid, trail.step), (7, step));
            let next = second as i64 + step.signum();
            assert_eq!(trail.next, START + next as u64 * 32);
        }
    }

    #[test]
    fn words_that_are_far_from_one_another_or_of_two_threads_are_no_array() {
        let mut leads = PointerPages::default();
        leads.note(START, &records(), in_heap);
        let misses = [(7, 20), (7, 60), (8, 61), (7, 62)];
        for (tid, i) in misses {
            assert!(leads.missed(tid, target(i), in_heap).is_none());
        }
        assert!(leads.missed(7, target(63), in_heap).is_some());
    }

    #[test]
    fn pages_without_pointers_to_many_places_are_not_kept() {
        let mut leads = PointerPages::default();
        leads.note(START, &bytes(|i| i as u64), in_heap);
        leads.note(START, &bytes(|_| HEAP + 100), in_heap);
        leads.note(START, &bytes(|_| 0x6162_6364_6566_6768), in_heap);
        assert!(leads.leads.is_empty());
    }

    #[test]
    fn pages_that_lead_nowhere_are_forgotten_and_looked_at_ever_more_rarely() {
        let mut leads = PointerPages::default();
        let note = |leads: &mut PointerPages| leads.note(START, &records(), in_heap);
        note(&mut leads);
        for _ in 0..TRIES {
            assert_eq!(leads.leads.len(), 1);
            assert!(leads.missed(7, HEAP + 50, in_heap).is_none());
        }
        assert!(leads.leads.is_empty());
        note(&mut leads);
        assert!(leads.leads.is_empty());
        note(&mut leads);
        assert_eq!(leads.leads.len(), 1);
        leads.succeeded();
        leads.leads.clear();
        note(&mut leads);
        assert_eq!(leads.leads.len(), 1);
    }

    #[test]
    fn the_last_to_go_is_a_page_that_has_led_somewhere() {
        let mut leads = PointerPages::default();
        leads.note(START, &records(), in_heap);
        assert!(leads.missed(7, target(1), in_heap).is_none());
        for i in 1..=2 * LEADS as u64 {
            leads.rarely = 1;
            let others = bytes(|w| HEAP + (512 << 20) + w as u64 * 4096);
            leads.note(START + i * 4096, &others, |_| true);
        }
        assert_eq!(leads.leads.len(), LEADS);
        assert!(leads.missed(7, target(2), in_heap).is_some());
    }
}
