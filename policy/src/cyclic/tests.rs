use super::{CyclicScan, SCAN_BLOCK};
use crate::PageNumber;
use crate::eviction::{EvictionQueue, Run, Segment};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::vec::Vec;

/// The first page of a block.
fn first_of(block: u64) -> PageNumber {
    PageNumber::new(block * SCAN_BLOCK)
}

/// A program that touches blocks of 64 pages.
struct Program {
    queue: EvictionQueue,
    /// Blocks in memory, and the most that fit.
    there: BTreeSet<u64>,
    room: usize,
    missed: usize,
}

impl Program {
    fn new(room: usize) -> Program {
        let mut queue = EvictionQueue::default();
        queue.set_resident(room * 64, 64);
        Program {
            queue,
            there: BTreeSet::new(),
            room,
            missed: 0,
        }
    }

    fn touch(&mut self, block: u64) {
        if self.there.contains(&block) {
            return;
        }
        self.missed += 1;
        while self.there.len() >= self.room {
            let (run, _) = self.queue.pop().unwrap();
            self.leaves(run);
        }
        let segment = self.queue.choose_segment(first_of(block), 64, 64);
        self.queue.push(first_of(block), 64, segment);
        self.there.insert(block);
    }

    fn leaves(&mut self, run: Run) {
        for block in run.first.get() / 64..run.end().get() / 64 {
            self.there.remove(&block);
        }
    }

    /// Touches blocks in order. Returns how many were missed.
    fn all(&mut self, blocks: impl IntoIterator<Item = u64>) -> usize {
        self.missed = 0;
        blocks.into_iter().for_each(|block| self.touch(block));
        self.missed
    }
}

#[test]
fn most_of_what_fits_is_kept_while_a_program_is_cyclic() {
    let mut p = Program::new(400);
    let rounds: Vec<usize> = (0..6).map(|_| p.all(0..800)).collect();
    assert_eq!(rounds[..2], [800, 800]);
    assert!(rounds[3..].iter().all(|n| *n <= 460), "{rounds:?}");
    // The same downwards, with little more memory than fits.
    let mut p = Program::new(400);
    let rounds: Vec<usize> = (0..6).map(|_| p.all((0..450).rev())).collect();
    assert!(rounds[3..].iter().all(|n| *n <= 110), "{rounds:?}");
}

#[test]
fn a_round_through_memory_twice_is_one() {
    let mut p = Program::new(400);
    let round = || (0..800).chain((0..800).rev());
    let rounds: Vec<usize> = (0..8).map(|_| p.all(round())).collect();
    // What was read last before the turn is still in memory.
    assert!(rounds[5..].iter().all(|n| *n <= 1200), "{rounds:?}");
}

#[test]
fn what_was_kept_goes_when_the_program_is_cyclic_elsewhere() {
    let mut p = Program::new(400);
    (0..6).for_each(|_| _ = p.all(0..800));
    // The new loop fits, and was a part of the old one.
    let rounds: Vec<usize> = (0..12).map(|_| p.all(700..800)).collect();
    assert_eq!(rounds[8..], [0; 4], "{rounds:?}");
    // Other memory, which is read once.
    let mut p = Program::new(400);
    (0..6).for_each(|_| _ = p.all(0..800));
    p.all(10_000..11_000);
    assert_eq!(p.all(10_700..11_000), 0);
}

/// The order of quicksort: from both ends to the middle, then each half.
fn quicksort(from: u64, to: u64, out: &mut Vec<u64>) {
    let n = to - from;
    if n < 8 {
        return;
    }
    out.extend((0..n / 2).flat_map(|i| [from + i, to - 1 - i]));
    quicksort(from, from + n / 2, out);
    quicksort(from + n / 2, to, out);
}

/// The order of mergesort: sorts halves, merges them into other memory and copies back.
fn mergesort(from: u64, to: u64, out: &mut Vec<u64>) {
    let n = to - from;
    if n < 8 {
        return;
    }
    mergesort(from, from + n / 2, out);
    mergesort(from + n / 2, to, out);
    let elsewhere = 100_000 + from;
    let merged = |i| {
        [
            from + i,
            from + n / 2 + i,
            elsewhere + 2 * i,
            elsewhere + 2 * i + 1,
        ]
    };
    out.extend((0..n / 2).flat_map(merged));
    out.extend((0..n).flat_map(|i| [elsewhere + i, from + i]));
}

#[test]
fn recursions_are_no_loops() {
    let mut worst = 0;
    for sort in [quicksort, mergesort] {
        for room in [100, 200, 400] {
            let mut blocks: Vec<u64> = (0..1024).collect();
            sort(0, 1024, &mut blocks);
            let missed = Program::new(room).all(blocks.iter().copied());
            // Eviction in the order of arrival.
            let (mut there, mut order) = (BTreeSet::new(), std::collections::VecDeque::new());
            let mut without = 0;
            for block in blocks {
                if there.insert(block) {
                    without += 1;
                    order.push_back(block);
                    if order.len() > room {
                        there.remove(&order.pop_front().unwrap());
                    }
                }
            }
            worst = worst.max(missed * 100 / without);
        }
    }
    assert!(worst <= 103, "{worst}");
}

#[test]
fn hot_pages_come_before_what_is_kept() {
    let mut p = Program::new(400);
    (0..6).for_each(|_| _ = p.all(0..800));
    let hot: Vec<u64> = (5000..5100).collect();
    for block in &hot {
        while p.there.len() >= p.room {
            let (run, _) = p.queue.pop().unwrap();
            p.leaves(run);
        }
        p.queue.push(first_of(*block), 64, Segment::Main);
        p.there.insert(*block);
    }
    p.all(0..800);
    assert!(hot.iter().all(|block| p.there.contains(block)));
}

/// An event for the detector.
#[derive(Clone, Debug)]
enum Event {
    Arrived {
        block: u64,
        n: usize,
        run: usize,
    },
    ZeroFilled {
        block: u64,
        n: usize,
    },
    /// A probe leaves, if one is due.
    Probe {
        block: u64,
    },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (0..40u64, 1..=64usize, 1..100usize)
            .prop_map(|(block, n, run)| Event::Arrived { block, n, run }),
        1 => (0..60u64, 1..=64usize).prop_map(|(block, n)| Event::ZeroFilled { block, n }),
        1 => (0..40u64).prop_map(|block| Event::Probe { block }),
    ]
}

/// Applies events. Returns the blocks that came, since each later visit of these may be
/// part of a loop.
fn happen(scan: &mut CyclicScan, total: u64, events: Vec<Event>) -> BTreeSet<u64> {
    let mut seen = BTreeSet::new();
    for event in events {
        match event {
            Event::Arrived { block, n, run } => {
                let is_loop = scan.arrived(first_of(block), n, run, total);
                let is_new = seen.insert(block);
                assert!(!(is_new && is_loop), "block {block} is new");
            }
            Event::ZeroFilled { block, n } => {
                scan.zero_filled(first_of(block), n, total);
                seen.insert(block);
            }
            Event::Probe { block } if scan.wants_probe() => {
                scan.begin_probe(first_of(block));
                assert!(!scan.wants_probe());
            }
            Event::Probe { .. } => {}
        }
    }
    seen
}

/// A loop of 16 blocks in memory of 512 pages, then anything.
fn looping() -> impl Strategy<Value = Vec<Event>> {
    let rounds = (0..8u64)
        .flat_map(|_| 0..16u64)
        .map(|block| Event::Arrived {
            block,
            n: 64,
            run: 64,
        });
    let rounds: Vec<Event> = rounds.collect();
    prop::collection::vec(event(), 0..60).prop_map(move |more| [rounds.clone(), more].concat())
}

proptest! {
    /// New blocks are no loop, and half of memory of them ends every loop.
    #[test]
    fn new_memory_ends_every_loop(events in looping(), fills in any::<bool>()) {
        let (mut scan, total) = (CyclicScan::default(), 512);
        happen(&mut scan, total, events);
        for block in 1000..1000 + total / SCAN_BLOCK / 2 + 1 {
            match fills {
                true => scan.zero_filled(first_of(block), 64, total),
                false => _ = scan.arrived(first_of(block), 64, 64, total),
            }
        }
        prop_assert!(!scan.is_cyclic());
    }

    /// A probe that does not come back within one and a half of the longest possible
    /// period ends.
    #[test]
    fn a_probe_ends(events in looping()) {
        let (mut scan, total) = (CyclicScan::default(), 512);
        happen(&mut scan, total, events);
        if scan.wants_probe() {
            scan.begin_probe(first_of(0));
        }
        prop_assert!(!scan.wants_probe());
        // No period is longer than the number of pages that came.
        let came = u64::from(scan.now);
        for i in 0..came * 3 / SCAN_BLOCK {
            scan.arrived(first_of(1 + i % 16), 64, 64, total);
        }
        prop_assert!(scan.wants_probe());
    }
}

#[test]
fn a_loop_is_found_in_its_third_round() {
    let mut scan = CyclicScan::default();
    let mut round = || {
        (0..16)
            .filter(|b| scan.arrived(first_of(*b), 64, 64, 512))
            .count()
    };
    assert_eq!([round(), round()], [0, 13]);
    assert_eq!(round(), 16);
}
