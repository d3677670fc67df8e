use super::*;
use alloc::boxed::Box;
use proptest::prelude::*;
use std::collections::HashMap;

fn p(number: u64) -> PageNumber {
    PageNumber::new(number)
}

/// A page that compresses better the fewer `kinds` of words it has.
pub(crate) fn page(seed: u64, kinds: u64) -> PageBytes {
    let mut state = seed;
    let mut page = [0; PAGE_SIZE];
    for word in page.as_chunks_mut::<8>().0 {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
        let value = (state >> 33) % kinds;
        *word = value.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    }
    page
}

/// A cache of up to `bytes`.
fn cache_of(bytes: usize) -> Cache {
    let space = Box::leak(Box::new(Space::new()));
    space.set_aside(bytes);
    Cache::new(space, bytes)
}

#[derive(Clone, Debug)]
enum Step {
    /// A page is evicted. The seed and the number of kinds of words determine its contents.
    Leave { page: u64, seed: u64, kinds: u64 },
    /// A page is looked up.
    Ask { page: u64 },
    /// The number of segments changes.
    Resize { segments: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (1u64..400, 0u64..3, 1u64..200)
            .prop_map(|(page, seed, kinds)| Step::Leave { page, seed, kinds }),
        20 => (1u64..400).prop_map(|page| Step::Ask { page }),
        1 => (0usize..6).prop_map(|segments| Step::Resize { segments }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_found_is_the_page_as_it_left_last(
        steps in proptest::collection::vec(step(), 0..600),
    ) {
        let digester = Digester::draw();
        let mut cache = cache_of(5 * BYTES);
        cache.set_pages(3 * SEGMENT);
        let mut pages: HashMap<u64, (PageBytes, Option<Place>)> = HashMap::new();
        for (now, step) in (0u32..).zip(steps) {
            match step {
                Step::Leave { page: number, seed, kinds } => {
                    let bytes = page(seed, kinds);
                    let before = pages.get(&number).and_then(|p| p.1);
                    let at = cache
                        .renew(before, p(number), digester.digest(&bytes, None), now)
                        .or_else(|| cache.put(p(number), digester.digest(&bytes, None), now, &bytes).map(|p| p.0));
                    pages.insert(number, (bytes, at));
                    if let Some(at) = at {
                        let mut got = [0; PAGE_SIZE];
                        let found = cache.unpack(Some(at), p(number), digester.digest(&bytes, None), digester, &mut got);
                        prop_assert_eq!(found, Some(now));
                    }
                }
                Step::Ask { page: number } => {
                    let Some((bytes, at)) = pages.get(&number) else { continue };
                    let mut got = [0; PAGE_SIZE];
                    if cache.unpack(*at, p(number), digester.digest(bytes, None), digester, &mut got).is_some() {
                        prop_assert!(got == *bytes);
                    }
                    // The copy is not taken for another page, or for other contents.
                    prop_assert!(cache.unpack(*at, p(number + 1), digester.digest(bytes, None), digester, &mut got).is_none());
                    prop_assert!(cache.unpack(*at, p(number), !digester.digest(bytes, None), digester, &mut got).is_none());
                }
                Step::Resize { segments } => cache.set_pages(segments * SEGMENT),
            }
            prop_assert!(cache.pages() <= cache.may_have());
        }
    }
}

#[test]
fn what_leaves_again_stays_and_what_does_not_makes_room() {
    let digester = Digester::draw();
    let mut cache = cache_of(4 * BYTES);
    cache.set_pages(4 * SEGMENT);
    let kept = page(1, 5);
    let (mut at, _) = cache
        .put(p(1), digester.digest(&kept, None), 0, &kept)
        .unwrap();
    let mut got = [0; PAGE_SIZE];
    for number in 2..5000u64 {
        let bytes = page(number, 60);
        assert!(
            cache
                .put(p(number), digester.digest(&bytes, None), 0, &bytes)
                .is_some()
        );
        at = cache
            .renew(Some(at), p(1), digester.digest(&kept, None), number as u32)
            .unwrap();
    }
    let found = cache.unpack(
        Some(at),
        p(1),
        digester.digest(&kept, None),
        digester,
        &mut got,
    );
    assert_eq!(found, Some(4999));
    assert!(got == kept);
    assert_eq!(cache.pages(), 4 * SEGMENT);
}

#[test]
fn what_is_damaged_is_not_taken_for_the_page() {
    let digester = Digester::draw();
    let mut cache = cache_of(BYTES);
    cache.set_pages(SEGMENT);
    let bytes = page(1, 20);
    let (at, len) = cache
        .put(p(7), digester.digest(&bytes, None), 0, &bytes)
        .unwrap();
    let mut got = [0; PAGE_SIZE];
    for i in (0..HEADER + len).filter(|i| !(16..20).contains(i)) {
        let byte = &mut cache.area.as_mut().unwrap().bytes_mut(i, 1)[0];
        *byte ^= 0x20;
        // Compression may copy a byte from one of two equal places.
        if cache
            .unpack(
                Some(at),
                p(7),
                digester.digest(&bytes, None),
                digester,
                &mut got,
            )
            .is_some()
        {
            assert!(i >= HEADER && got == bytes, "byte {i}");
        }
        cache.area.as_mut().unwrap().bytes_mut(i, 1)[0] ^= 0x20;
    }
    assert!(
        cache
            .unpack(
                Some(at),
                p(7),
                digester.digest(&bytes, None),
                digester,
                &mut got
            )
            .is_some()
    );
}

#[test]
fn places_that_never_were_are_not_looked_at() {
    let (cache, digester) = (cache_of(2 * BYTES), Digester::draw());
    let mut got = [0; PAGE_SIZE];
    for at in [1, 2, u32::MAX] {
        assert!(
            cache
                .unpack(Place::new(at), p(0), 0, digester, &mut got)
                .is_none()
        );
    }
    assert!(cache_of(0).put(p(1), 2, 3, &got).is_none());
}

#[test]
fn noise_is_not_kept() {
    let mut cache = cache_of(BYTES);
    cache.set_pages(SEGMENT);
    assert!(cache.put(p(1), 0, 0, &page(1, u64::MAX)).is_none());
}
