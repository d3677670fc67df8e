use super::stream::{FIRST, FIRST_WARY, WIDEST};
use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::vec::Vec;

/// A fault on a page. Returns a window in pages.
fn fault(p: &mut Prefetcher, tid: u32, page: u64, there: bool) -> Window {
    let w = p.fault(tid, page.saturating_mul(PAGE as u64), there);
    assert_eq!((w.start % PAGE as u64, w.stride % PAGE), (0, 0), "{w:?}");
    Window {
        start: w.start / PAGE as u64,
        stride: w.stride / PAGE,
        ..w
    }
}

/// Cuts a window in pages to `count` pages.
fn cut(p: &mut Prefetcher, tid: u32, w: Window, count: u32) {
    let w = Window {
        start: w.start * PAGE as u64,
        stride: w.stride * PAGE,
        ..w
    };
    p.cut(tid, w, count);
}

/// Simulates a program that touches these addresses in order. Everything that is read
/// stays. The page at three quarters of each window faults once, as the marker. Returns how
/// many pages were missed, and the sizes of the windows.
fn touch(p: &mut Prefetcher, tid: u32, all: impl IntoIterator<Item = u64>) -> (usize, Vec<u32>) {
    let (mut held, mut markers) = (BTreeSet::new(), BTreeSet::new());
    let (mut misses, mut windows) = (0, Vec::new());
    for at in all {
        let page = at / PAGE as u64;
        let marker = markers.remove(&page);
        if held.contains(&page) && !marker {
            continue;
        }
        misses += usize::from(!marker);
        held.insert(page);
        let w = p.fault(tid, at, marker);
        let page = |i: u32| w.page(i.into()).unwrap().get();
        held.extend((0..w.count).map(page));
        if w.count > 0 {
            markers.insert(page(w.count * 3 / 4));
            windows.push(w.count);
        }
    }
    (misses, windows)
}

/// The same as [`touch`] for pages.
fn walk(p: &mut Prefetcher, tid: u32, pages: impl IntoIterator<Item = u64>) -> (usize, Vec<u32>) {
    touch(p, tid, pages.into_iter().map(|page| page * PAGE as u64))
}

/// Addresses at a stride in bytes.
fn along(stride: i64, steps: i64) -> impl Iterator<Item = u64> {
    (0..steps).map(move |i| 100_000_123u64.checked_add_signed(stride * i).unwrap())
}

#[test]
fn a_sequential_walk_misses_thrice_and_its_windows_double() {
    let (misses, windows) = walk(&mut Prefetcher::new(), 1, 1000..9000);
    assert_eq!(misses, 3);
    assert_eq!(windows[..8], [8, 16, 32, 64, 128, 256, 512, 512]);
}

#[test]
fn a_backward_walk_is_followed_down_to_page_zero() {
    let (misses, windows) = walk(&mut Prefetcher::new(), 1, (0..5000).rev());
    assert_eq!(misses, 3);
    assert!(windows.contains(&512));
}

#[test]
fn a_strided_walk_is_followed_once_its_stride_repeats() {
    let (misses, windows) = walk(&mut Prefetcher::new(), 1, (0..4000).map(|i| 70 + i * 7));
    assert_eq!(misses, 3);
    assert_eq!(windows.iter().max(), Some(&64));
}

#[test]
fn a_stride_that_is_no_number_of_pages_is_followed_to_the_byte() {
    for stride in [5000, 7000, 10_000, 100_001, -7000, -12_345] {
        let (misses, _) = touch(&mut Prefetcher::new(), 1, along(stride, 2000));
        assert!(misses <= 6, "{misses} with {stride}");
    }
}

#[test]
fn records_within_pages_are_a_walk_in_order() {
    for stride in [100, 1000, 3000, 4000, 4095, -100, -3000] {
        let (misses, _) = touch(&mut Prefetcher::new(), 1, along(stride, 20_000));
        assert!(misses <= 4, "{misses} with {stride}");
    }
}

#[test]
fn four_interleaved_streams_of_one_thread_are_told_apart() {
    let merged = (0..2000u64).flat_map(|i| (0..4).map(move |s| s * 1_000_000 + i));
    assert_eq!(walk(&mut Prefetcher::new(), 1, merged).0, 12);
}

#[test]
fn where_streams_end_at_once_little_is_fetched_and_a_long_one_is_still_found() {
    let mut p = Prefetcher::new();
    // Records of three pages, here and there.
    let records = (1..200u64).flat_map(|i| (0..3).map(move |j| i * 10_007 + j));
    let (_, windows) = walk(&mut p, 1, records);
    assert_eq!(windows.first(), Some(&FIRST));
    assert_eq!(windows.last(), Some(&FIRST_WARY));
    let most = windows.iter().filter(|n| **n > FIRST_WARY).count();
    assert!(most <= TRUST as usize, "{windows:?}");
    let (misses, windows) = walk(&mut p, 1, 90_000_000..90_010_000);
    assert_eq!(misses, 3);
    assert!(windows.contains(&LARGEST));
    // After ten streams that go on, the thread is trusted again.
    for i in 10..20u64 {
        walk(&mut p, 1, i * 10_000_000..i * 10_000_000 + 100);
    }
    let (_, windows) = walk(&mut p, 1, 300_000_000..300_000_100);
    assert_eq!(windows.first(), Some(&FIRST));
}

#[test]
fn threads_do_not_disturb_one_another() {
    let mut p = Prefetcher::new();
    for page in 0..3 {
        for tid in 0..8 {
            let w = fault(
                &mut p,
                tid,
                u64::from(tid) + page * 1_000 + 7 * u64::from(tid) * page,
                true,
            );
            assert_eq!(w.count, 0);
        }
    }
    fault(&mut p, 20, 499, true);
    fault(&mut p, 20, 500, true);
    for tid in 0..20 {
        fault(&mut p, tid, 100_000_000, true);
    }
    assert_eq!(
        fault(&mut p, 20, 501, true),
        Window {
            start: 502,
            stride: 1,
            count: 8
        }
    );
}

#[test]
fn faults_within_a_window_on_its_way_fetch_nothing_twice() {
    let mut p = Prefetcher::new();
    fault(&mut p, 1, 9, true);
    fault(&mut p, 1, 10, true);
    assert_eq!(
        fault(&mut p, 1, 11, true),
        Window {
            start: 12,
            stride: 1,
            count: 8
        }
    );
    assert_eq!(fault(&mut p, 1, 12, true).count, 0);
    assert_eq!(fault(&mut p, 1, 13, true).count, 0);
    assert_eq!(
        fault(&mut p, 1, 17, true),
        Window {
            start: 20,
            stride: 1,
            count: 16
        }
    );
}

#[test]
fn a_window_that_has_left_again_is_asked_for_anew_from_there() {
    let mut p = Prefetcher::new();
    for page in 9..12 {
        fault(&mut p, 1, page, false);
    }
    // Of pages 12 to 19, page 14 is missing.
    let window = |start, count| Window {
        start,
        stride: 1,
        count,
    };
    assert_eq!(fault(&mut p, 1, 13, false).count, 0);
    assert_eq!(fault(&mut p, 1, 15, false).count, 0);
    assert_eq!(fault(&mut p, 1, 16, false), window(17, 8));
    assert_eq!(fault(&mut p, 1, 17, true).count, 0);
    assert_eq!(fault(&mut p, 1, 22, true), window(25, 16));
}

#[test]
fn single_faults_here_and_there_do_not_drive_out_streams_that_go_on() {
    let streams = |i: u64| (0..5u64).map(move |s| s * 1_000_000 + i);
    let noise = |i: u64| (0..7u64).map(move |n| 50_000_000 + (i * 7 + n) * 10_007);
    let mut p = Prefetcher::new();
    walk(&mut p, 1, (0..3).flat_map(streams));
    let merged = (3..1000).flat_map(|i| streams(i).chain(noise(i)));
    let (misses, _) = walk(&mut p, 1, merged);
    assert!(misses <= 7 * 997 + 20, "{misses}");
}

#[test]
fn a_window_that_was_cut_is_followed_by_one_behind_what_was_fetched_of_it() {
    let mut p = Prefetcher::new();
    walk(&mut p, 1, 0..500);
    let last = p.threads[0].streams[0].last as u64 / PAGE as u64;
    let at = p.threads[0].streams[0].frontier as u64 / PAGE as u64;
    let w = fault(&mut p, 1, at, false);
    assert_eq!(
        (w.start, w.count > 200),
        (at + 1, true),
        "{w:?} after {last}"
    );
    cut(&mut p, 1, w, 100);
    // The marker of the window.
    let next = fault(&mut p, 1, at + 1 + 75, true);
    assert_eq!((next.start, next.count), (at + 101, 200));
    // A window of which nothing could be read.
    cut(&mut p, 1, next, 0);
    assert_eq!(fault(&mut p, 1, at + 101, false).start, at + 102);
}

#[test]
fn skipped_pages_shrink_the_window() {
    let mut p = Prefetcher::new();
    let (_, windows) = walk(&mut p, 1, 0..500);
    let size = *windows.last().unwrap();
    let mut at = p.threads[0].streams[0].frontier as u64 / PAGE as u64 + 5;
    let w = fault(&mut p, 1, at, true);
    assert_eq!(
        w,
        Window {
            start: at + 1,
            stride: 1,
            count: size / 2
        }
    );
    at += 1_000_000;
    assert_eq!(fault(&mut p, 1, at, true).count, 0);
}

#[test]
fn random_faults_over_a_wide_range_fetch_almost_nothing() {
    let mut p = Prefetcher::new();
    let mut x = 88172645463325252u64;
    let mut fetched = 0;
    for _ in 0..10_000 {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        fetched += fault(&mut p, 1, x % 1_000_000, true).count;
    }
    assert!(fetched < 200, "{fetched} pages");
}

#[test]
fn the_number_of_threads_known_is_bounded() {
    let mut p = Prefetcher::new();
    for tid in 0..10_000 {
        fault(&mut p, tid, 5, true);
    }
    assert_eq!(p.threads.len(), THREADS);
}

proptest! {
    /// Windows are always within the address space and bounded. They lie beyond the fault
    /// in the direction of their stride, or close to it if the stride is one page.
    #[test]
    fn windows_are_always_well_formed(
        faults in prop::collection::vec((0..3u32, prop_oneof![
            0..400_000u64, Just(u64::MAX), Just(BYTES - 1), any::<u64>(), (1000..1040u64).prop_map(|n| n * 10_000),
        ], any::<bool>()), 0..200),
    ) {
        let mut p = Prefetcher::new();
        for (tid, at, there) in faults {
            let w = p.fault(tid, at, there);
            if w.count > 0 {
                prop_assert!(w.count <= LARGEST && w.stride != 0);
                let last = w.start as i64 + w.stride * i64::from(w.count - 1);
                prop_assert!(last >= 0);
                let beyond = (w.start as i64 - at as i64) * w.stride.signum();
                let least = if w.stride.abs() == PAGE { -32 * PAGE } else { 1 };
                prop_assert!(beyond >= least, "{} at {}", beyond, at);
                prop_assert!((PAGE..(WIDEST + 1) * PAGE).contains(&w.stride.abs()));
            }
        }
    }
}

/// Pages from `from` on of which seven in eight are touched, each up to 20 places too
/// early or too late.
fn disorder(from: u64, n: u64) -> Vec<u64> {
    let hash = |i: u64| (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let mut pages: Vec<_> = (0..n).filter(|i| hash(*i) % 8 != 0).collect();
    pages.sort_by_key(|i| i + hash(i + n) % 20);
    pages.into_iter().map(|i| from + i).collect()
}

#[test]
fn dense_pages_in_disorder_are_fetched_ahead() {
    let up = disorder(10_000, 4000);
    let down: Vec<_> = up.iter().rev().copied().collect();
    for pages in [up, down] {
        let (misses, windows) = walk(&mut Prefetcher::new(), 1, pages);
        assert!(misses < 200, "{misses}");
        assert!(windows.contains(&128), "{windows:?}");
    }
}

#[test]
fn regions_that_lie_apart_are_each_found_and_little_is_fetched_beyond() {
    let regions = (1..50u64).flat_map(|i| disorder(i * 100_000, 256));
    let (misses, windows) = walk(&mut Prefetcher::new(), 1, regions);
    assert!(misses < 49 * 40, "{misses}");
    assert!(windows.iter().sum::<u32>() < 49 * 600, "{windows:?}");
}

#[test]
fn single_pages_at_random_fetch_nothing_and_dense_blocks_little_more() {
    let random =
        |n: u64, of: u64| (0..n).map(move |i| (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) % of);
    let (_, windows) = walk(&mut Prefetcher::new(), 1, random(20_000, 1 << 22));
    assert!(windows.is_empty(), "{windows:?}");
    // All pages of a block in disorder, then another block anywhere.
    let blocks = random(200, 1 << 20).flat_map(|b| (0..16).map(move |i| b * 64 + i * 7 % 16));
    let (_, windows) = walk(&mut Prefetcher::new(), 1, blocks);
    assert!(windows.iter().sum::<u32>() <= 200 * 40, "{windows:?}");
}

#[test]
fn a_sweep_goes_on_where_its_window_was_cut() {
    let mut p = Prefetcher::new();
    let pages = disorder(1 << 20, 2000);
    let opens = |p: &mut Prefetcher, page| Some(fault(p, 1, page, false)).filter(|w| w.count > 0);
    let (i, first) = (0..)
        .find_map(|i| Some((i, opens(&mut p, pages[i])?)))
        .unwrap();
    cut(&mut p, 1, first, 20);
    let cut_at = first.start + 20;
    let mut later = pages[i..].iter().filter(|page| **page >= cut_at);
    let next = later.find_map(|page| opens(&mut p, *page)).unwrap();
    assert_eq!((next.start, next.stride), (cut_at, 1));
}

proptest! {
    #[test]
    fn windows_leave_room_for_the_program(
        target in 0usize..1 << 16, resident in 0usize..1 << 16, evictable in 0usize..1 << 15,
    ) {
        let pages = longest_window(target, resident, evictable.min(resident));
        prop_assert!(pages <= LARGEST as usize && pages * WINDOW_PART <= target);
        let room = evictable.min(resident) + target.saturating_sub(resident);
        prop_assert!(pages * WINDOW_PART <= room);
    }

    /// A walk at one stride misses only at its beginning, however long it is.
    #[test]
    fn a_walk_at_any_stride_of_pages_misses_thrice(
        stride in prop_oneof![1..WIDEST, -WIDEST..-1], from in 1u64 << 20..1 << 30, n in 10..400i64,
    ) {
        let pages = (0..n).map(|i| from.checked_add_signed(stride * i).unwrap());
        prop_assert_eq!(walk(&mut Prefetcher::new(), 1, pages).0, 3);
    }

    #[test]
    fn what_is_known_is_bounded(
        faults in prop::collection::vec((0..200u32, 0..100_000u64), 0..500),
    ) {
        let mut p = Prefetcher::new();
        for (tid, page) in faults {
            fault(&mut p, tid, page, true);
            prop_assert!(p.threads.len() <= THREADS);
            prop_assert!(p.threads.iter().all(|t| t.streams.len() <= STREAMS));
        }
    }
}
