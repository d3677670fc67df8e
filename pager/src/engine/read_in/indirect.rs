//! Fetches ahead what the pointers of an array lead to that a thread goes through.

use crate::engine::Engine;
use crate::engine::fault::{Fault, addr};
use crate::engine::kernel::Process;
use crate::pages::State;
use crate::ranges::Ranges;
use alloc::vec::Vec;
use core::ops::Range;
use tmem_policy::indirect::{PointerArray, PointerPages, WORD};
use tmem_policy::readahead::{BYTES, Window};
use tmem_wire::PAGE_SIZE;

/// Arrays that are followed at a time, and those of one thread.
const TRAILS: usize = 16;
const OF_THREAD: usize = 4;
/// Misses that nothing let expect before it is looked where they come from; twice as
/// many each time that nothing is found.
const FEWEST: u32 = 32;
const MOST: u32 = 2048;
/// Windows of pages in which it is looked, and the fewest pages of one.
const READS: usize = 16;
const FEWEST_PAGES: u32 = 8;
/// Pages read at a time, and how often at the most: a thread waits meanwhile.
const PIECE: usize = 4;
const PIECES: usize = 64;
/// Of an array of pointers at least one word in so many is one.
const FEW: usize = 20;
/// Pointers looked at for one batch.
const LOOKED_AT: usize = 512;
const WORDS: usize = PAGE_SIZE / WORD as usize;

/// Arrays of pointers that are followed.
#[derive(Debug)]
pub(crate) struct Trails {
    /// Most recent first.
    trails: Vec<PointerArray>,
    /// Misses since it was looked last, and how many there have to be.
    misses: u32,
    patience: u32,
    /// Where they are read to.
    words: Vec<u64>,
    /// Where threads read in order of late; most recent first.
    reads: Vec<InOrder>,
    /// Pages full of pointers that threads had to wait for.
    leads: PointerPages,
}

/// Pages that were fetched ahead of a thread that reads in order.
#[derive(Clone, Copy, Debug)]
struct InOrder {
    tid: u32,
    first: u64,
    pages: u64,
    down: bool,
}

impl InOrder {
    /// The first page of each piece of it, in the order in which they are read.
    fn pieces(self) -> impl Iterator<Item = u64> {
        (0..self.pages.div_ceil(PIECE as u64)).filter_map(move |i| match self.down {
            true => (self.first + 1).checked_sub((i + 1) * PIECE as u64),
            false => Some(self.first + i * PIECE as u64),
        })
    }
}

impl Default for Trails {
    fn default() -> Trails {
        Trails {
            trails: Vec::with_capacity(TRAILS),
            misses: 0,
            patience: FEWEST,
            words: alloc::vec![0; PIECE * WORDS],
            reads: Vec::with_capacity(READS),
            leads: PointerPages::default(),
        }
    }
}

impl Trails {
    /// An array that was found takes the place of one that was not come to for longest.
    fn add(&mut self, trail: PointerArray) {
        let of_thread = |t: &PointerArray| t.tid == trail.tid;
        if self.trails.iter().filter(|t| of_thread(t)).count() == OF_THREAD
            && let Some(last) = self.trails.iter().rposition(of_thread)
        {
            self.trails.remove(last);
        }
        self.trails.truncate(TRAILS - 1);
        self.trails.insert(0, trail);
    }
}

impl Engine {
    /// A thread waits for a page, or has come to one that was fetched ahead: sees whether
    /// a pointer of an array has led it there.
    pub(crate) fn follow_trails(&mut self, fault: &Fault, missed: bool) {
        let trails = &mut self.trails;
        let is_here = |t: &PointerArray| t.tid == fault.tid && t.has(fault.page);
        if let Some(at) = trails.trails.iter().position(is_here) {
            trails.trails[..=at].rotate_right(1);
            trails.patience = FEWEST;
            trails.leads.succeeded();
            self.fetch_trail();
            return;
        }
        if !missed || fault.tid == 0 || fault.window().count > 0 {
            return;
        }
        self.wake_trails(fault.tid);
        let trails = &mut self.trails;
        let of_this = trails.trails.iter_mut().filter(|t| t.tid == fault.tid);
        of_this.for_each(|t| t.missed(fault.at));
        trails.misses += 1;
        let adopted = &self.adopted;
        let is_pointer = |word: u64| is_in(adopted, word);
        let mut found = trails.leads.missed(fault.tid, fault.at, is_pointer);
        if found.is_none() && trails.misses >= trails.patience {
            trails.misses = 0;
            trails.patience = (trails.patience * 2).min(MOST);
            found = self.find_trail(fault);
        }
        if let Some(trail) = found {
            self.trails.add(trail);
            self.fetch_trail();
        }
    }

    /// A thread waits for a page that has come, with these bytes.
    pub(crate) fn note_lead(&mut self, page: u64, bytes: &[u8]) {
        let is_pointer = |word: u64| is_in(&self.adopted, word);
        let start = addr(page) as u64;
        self.trails.leads.note(start, bytes, is_pointer);
    }

    /// Looks for the pointer that has led to a fault where its thread reads in order.
    fn find_trail(&mut self, fault: &Fault) -> Option<PointerArray> {
        let mut words = core::mem::take(&mut self.trails.words);
        let found = self.search(fault, &mut words);
        self.trails.words = words;
        found
    }

    fn search(&mut self, fault: &Fault, words: &mut [u64]) -> Option<PointerArray> {
        let adopted = &self.adopted;
        let is_pointer = |word: u64| is_in(adopted, word);
        let mut pieces = 0;
        let mut found = None;
        // Those that were noted last are likely to be read now.
        self.trails.reads.retain(|in_order| {
            if found.is_some() || pieces >= PIECES || in_order.tid != fault.tid {
                return true;
            }
            let (mut seen, mut pointers) = (0, 0);
            for page in in_order.pieces().take(PIECES - pieces) {
                pieces += 1;
                let there = read(adopted, &*self.kernel, page, words);
                let words = &words[..there];
                seen += there;
                pointers += words.iter().filter(|word| is_pointer(**word)).count();
                if pointers < seen / FEW {
                    return false;
                }
                let (tid, at, start) = (fault.tid, fault.at, addr(page) as u64);
                found = PointerArray::find(tid, words, start, at, in_order.down, is_pointer);
                if found.is_some() {
                    break;
                }
            }
            true
        });
        found
    }

    /// Pages of a window are fetched: there thread `tid` reads in order.
    pub(crate) fn note_read(&mut self, tid: u32, window: Window, count: u32) {
        if window.stride.unsigned_abs() != PAGE_SIZE as u64 || count < FEWEST_PAGES {
            return;
        }
        let reads = &mut self.trails.reads;
        reads.truncate(READS - 1);
        reads.insert(
            0,
            InOrder {
                tid,
                first: window.start / PAGE_SIZE as u64,
                pages: u64::from(count),
                down: window.stride < 0,
            },
        );
    }

    /// Sees whether arrays that a thread goes through can be read again.
    fn wake_trails(&mut self, tid: u32) {
        for at in 0..self.trails.trails.len() {
            let trail = &mut self.trails.trails[at];
            if trail.tid == tid && trail.rests() {
                self.trails.trails[..=at].rotate_right(1);
                if !self.fetch_trail() {
                    return;
                }
            }
        }
    }

    /// Fetches what the next pointers of the first array lead to; whether it is still one.
    fn fetch_trail(&mut self) -> bool {
        if self.trails.trails.is_empty() {
            return false;
        }
        let mut trail = self.trails.trails.remove(0);
        let want = trail.next_size().min(self.most_ahead());
        let mut pages: Vec<u64> = Vec::with_capacity(want + 1);
        let (mut looked_at, mut others) = (0, 0);
        let mut absent = None;
        let mut words = core::mem::take(&mut self.trails.words);
        while pages.len() < want && looked_at < LOOKED_AT {
            let page = trail.next / PAGE_SIZE as u64;
            if read(&self.adopted, &*self.kernel, page, &mut words[..WORDS]) < WORDS {
                absent = Some(page);
                break;
            }
            while pages.len() < want && trail.next / PAGE_SIZE as u64 == page {
                let word = words[(trail.next % PAGE_SIZE as u64 / WORD) as usize];
                looked_at += 1;
                if !is_in(&self.adopted, word) {
                    others += 1;
                } else {
                    for to in trail.lead(word) {
                        if self.is_elsewhere(to) && !pages.contains(&to) {
                            pages.push(to);
                        }
                    }
                }
                let Some(next) = trail.next.checked_add_signed(trail.step) else {
                    break;
                };
                trail.next = next;
            }
        }
        self.trails.words = words;
        trail.set(&pages);
        let goes_on = others * 2 <= looked_at && trail.is_patient();
        if !goes_on {
            // That was no array, or its end.
            return false;
        }
        self.trails.trails.insert(0, trail);
        let marker = pages.first().copied().unwrap_or(0);
        // The array may lead to itself, so that it is named twice.
        pages.extend(absent.filter(|page| self.is_elsewhere(*page)));
        self.fetch_pages(&pages, marker);
        true
    }

    /// Whether a page is not in the program, and can be fetched.
    pub(crate) fn is_elsewhere(&self, page: u64) -> bool {
        matches!(self.pages.get(page).state, State::Remote | State::Pooled(_))
    }
}

/// Whether a word may be a pointer into adopted memory.
fn is_in(adopted: &Ranges, word: u64) -> bool {
    // Most numbers and texts are told from one at once.
    word >> 16 != 0 && word < BYTES && adopted.around(word as usize).is_some()
}

/// Reads words of adopted memory from `page` on, up to the first that is not there; how
/// many.
fn read(adopted: &Ranges, proc: &dyn Process, page: u64, words: &mut [u64]) -> usize {
    let start = addr(page);
    let within = |r: Range<usize>| start + size_of_val(words) <= r.end;
    match adopted.around(start).is_some_and(within) {
        true => proc.words(start, words),
        false => 0,
    }
}
