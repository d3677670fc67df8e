//! Indirect prefetcher: decides what to read ahead for a thread that follows pointers.
//!
//! The objects that a sort compares, or that an interpreter iterates over, lie in memory in
//! no order, but the pointers to them lie in an array that is read in order. Once a miss is
//! seen to come from a word of such an array, the words that follow tell which pages are
//! needed next (`array`). The array is found in one of two ways:
//!
//! - in memory that the thread reads in order, which is searched from time to time for the
//!   word that led to a miss;
//! - in a page full of pointers that a thread had to wait for, once two of its words led to
//!   misses (`pointer_page`).
//!
//! Source: content-directed prefetching, Cooksey, Jourdan and Grunwald, "A stateless,
//! content-directed data prefetching mechanism", ASPLOS 2002. Here it starts only from a
//! word that was followed.
//!
//! Invariants, tested in `tests.rs`:
//! - every page of a batch is elsewhere, appears once in it, and holds what a pointer of
//!   the array leads to, or the array itself;
//! - a batch has at most as many pages as allowed, plus one of the array;
//! - the memory that is read for one fault is bounded.

mod array;
mod pointer_page;

use crate::PageNumber;
use crate::readahead::Window;
use alloc::vec::Vec;
use array::{PointerArray, WORD};
use pointer_page::PointerPages;
use tmem_wire::PAGE_SIZE;

/// The most arrays that are followed at a time, and the most of one thread.
const ARRAYS: usize = 16;
const ARRAYS_OF_THREAD: usize = 4;
/// Unexpected misses before the first search, and the most. The number doubles each time
/// that nothing is found.
const LEAST_MISSES: u32 = 32;
const MOST_MISSES: u32 = 2048;
/// The most windows that are searched, and the fewest pages of one.
const WINDOWS: usize = 16;
const LEAST_PAGES: u32 = 8;
/// Pages that are read together, and the most reads of one search, for which a thread
/// waits.
const PIECE: usize = 4;
const PIECES: usize = 64;
/// Memory with fewer than one pointer in this many words has no array of pointers.
const POINTER_PART: usize = 20;
/// The most words that are examined for one batch.
const WORDS_OF_BATCH: usize = 512;
/// Words of a page.
const WORDS: usize = PAGE_SIZE / WORD as usize;

/// Access to the program's memory.
pub trait ProgramMemory {
    /// Tells whether a word may be a pointer into memory that is paged.
    fn is_pointer(&self, word: u64) -> bool;

    /// Reads words from the beginning of `page`, up to the first page that is absent.
    /// Returns how many.
    fn read(&self, page: PageNumber, words: &mut [u64]) -> usize;

    /// Tells whether a page is not in the program, and can be restored.
    fn is_elsewhere(&self, page: PageNumber) -> bool;
}

/// A fault, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub struct IndirectFault {
    /// The thread, or 0 if unknown.
    pub tid: u32,
    /// The address.
    pub at: u64,
    /// The thread waits for a page that neither this prefetcher nor readahead expected.
    pub unexpected: bool,
    /// The most pages of a batch.
    pub most: usize,
}

/// Pages to read ahead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Pages that are elsewhere.
    pub pages: Vec<PageNumber>,
    /// The marker: a page that is left out of the program, so that its fault asks for the
    /// next batch. 0 for none.
    pub marker: Option<PageNumber>,
}

/// Memory that a thread reads in order.
#[derive(Clone, Copy, Debug)]
struct InOrder {
    tid: u32,
    first: PageNumber,
    pages: u64,
    down: bool,
}

impl InOrder {
    /// Returns the first page of each piece, in the order in which the thread reads them.
    fn pieces(self) -> impl Iterator<Item = PageNumber> {
        (0..self.pages.div_ceil(PIECE as u64))
            .filter_map(move |i| match self.down {
                true => (self.first.get() + 1).checked_sub((i + 1) * PIECE as u64),
                false => Some(self.first.get() + i * PIECE as u64),
            })
            .map(PageNumber::new)
    }
}

/// The prefetcher: arrays of pointers that are followed, and memory where others may be.
#[derive(Debug)]
pub struct IndirectPrefetcher {
    /// Arrays, the most recently used first.
    arrays: Vec<PointerArray>,
    /// Unexpected misses since the last search, and how many cause the next.
    misses: u32,
    patience: u32,
    /// Buffer for words of the program.
    words: Vec<u64>,
    /// Memory that threads read in order, the most recent first.
    windows: Vec<InOrder>,
    pointer_pages: PointerPages,
}

impl Default for IndirectPrefetcher {
    fn default() -> IndirectPrefetcher {
        IndirectPrefetcher {
            arrays: Vec::with_capacity(ARRAYS),
            misses: 0,
            patience: LEAST_MISSES,
            words: alloc::vec![0; PIECE * WORDS],
            windows: Vec::with_capacity(WINDOWS),
            pointer_pages: PointerPages::default(),
        }
    }
}

impl IndirectPrefetcher {
    /// Handles a fault: a thread waits for a page, or has reached one that was read ahead.
    /// Returns what to read ahead.
    pub fn fault(&mut self, fault: &IndirectFault, memory: &impl ProgramMemory) -> Vec<Batch> {
        let mut batches = Vec::new();
        let page = PageNumber::new(fault.at / PAGE_SIZE as u64);
        let is_here = |a: &PointerArray| a.tid == fault.tid && a.has(page);
        if let Some(at) = self.arrays.iter().position(is_here) {
            self.arrays[..=at].rotate_right(1);
            self.patience = LEAST_MISSES;
            self.pointer_pages.succeeded();
            self.follow_first(fault.most, memory, &mut batches);
            return batches;
        }
        if !fault.unexpected || fault.tid == 0 {
            return batches;
        }
        self.wake(fault, memory, &mut batches);
        let of_thread = self.arrays.iter_mut().filter(|a| a.tid == fault.tid);
        of_thread.for_each(|array| array.missed(fault.at));
        self.misses += 1;
        let is_pointer = |word| memory.is_pointer(word);
        let mut found = self.pointer_pages.missed(fault.tid, fault.at, is_pointer);
        if found.is_none() && self.misses >= self.patience {
            self.misses = 0;
            self.patience = (self.patience * 2).min(MOST_MISSES);
            found = self.search(fault, memory);
        }
        if let Some(array) = found {
            self.add(array);
            self.follow_first(fault.most, memory, &mut batches);
        }
        batches
    }

    /// Examines a page that a thread had to wait for.
    pub fn note_page(&mut self, page: PageNumber, bytes: &[u8], memory: &impl ProgramMemory) {
        let start = page.address() as u64;
        let is_pointer = |word| memory.is_pointer(word);
        self.pointer_pages.note(start, bytes, is_pointer);
    }

    /// Notes that `count` pages of a window are read ahead, since thread `tid` reads there
    /// in order.
    pub fn note_window(&mut self, tid: u32, window: Window, count: u32) {
        if window.stride.unsigned_abs() != PAGE_SIZE as u64 || count < LEAST_PAGES {
            return;
        }
        self.windows.truncate(WINDOWS - 1);
        let in_order = InOrder {
            tid,
            first: PageNumber::new(window.start / PAGE_SIZE as u64),
            pages: u64::from(count),
            down: window.stride < 0,
        };
        self.windows.insert(0, in_order);
    }

    /// Adds an array in place of the one that was not used for longest.
    fn add(&mut self, array: PointerArray) {
        let of_thread = |a: &PointerArray| a.tid == array.tid;
        if self.arrays.iter().filter(|a| of_thread(a)).count() == ARRAYS_OF_THREAD
            && let Some(last) = self.arrays.iter().rposition(of_thread)
        {
            self.arrays.remove(last);
        }
        self.arrays.truncate(ARRAYS - 1);
        self.arrays.insert(0, array);
    }

    /// Searches the memory that a thread reads in order for the word that led to a fault.
    fn search(
        &mut self,
        fault: &IndirectFault,
        memory: &impl ProgramMemory,
    ) -> Option<PointerArray> {
        let is_pointer = |word| memory.is_pointer(word);
        let (mut pieces, mut found) = (0, None);
        let buffer = &mut self.words;
        // The most recent windows are probably being read now. Those without pointers are
        // forgotten.
        self.windows.retain(|in_order| {
            if found.is_some() || pieces >= PIECES || in_order.tid != fault.tid {
                return true;
            }
            let (mut seen, mut pointers) = (0, 0);
            for page in in_order.pieces().take(PIECES - pieces) {
                pieces += 1;
                let there = memory.read(page, buffer);
                let words = &buffer[..there];
                seen += there;
                pointers += words.iter().filter(|word| is_pointer(**word)).count();
                if pointers < seen / POINTER_PART {
                    return false;
                }
                let (tid, at, start) = (fault.tid, fault.at, page.address() as u64);
                found = PointerArray::find(tid, words, start, at, in_order.down, is_pointer);
                if found.is_some() {
                    break;
                }
            }
            true
        });
        found
    }

    /// Continues arrays of a thread whose next pointers could not be read, or led to
    /// nothing that is elsewhere.
    fn wake(
        &mut self,
        fault: &IndirectFault,
        memory: &impl ProgramMemory,
        batches: &mut Vec<Batch>,
    ) {
        for at in 0..self.arrays.len() {
            let array = &self.arrays[at];
            if array.tid == fault.tid && array.rests() {
                self.arrays[..=at].rotate_right(1);
                if !self.follow_first(fault.most, memory, batches) {
                    return;
                }
            }
        }
    }

    /// Adds a batch for the next pointers of the first array. Returns false if there is no
    /// array any more.
    fn follow_first(
        &mut self,
        most: usize,
        memory: &impl ProgramMemory,
        batches: &mut Vec<Batch>,
    ) -> bool {
        if self.arrays.is_empty() {
            return false;
        }
        let mut array = self.arrays.remove(0);
        let want = array.next_size().min(most);
        let mut pages: Vec<PageNumber> = Vec::with_capacity(want + 1);
        let is_wanted = |page: PageNumber, pages: &[PageNumber]| {
            let is_named = batches.iter().any(|batch| batch.pages.contains(&page));
            memory.is_elsewhere(page) && !pages.contains(&page) && !is_named
        };
        let (mut looked_at, mut others) = (0, 0);
        let mut absent = None;
        while pages.len() < want && looked_at < WORDS_OF_BATCH {
            let page = PageNumber::new(array.next / PAGE_SIZE as u64);
            if memory.read(page, &mut self.words[..WORDS]) < WORDS {
                absent = Some(page);
                break;
            }
            while pages.len() < want && array.next / PAGE_SIZE as u64 == page.get() {
                let word = self.words[(array.next % PAGE_SIZE as u64 / WORD) as usize];
                looked_at += 1;
                if !memory.is_pointer(word) {
                    others += 1;
                } else {
                    for to in array.lead(word) {
                        if is_wanted(to, &pages) {
                            pages.push(to);
                        }
                    }
                }
                let Some(next) = array.next.checked_add_signed(array.step) else {
                    break;
                };
                array.next = next;
            }
        }
        array.set(&pages);
        if others * 2 > looked_at || !array.is_patient() {
            // This was no array, or is its end.
            return false;
        }
        self.arrays.insert(0, array);
        let marker = pages.first().copied();
        let absent = absent.filter(|page| is_wanted(*page, &pages));
        pages.extend(absent);
        if !pages.is_empty() {
            batches.push(Batch { pages, marker });
        }
        true
    }
}

#[cfg(test)]
mod tests;
