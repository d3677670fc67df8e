use super::*;
use core::cell::Cell;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const HEAP: u64 = 0x7f00_0000_0000;
/// Pages of the heap, and the first of them.
const PAGES: u64 = 4096;
const FIRST: u64 = HEAP / PAGE_SIZE as u64;

/// A heap. Some pages hold words, the others are zeros.
#[derive(Default)]
struct Heap {
    words: BTreeMap<u64, Vec<u64>>,
    elsewhere: BTreeSet<u64>,
    /// Pages that were read.
    read: Cell<usize>,
}

impl ProgramMemory for Heap {
    fn is_pointer(&self, word: u64) -> bool {
        (FIRST..FIRST + PAGES).contains(&(word / PAGE_SIZE as u64))
    }

    fn read(&self, page: PageNumber, words: &mut [u64]) -> usize {
        let mut there = 0;
        for (page, to) in (page.get()..).zip(words.chunks_mut(WORDS)) {
            self.read.set(self.read.get() + 1);
            if self.elsewhere.contains(&page) {
                break;
            }
            match self.words.get(&page) {
                Some(from) => to.copy_from_slice(from),
                None => to.fill(0),
            }
            there += to.len();
        }
        there
    }

    fn is_elsewhere(&self, page: PageNumber) -> bool {
        self.elsewhere.contains(&page.get())
    }
}

/// Returns the page to which pointer `i` of the array leads.
fn target(i: u64) -> u64 {
    FIRST + 64 + i * 577 % 2000
}

impl Heap {
    /// An array of `n` pointers in the first pages, to pages that are elsewhere.
    fn with_array(n: u64) -> Heap {
        let mut heap = Heap::default();
        for i in 0..n {
            let page = FIRST + i / WORDS as u64;
            let words = heap
                .words
                .entry(page)
                .or_insert_with(|| std::vec![0; WORDS]);
            words[i as usize % WORDS] = target(i) * PAGE_SIZE as u64 + 100;
            heap.elsewhere.insert(target(i));
        }
        heap
    }

    fn bytes(&self, page: u64) -> Vec<u8> {
        let words = self.words.get(&page);
        let words = words.map_or_else(|| std::vec![0; WORDS], Clone::clone);
        words.iter().flat_map(|w| w.to_ne_bytes()).collect()
    }
}

fn fault(page: u64, unexpected: bool) -> IndirectFault {
    IndirectFault {
        tid: 7,
        at: page * PAGE_SIZE as u64 + 110,
        unexpected,
        most: 64,
    }
}

/// A thread follows the first `n` pointers. Pages that are read ahead arrive at once,
/// except the marker. Returns how many pages it missed.
fn follow(indirect: &mut IndirectPrefetcher, heap: &mut Heap, n: u64) -> usize {
    let (mut misses, mut marker) = (0, None);
    for i in 0..n {
        let page = target(i);
        let is_marker = Some(PageNumber::new(page)) == marker;
        if !heap.elsewhere.remove(&page) && !is_marker {
            continue;
        }
        misses += usize::from(!is_marker);
        for batch in indirect.fault(&fault(page, !is_marker), heap) {
            batch
                .pages
                .iter()
                .for_each(|page| _ = heap.elsewhere.remove(&page.get()));
            marker = batch.marker;
        }
    }
    misses
}

#[test]
fn an_array_in_memory_that_is_read_in_order_is_found_and_followed() {
    let mut heap = Heap::with_array(1500);
    let mut indirect = IndirectPrefetcher::default();
    let window = Window {
        start: HEAP,
        stride: PAGE_SIZE as i64,
        count: 8,
    };
    indirect.note_window(7, window, 8);
    let misses = follow(&mut indirect, &mut heap, 1500);
    assert!(misses < 60, "{misses}");
}

#[test]
fn an_array_is_found_by_a_page_of_it_that_was_waited_for() {
    let mut heap = Heap::with_array(2000);
    let mut indirect = IndirectPrefetcher::default();
    indirect.note_page(PageNumber::new(FIRST), &heap.bytes(FIRST), &heap);
    let misses = follow(&mut indirect, &mut heap, 1500);
    assert!(misses < 8, "{misses}");
}

#[test]
fn a_page_of_the_array_that_is_elsewhere_is_fetched_with_the_batch() {
    let mut heap = Heap::with_array(1500);
    heap.elsewhere.insert(FIRST + 1);
    let mut indirect = IndirectPrefetcher::default();
    indirect.note_page(PageNumber::new(FIRST), &heap.bytes(FIRST), &heap);
    follow(&mut indirect, &mut heap, 600);
    assert!(!heap.elsewhere.contains(&(FIRST + 1)));
}

#[derive(Clone, Debug)]
enum Step {
    /// A thread misses a page.
    Miss {
        tid: u32,
        page: u64,
        offset: u64,
        most: usize,
    },
    /// The thread of the last batch reaches its marker.
    Marker {
        most: usize,
    },
    /// A thread waits for a page, which is then examined.
    Note {
        page: u64,
    },
    /// Pages are read ahead of a thread.
    Window {
        tid: u32,
        page: u64,
        count: u32,
        down: bool,
    },
    /// A page leaves the program, or comes back.
    Leave {
        page: u64,
    },
    Come {
        page: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let led_to = || (0..1500u64).prop_map(|i| target(i) - FIRST);
    let page = move || prop_oneof![3 => 0..8u64, 5 => led_to(), 1 => 0..PAGES];
    prop_oneof![
        4 => (1..4u32, page(), 0..200u64, 0..100usize)
            .prop_map(|(tid, page, offset, most)| Step::Miss { tid, page, offset, most }),
        8 => (0..100usize).prop_map(|most| Step::Marker { most }),
        1 => page().prop_map(|page| Step::Note { page }),
        1 => (1..4u32, page(), 1..20u32, any::<bool>())
            .prop_map(|(tid, page, count, down)| Step::Window { tid, page, count, down }),
        1 => page().prop_map(|page| Step::Leave { page }),
        4 => page().prop_map(|page| Step::Come { page }),
    ]
}

/// Two misses that the first pointers of the array led to.
fn beginning() -> [Step; 3] {
    let miss = |i| Step::Miss {
        tid: 1,
        page: target(i) - FIRST,
        offset: 110,
        most: 64,
    };
    [Step::Note { page: 0 }, miss(0), miss(1)]
}

/// Checks the batches after a fault, and brings their pages into memory.
fn check(
    heap: &mut Heap,
    pointers: &BTreeSet<u64>,
    batches: &[Batch],
    most: usize,
) -> Result<(), TestCaseError> {
    let searched = PIECE * PIECES;
    let followed = (ARRAYS_OF_THREAD + 1) * (WORDS_OF_BATCH + 1);
    prop_assert!(heap.read.get() <= searched + followed);
    for batch in batches {
        // An object may end in the next page, and the array's own page may be in the batch.
        prop_assert!(!batch.pages.is_empty() && batch.pages.len() <= most + 2);
        prop_assert!(batch.marker.is_none_or(|marker| batch.pages[0] == marker));
        for page in batch.pages.iter().map(|page| page.get()) {
            // Each page is elsewhere, and is named once.
            prop_assert!(heap.elsewhere.remove(&page));
            let is_led_to = pointers.contains(&page) || pointers.contains(&(page - 1));
            prop_assert!(is_led_to || page < target(0), "{}", page - FIRST);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn batches_name_pages_that_are_elsewhere_once_and_reading_is_bounded(
        steps in prop::collection::vec(step(), 0..100), array in 600..4000u64,
    ) {
        let mut heap = Heap::with_array(array);
        // Some pointers lead to the same page.
        for words in heap.words.values_mut() {
            (4..WORDS).step_by(5).for_each(|i| words[i] = words[i - 1]);
        }
        let mut indirect = IndirectPrefetcher::default();
        let pages = heap.words.values().flatten().map(|word| word / PAGE_SIZE as u64);
        let pointers: BTreeSet<u64> = pages.collect();
        // The thread and the marker of the last batch.
        let mut last = None;
        for step in beginning().into_iter().chain(steps) {
            match step {
                Step::Miss { tid, page, offset, most } => {
                    let at = (FIRST + page) * PAGE_SIZE as u64 + offset;
                    heap.elsewhere.remove(&(FIRST + page));
                    heap.read.set(0);
                    let fault = IndirectFault { tid, at, unexpected: true, most };
                    let batches = indirect.fault(&fault, &heap);
                    check(&mut heap, &pointers, &batches, most)?;
                    last = batches.last().and_then(|batch| Some((tid, batch.marker?))).or(last);
                }
                Step::Marker { most } => {
                    let Some((tid, page)) = last else { continue };
                    heap.read.set(0);
                    let fault = IndirectFault { tid, most, ..fault(page.get(), false) };
                    let batches = indirect.fault(&fault, &heap);
                    check(&mut heap, &pointers, &batches, most)?;
                    last = batches.last().and_then(|batch| Some((tid, batch.marker?))).or(last);
                }
                Step::Note { page } => {
                    let page = FIRST + page;
                    indirect.note_page(PageNumber::new(page), &heap.bytes(page), &heap);
                }
                Step::Window { tid, page, count, down } => {
                    let stride = PAGE_SIZE as i64 * if down { -1 } else { 1 };
                    let start = (FIRST + page) * PAGE_SIZE as u64;
                    indirect.note_window(tid, Window { start, stride, count }, count);
                }
                Step::Leave { page } => _ = heap.elsewhere.insert(FIRST + page),
                Step::Come { page } => _ = heap.elsewhere.remove(&(FIRST + page)),
            }
            prop_assert!(indirect.arrays.len() <= ARRAYS && indirect.windows.len() <= WINDOWS);
        }
    }
}
