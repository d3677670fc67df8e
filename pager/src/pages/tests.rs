use super::*;
use crate::cache::Place;
use crate::frame_number::FrameNumber;
use proptest::prelude::*;
use tmem_policy::eviction::GENERATION_MASK;

fn frame() -> impl Strategy<Value = FrameNumber> {
    (1..u32::MAX).prop_map(FrameNumber::from_bits)
}

fn page() -> impl Strategy<Value = Page> {
    let state = prop_oneof![
        Just(State::Local),
        frame().prop_map(State::Pooled),
        Just(State::Remote),
        frame().prop_map(State::ReadIn),
        Just(State::Lost),
    ];
    let slot = prop::option::of(any::<u64>().prop_map(Slot::from_bits));
    (state, slot, any::<(u64, [bool; 5], u8, u8, u32)>()).prop_map(
        |(state, slot, (hash, b, epoch, generation, copy))| Page {
            state,
            slot,
            hash,
            queued: b[0],
            referenced: b[1],
            has_waiters: b[2],
            ahead: b[3],
            dirty: b[4],
            epoch,
            generation: generation & GENERATION_MASK,
            copy: Place::new(copy),
        },
    )
}

#[test]
fn pages_in_the_program_that_have_a_wanted_slot_are_found_in_turn() {
    let mut pages = Pages::default();
    let slot = |n: u64| Some(Slot::from_bits(n));
    let numbers: Vec<u64> = (0..200).map(|n| n * 37 + (n % 3) * CHUNK * 5000).collect();
    for &n in &numbers {
        let state = match n % 4 {
            0 => State::Remote,
            1 => State::Pooled(FrameNumber::new(7)),
            _ => State::Local,
        };
        let slot = slot(n).filter(|_| !n.is_multiple_of(5));
        pages.set(
            PageNumber::new(n),
            &Page {
                state,
                slot,
                ..Page::default()
            },
        );
    }
    let wanted = |slot: Slot| !slot.bits().is_multiple_of(7);
    let is_due = |n: &u64| n % 4 > 1 && !n.is_multiple_of(5) && !n.is_multiple_of(7);
    let mut expected: Vec<_> = numbers.iter().copied().filter(is_due).collect();
    expected.sort_unstable();
    for (entries, most) in [(1, 1), (100, 3), (1 << 20, 1 << 20)] {
        let (mut found, mut from, mut looks) = (Vec::new(), Some(PageNumber::new(0)), 0);
        while let Some(at) = from {
            let mut some = Vec::new();
            from = pages.find_copied(at, entries, most, wanted, &mut some);
            assert!(some.len() <= most);
            assert!(some.iter().all(|(page, at)| slot(page.get()) == Some(*at)));
            found.extend(some.into_iter().map(|(page, _)| page.get()));
            looks += 1;
        }
        assert_eq!(found, expected);
        assert!(looks > 1 || most > 1000);
    }
}

proptest! {
    #[test]
    fn an_entry_reads_back_as_it_was_stored(page in page(), at in 0u64..1 << 36) {
        let mut pages = Pages::default();
        let at = PageNumber::new(at);
        pages.set(at, &page);
        prop_assert_eq!(pages.get(at), page);
        prop_assert_eq!(pages.get(at + 1), Page::default());
    }

    #[test]
    fn taking_a_range_takes_its_entries_and_no_others(
        set in proptest::collection::btree_set(0u64..3000, 0..60), a in 0u64..3000, b in 0u64..3000,
    ) {
        let (a, b) = (a.min(b), a.max(b));
        let mut pages = Pages::default();
        for &p in &set {
            pages.update(PageNumber::new(p), |e| e.state = State::Remote);
        }
        let mut out = Vec::new();
        pages.take_range(&(PageNumber::new(a)..PageNumber::new(b)), &mut out);
        let taken: Vec<u64> = out.iter().map(|(p, _)| p.get()).collect();
        let expected: Vec<u64> = set.range(a..b).copied().collect();
        prop_assert_eq!(&taken, &expected);
        let mut left = Vec::new();
        pages.each(|p, e| left.push((p.get(), e.state)));
        let expected: Vec<_> = set.iter().filter(|p| !(a..b).contains(*p)).map(|p| (*p, State::Remote)).collect();
        prop_assert_eq!(left, expected);
        for p in 0..3000 {
            let there = set.contains(&p) && !(a..b).contains(&p);
            prop_assert_eq!(pages.get(PageNumber::new(p)).state == State::Remote, there);
        }
    }
}
