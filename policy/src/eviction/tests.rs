use super::*;
use proptest::prelude::*;
use std::collections::VecDeque as Plain;

fn p(number: u64) -> PageNumber {
    PageNumber::new(number)
}

/// Returns the first page and the length of a popped run.
fn range(popped: Option<(Run, Segment)>) -> Option<(u64, u32)> {
    popped.map(|(r, _)| (r.first.get(), r.n))
}

#[test]
fn a_run_that_was_put_back_leaves_next_from_its_segment() {
    let mut q = EvictionQueue::default();
    q.push(p(0), MAX_RUN, Segment::Main);
    q.push(p(1000), 10 * MAX_RUN, Segment::Small);
    let (run, segment) = q.pop().unwrap();
    let rest = Run {
        first: run.first + 100,
        n: run.n - 100,
        ..run
    };
    q.put_back(rest, segment);
    assert_eq!(q.pages(), 11 * u64::from(MAX_RUN) - 100);
    assert_eq!(q.pop(), Some((rest, Segment::Small)));
}

#[test]
fn a_scan_leaves_by_the_small_segment_and_hot_pages_stay() {
    let mut q = EvictionQueue::default();
    q.push(p(0), MAX_RUN, Segment::Main);
    q.push(p(1000), 10 * MAX_RUN, Segment::Small);
    for i in 0..9 {
        let first = 1000 + i * u64::from(MAX_RUN);
        assert_eq!(range(q.pop()), Some((first, MAX_RUN)));
    }
    assert_eq!(q.pages(), 2 * u64::from(MAX_RUN));
}

#[test]
fn neighbours_that_come_one_by_one_leave_as_a_run() {
    let mut q = EvictionQueue::default();
    let run = u64::from(MAX_RUN);
    for page in 0..run + 6 {
        q.push(p(page), 1, Segment::Small);
    }
    assert_eq!(range(q.pop()), Some((0, MAX_RUN)));
    assert_eq!(range(q.pop()), Some((run, 6)));
    for page in (1000..1032).rev() {
        q.push(p(page), 1, Segment::Small);
    }
    assert_eq!(range(q.pop()), Some((1000, 32)));
    assert_eq!(q.pop(), None);
}

#[test]
fn a_page_that_comes_again_has_another_generation() {
    let mut q = EvictionQueue::default();
    let old = q.push(p(5), 1, Segment::Small);
    for page in (100..).take(MAX_RUN as usize) {
        q.push(p(page), 1, Segment::Small);
    }
    let new = q.push(p(5), 1, Segment::Small);
    assert_ne!(old, new);
    let generations: Vec<_> = std::iter::from_fn(|| q.pop())
        .filter(|(r, _)| r.first == p(5))
        .map(|(r, _)| r.generation)
        .collect();
    assert_eq!(generations, [old, new]);
}

#[derive(Clone, Debug)]
enum Step {
    /// Pages come.
    Push(u64, u32, Segment),
    /// Pages come that the queue decides about, as part of a run.
    Choose(u64, u32, usize),
    /// A run is popped, and this many of its pages are put back.
    Pop(u32),
    /// Everything is drained and queued again.
    Drain,
}

fn step() -> impl Strategy<Value = Step> {
    let segment = || {
        prop_oneof![
            Just(Segment::Small),
            Just(Segment::Main),
            Just(Segment::Protected),
        ]
    };
    // Pages from 8 on lie in blocks that may come repeatedly.
    let first = || prop_oneof![0..300u64, (0..20u64).prop_map(|block| block * 64)];
    prop_oneof![
        6 => (first(), 1..300u32, segment()).prop_map(|(p, n, s)| Step::Push(p, n, s)),
        6 => (0..400u64, 1..64u32, 1..200usize)
            .prop_map(|(block, n, run)| Step::Choose(block * 64, n, run)),
        10 => (0..50u32).prop_map(Step::Pop),
        1 => Just(Step::Drain),
    ]
}

proptest! {
    /// Every page leaves exactly once, and in the order of arrival within its segment.
    #[test]
    fn every_page_leaves_once_and_in_order(
        steps in prop::collection::vec(step(), 0..200),
        longest_run in 1..=MAX_RUN,
        small_part in 1..20u64,
    ) {
        let shape = Shape { small_part, longest_run };
        let mut q = EvictionQueue::new(shape);
        q.set_resident(2000, 8);
        let at = |s: Segment| s as usize;
        // The contents of each segment. Neighbours merge downwards too, so within a run the
        // order is that of addresses.
        let mut plain: [Plain<u64>; 3] = Default::default();
        for step in steps {
            match step {
                Step::Push(first, n, segment) => {
                    q.push(p(first), n, segment);
                    plain[at(segment)].extend(first..first + u64::from(n));
                }
                Step::Choose(first, n, run) => {
                    let segment = q.choose_segment(p(first), n as usize, run);
                    q.push(p(first), n, segment);
                    plain[at(segment)].extend(first..first + u64::from(n));
                }
                Step::Pop(back) => {
                    let Some((run, segment)) = q.pop() else {
                        prop_assert!(plain.iter().all(Plain::is_empty));
                        continue;
                    };
                    prop_assert!(run.n <= longest_run && run.n > 0);
                    let left = &mut plain[at(segment)];
                    let mut first: Vec<u64> = left.drain(..run.n as usize).collect();
                    first.sort_unstable();
                    prop_assert!(first.iter().map(|page| p(*page)).eq(run.pages()));
                    let back = back.min(run.n);
                    if back > 0 {
                        let first = run.first + (run.n - back) as usize;
                        let rest = Run { first, n: back, ..run };
                        rest.pages().rev().for_each(|page| left.push_front(page.get()));
                        q.put_back(rest, segment);
                    }
                }
                Step::Drain => {
                    for (run, segment) in q.drain() {
                        q.requeue(run, segment);
                    }
                }
            }
            let pages: usize = plain.iter().map(Plain::len).sum();
            prop_assert_eq!(q.pages(), pages as u64);
        }
    }

    /// The small segment is never starved: while nothing is protected, it gives pages until
    /// it has only its part.
    #[test]
    fn hot_pages_stay_while_the_small_segment_has_more_than_its_part(
        hot in 1..2000u32, cold in 1..2000u32, small_part in 1..20u64,
    ) {
        let mut q = EvictionQueue::new(Shape { small_part, ..Shape::default() });
        q.push(p(0), hot, Segment::Main);
        q.push(p(1 << 20), cold, Segment::Small);
        loop {
            let small = q.pages() - u64::from(hot);
            let Some((_, segment)) = q.pop() else { break };
            if segment == Segment::Main {
                prop_assert!(small <= (u64::from(hot) + small) / small_part);
                break;
            }
        }
    }
}
