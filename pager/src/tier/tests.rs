use super::log::SEGMENT;
use super::*;
use crate::cache::tests::page;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::vec::Vec;

fn space() -> &'static Space {
    let space = Box::leak(Box::new(Space::new()));
    space.set_aside(256 << 20);
    space
}

fn folder() -> Fd {
    let folder = File::open(std::env::temp_dir()).expect("a folder");
    OwnedFd::from(folder).into()
}

/// The file descriptors that a child would get from its parent's engine.
fn handed_over(tier: &Tier) -> Vec<Fd> {
    let again = |fd: BorrowedFd<'_>| rustix::io::fcntl_dupfd_cloexec(fd, 0);
    let fds = tier.descriptors().map(again);
    fds.map(|fd| fd.expect("a descriptor").into()).collect()
}

#[derive(Clone, Debug)]
enum Step {
    Grant,
    Release {
        nth: usize,
    },
    /// Pages are written, neighbours in order.
    Write {
        at: u64,
        count: u64,
        seed: u64,
        kinds: u64,
    },
    Read {
        at: u64,
    },
    Discard {
        at: u64,
        count: u64,
    },
    Limit {
        segments: usize,
    },
    /// The process is forked, and the child goes on.
    Fork,
    /// No other process has the files any more.
    Alone,
}

fn step() -> impl Strategy<Value = Step> {
    let kinds = prop_oneof![Just(1u64), Just(100), Just(1 << 40)];
    prop_oneof![
        4 => Just(Step::Grant),
        1 => (0usize..8).prop_map(|nth| Step::Release { nth }),
        20 => (0u64..4096, 1u64..200, 0u64..1000, kinds)
            .prop_map(|(at, count, seed, kinds)| Step::Write { at, count, seed, kinds }),
        20 => (0u64..4096).prop_map(|at| Step::Read { at }),
        5 => (0u64..4096, 1u64..300).prop_map(|(at, count)| Step::Discard { at, count }),
        2 => (1usize..12).prop_map(|segments| Step::Limit { segments }),
        1 => Just(Step::Fork),
        1 => Just(Step::Alone),
    ]
}

/// Segments in which four slabs are granted before anything is written.
const ROOMY: usize = 64;

/// The tier, and what it has to have.
struct Pair {
    space: &'static Space,
    tier: Tier,
    slabs: Vec<u32>,
    pages: BTreeMap<(u32, u32), (u64, u64)>,
}

impl Pair {
    fn new(has_spill: bool) -> Pair {
        let space = space();
        let tier = Tier::new(space, ROOMY * SEGMENT, has_spill.then(folder));
        Pair {
            space,
            tier: tier.expect("a tier"),
            slabs: Vec::new(),
            pages: BTreeMap::new(),
        }
    }

    /// The page at a number, if its slab was granted.
    fn place(&self, at: u64) -> Option<(u32, u32)> {
        let (slab, page) = (at / 1024, at % 1024);
        Some((*self.slabs.get(slab as usize)?, page as u32))
    }

    fn check(&mut self, (slab, number): (u32, u32)) {
        let mut bytes = [0x55; PAGE_SIZE];
        let result = self.tier.read(slab, number, &mut bytes);
        match self.pages.get(&(slab, number)) {
            Some((seed, kinds)) => {
                assert_eq!(result, Ok(()));
                assert!(bytes == page(*seed, *kinds), "page {number} of slab {slab}");
            }
            None => assert_eq!(result, Err(ReadError::Absent)),
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Grant => self.slabs.extend(self.tier.grant()),
            Step::Release { nth } if nth < self.slabs.len() => {
                let slab = self.slabs.remove(nth);
                self.tier.release(slab);
                self.pages.retain(|(of, _), _| *of != slab);
            }
            Step::Release { .. } => {}
            Step::Write {
                at,
                count,
                seed,
                kinds,
            } => {
                for at in at..at + count {
                    let Some((slab, number)) = self.place(at) else {
                        break;
                    };
                    let what = (seed + at, kinds);
                    if self.tier.write(slab, number, &page(what.0, what.1)).is_ok() {
                        self.pages.insert((slab, number), what);
                    }
                }
            }
            Step::Read { at } => {
                let place = self.place(at);
                place.into_iter().for_each(|place| self.check(place));
            }
            Step::Discard { at, count } => {
                for at in at..at + count {
                    let Some((slab, number)) = self.place(at) else {
                        break;
                    };
                    self.tier.discard(slab, number);
                    self.pages.remove(&(slab, number));
                }
            }
            Step::Limit { segments } => self.tier.set_limit(segments * SEGMENT),
            Step::Fork => {
                self.tier.share();
                let descriptors = handed_over(&self.tier);
                // SAFETY: the other one is dropped.
                let child = unsafe { self.tier.inherited(self.space, descriptors) };
                self.tier = child.expect("a child's tier");
            }
            Step::Alone => self.tier.is_alone(),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn each_page_reads_as_it_was_written_last(
        has_spill: bool,
        steps in proptest::collection::vec(step(), 0..200),
    ) {
        let mut pair = Pair::new(has_spill);
        (0..3).for_each(|_| pair.step(&Step::Grant));
        prop_assert_eq!(pair.slabs.len(), 3);
        pair.step(&Step::Limit { segments: 8 });
        steps.iter().for_each(|step| pair.step(step));
        let slabs = pair.slabs.clone();
        for slab in slabs {
            (0..SLAB_PAGES).for_each(|page| pair.check((slab, page)));
        }
        pair.tier.set_limit(64 * SEGMENT);
        for slab in core::mem::take(&mut pair.slabs) {
            pair.tier.release(slab);
        }
        // At most the segment that is being filled.
        prop_assert!(pair.tier.memory() <= SEGMENT, "{} bytes are left", pair.tier.memory());
    }
}

/// A tier of so many segments whose pages were written at random, again and again.
fn churned(segments: usize, has_spill: bool) -> Pair {
    let mut pair = Pair::new(has_spill);
    (0..4).for_each(|_| pair.step(&Step::Grant));
    pair.tier.set_limit(segments * SEGMENT);
    let pages = pair.slabs.len() as u64 * 1024;
    let mut at = 7u64;
    for seed in 0..12_000 {
        at = at
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        pair.step(&Step::Write {
            at: (at >> 33) % pages,
            count: 1,
            seed,
            kinds: 60,
        });
    }
    pair
}

#[test]
fn memory_in_use_stays_below_the_limit_and_near_what_is_alive() {
    let mut pair = churned(48, false);
    assert!(pair.tier.memory() <= (48 + 48 / 16 + 1) * SEGMENT);
    let alive = pair.pages.len() as u64 * pair.tier.written.bytes();
    let used = pair.tier.memory() as u64;
    assert!(used < alive * 2, "{used} bytes for {alive}");
    let places: Vec<_> = pair.pages.keys().copied().collect();
    assert!(places.len() > 2000);
    places.into_iter().for_each(|place| pair.check(place));
}

#[test]
fn what_memory_has_no_room_for_goes_to_the_file() {
    let mut pair = churned(4, true);
    assert!(pair.tier.memory() <= 5 * SEGMENT);
    assert!(pair.tier.spilled() > 4 * SEGMENT as u64);
    let places: Vec<_> = pair.pages.keys().copied().collect();
    places.into_iter().for_each(|place| pair.check(place));
}

#[test]
fn without_room_nothing_is_granted_and_what_is_there_stays() {
    let mut pair = Pair::new(false);
    pair.step(&Step::Grant);
    pair.tier.set_limit(4 * SEGMENT);
    // They compress worse than expected.
    pair.step(&Step::Write {
        at: 0,
        count: 1024,
        seed: 1,
        kinds: 1 << 40,
    });
    assert_eq!(pair.tier.grant(), Err(Full));
    assert!(pair.pages.len() < 400 && pair.pages.len() > 200);
    let slab = pair.slabs[0];
    (0..SLAB_PAGES).for_each(|page| pair.check((slab, page)));
    pair.step(&Step::Discard { at: 0, count: 1024 });
    assert!(pair.tier.memory() <= SEGMENT);
}

#[test]
fn a_file_that_a_child_reads_is_not_written_over() {
    let mut pair = churned(4, true);
    let places: Vec<_> = pair.pages.keys().copied().collect();
    pair.tier.share();
    let (before, space) = (pair.pages.clone(), pair.space);
    let descriptors = handed_over(&pair.tier);
    // SAFETY: the child only reads what is in files, and nothing in the memory that both have
    // in this test.
    let mut child = unsafe { pair.tier.inherited(space, descriptors) }.expect("a child");
    let in_file: Vec<_> = places
        .iter()
        .copied()
        .filter(|(slab, page)| {
            let entry = child.index.get(*slab, *page).expect("a page");
            child.log.is_in_file(entry)
        })
        .collect();
    assert!(in_file.len() > 1000);
    pair.step(&Step::Write {
        at: 0,
        count: 4096,
        seed: 9,
        kinds: 70,
    });
    for (slab, number) in in_file {
        let mut bytes = [0; PAGE_SIZE];
        assert_eq!(child.read(slab, number, &mut bytes), Ok(()));
        let (seed, kinds) = before[&(slab, number)];
        assert!(bytes == page(seed, kinds), "page {number} of slab {slab}");
    }
}
