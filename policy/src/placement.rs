//! Placement: decides which share of the evicted pages each memory server gets, and how
//! many bytes may be under way to it.
//!
//! By free room alone, a server behind a slow network would get as many pages as one
//! nearby, and a program that waits for pages of both would be as slow as the slow one. So
//! the engine measures how long a server takes for a page. A much slower server gets few
//! pages: enough to notice when that changes, and those that no other server has room for.
//! (This is weighted load balancing with an exponentially weighted moving average, as for
//! TCP's round-trip time, RFC 6298. The bytes under way are a bandwidth-delay product.)
//!
//! Invariants, tested below:
//! - at least one server has the full share, and every server has some;
//! - a server that is slower in both measures never has a larger share;
//! - nothing depends on the order of the servers;
//! - the bytes under way lie between 512 KiB and 4 MiB.

use alloc::vec::Vec;
use tmem_wire::PAGE_SIZE;

/// Servers that differ by at most this factor count as equal, since the same server differs
/// as much under different loads.
const EVEN: u64 = 3;

/// A server whose share is smaller by this factor keeps no page that can go to another.
const POOR: u32 = 4;

/// The longest time that the bytes under way to one server may take, since a read waits
/// behind them; and the bounds of these bytes.
const QUEUE_NS: u64 = 50_000_000;
const QUEUE: core::ops::RangeInclusive<usize> = 512 << 10..=4 << 20;

/// Pages, or nanoseconds, after which a measurement of the write rate ends.
const MEASURED_PAGES: u64 = 256;
const MEASURED_NS: u64 = 100_000_000;

/// The share of pages that a server gets, relative to its free room, in units of 1/1024.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u32);

impl Share {
    /// All pages.
    pub const FULL: Share = Share(1024);
    /// Few pages, but enough to notice when a server becomes faster.
    const LEAST: Share = Share(4);

    /// Returns this share of `room`.
    pub fn of(self, room: u64) -> u64 {
        (u128::from(room) * u128::from(self.0) / u128::from(Share::FULL.0)) as u64
    }

    /// Returns how much `granted` counts against a server with this share.
    pub fn against(self, granted: u128) -> u128 {
        granted * u128::from(Share::FULL.0) / u128::from(self.0)
    }

    /// Tells whether pages leave a server with this share for one with the share `other`.
    pub fn is_poor_beside(self, other: Share) -> bool {
        self.0.saturating_mul(POOR) <= other.0
    }
}

impl Default for Share {
    fn default() -> Share {
        Share::FULL
    }
}

/// How fast a server is, as far as is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Speed {
    /// Average time that a thread waits for a page, in nanoseconds.
    pub wait_ns: Option<u64>,
    /// Average time per page while pages are written, in nanoseconds.
    pub page_ns: Option<u64>,
}

impl Speed {
    /// Returns how many bytes may be under way to the server at a time.
    pub fn queue(&self) -> usize {
        let pages = QUEUE_NS / self.page_ns.unwrap_or(1).max(1);
        let bytes = pages.saturating_mul(PAGE_SIZE as u64);
        usize::try_from(bytes)
            .unwrap_or(usize::MAX)
            .clamp(*QUEUE.start(), *QUEUE.end())
    }
}

/// Returns the share of each server, in the order of `speeds`. The fastest server has the
/// full share. Unknown times count as fast.
pub fn shares(speeds: &[Speed]) -> Vec<Share> {
    let quickest = |of: fn(&Speed) -> Option<u64>| speeds.iter().filter_map(of).min();
    let (wait, page) = (quickest(|s| s.wait_ns), quickest(|s| s.page_ns));
    let factors: Vec<u64> = speeds
        .iter()
        .map(|s| factor(s.wait_ns, wait).max(factor(s.page_ns, page)))
        .collect();
    // One server may be the fastest to read from, and another to write to.
    let best = factors.iter().min().copied().unwrap_or(UNIT).max(UNIT);
    factors
        .iter()
        .map(|factor| {
            let slower = (factor * UNIT / best).max(EVEN * UNIT);
            let part = u64::from(Share::FULL.0) * (EVEN * UNIT).pow(2) / slower.pow(2);
            Share((part as u32).max(Share::LEAST.0))
        })
        .collect()
}

/// The number 1 in the fixed-point numbers of [`factor`].
const UNIT: u64 = 256;

/// Returns the factor by which a server is slower than the fastest, up to 4096, in units of
/// 1/[`UNIT`].
fn factor(ns: Option<u64>, quickest: Option<u64>) -> u64 {
    match (ns, quickest) {
        (Some(ns), Some(quickest)) => {
            let factor = u128::from(ns) * u128::from(UNIT) / u128::from(quickest.max(1));
            factor.clamp(u128::from(UNIT), 4096 * u128::from(UNIT)) as u64
        }
        _ => UNIT,
    }
}

/// The average time that threads wait for a page of one server.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wait(Option<u64>);

impl Wait {
    /// Adds a wait of `ns` nanoseconds.
    pub fn add(&mut self, ns: u64) {
        self.0 = Some(self.0.map_or(ns, |old| old - old / 16 + ns / 16));
    }

    /// Returns the average in nanoseconds.
    pub fn ns(&self) -> Option<u64> {
        self.0
    }
}

/// The average time per page while pages are written to one server. Time in which no page
/// is under way does not count.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rate {
    /// Start of the time, with pages under way, that was not counted yet.
    since: Option<u64>,
    pages: u64,
    ns: u64,
    page_ns: Option<u64>,
}

impl Rate {
    /// Notes at time `now` whether pages are under way from here on.
    pub fn begin(&mut self, now: u64, under_way: bool) {
        if under_way && self.since.is_none() {
            self.since = Some(now);
        }
    }

    /// Notes that `pages` pages were answered, and whether others are still under way.
    pub fn add(&mut self, now: u64, pages: u64, under_way: bool) {
        if pages == 0 {
            return;
        }
        let since = self.since.take();
        self.begin(now, under_way);
        let Some(since) = since else { return };
        self.pages += pages;
        self.ns += now.saturating_sub(since);
        if self.pages >= MEASURED_PAGES || self.ns >= MEASURED_NS {
            let ns = (self.ns / self.pages).max(1);
            let old = self.page_ns.unwrap_or(ns);
            self.page_ns = Some(old - old / 4 + ns / 4);
            (self.pages, self.ns) = (0, 0);
        }
    }

    /// Returns the average in nanoseconds.
    pub fn page_ns(&self) -> Option<u64> {
        self.page_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn speed(wait_us: u64, page_us: u64) -> Speed {
        Speed {
            wait_ns: Some(wait_us * 1000),
            page_ns: Some(page_us * 1000),
        }
    }

    #[test]
    fn equals_and_those_nearly_so_share_by_room_alone() {
        let all = shares(&[speed(30, 3), speed(80, 4), Speed::default()]);
        assert_eq!(all, [Share::FULL; 3]);
        assert_eq!(shares(&[speed(9000, 900)]), [Share::FULL]);
    }

    #[test]
    fn a_server_behind_a_slow_network_gets_few_pages() {
        let all = shares(&[speed(40, 4), speed(500, 330)]);
        assert_eq!(all[0], Share::FULL);
        assert!(all[1].of(1000) <= 4 && all[1].is_poor_beside(all[0]));
        assert!(!all[0].is_poor_beside(all[1]) && !all[0].is_poor_beside(all[0]));
    }

    #[test]
    fn one_measure_is_enough_to_tell() {
        let waits = |ns| Speed {
            wait_ns: Some(ns),
            page_ns: None,
        };
        let all = shares(&[waits(40_000), waits(4_000_000)]);
        assert!(all[1].is_poor_beside(all[0]));
        // The two servers have no measure in common, so they cannot be compared.
        let other = Speed {
            wait_ns: None,
            page_ns: Some(9),
        };
        assert_eq!(shares(&[waits(4_000_000), other]), [Share::FULL; 2]);
    }

    #[test]
    fn what_is_on_its_way_is_less_where_it_takes_longer() {
        let queue = |page_ns| {
            Speed {
                wait_ns: None,
                page_ns,
            }
            .queue()
        };
        assert_eq!(queue(None), 4 << 20);
        assert_eq!(queue(Some(3_000)), 4 << 20);
        assert_eq!(queue(Some(330_000)), 151 * PAGE_SIZE);
        assert_eq!(queue(Some(u64::MAX)), 512 << 10);
    }

    #[test]
    fn time_counts_only_while_pages_are_under_way() {
        let mut rate = Rate::default();
        let mut now = 0;
        for _ in 0..200 {
            now += 1_000_000_000;
            rate.begin(now, true);
            now += 10_000;
            rate.add(now, 5, true);
            now += 30_000;
            rate.add(now, 5, false);
        }
        assert_eq!(rate.page_ns(), Some(4_000));
        assert_eq!(Rate::default().page_ns(), None);
    }

    #[test]
    fn an_average_follows_what_it_is_told() {
        let mut wait = Wait::default();
        assert_eq!(wait.ns(), None);
        wait.add(100_000);
        assert_eq!(wait.ns(), Some(100_000));
        (0..100).for_each(|_| wait.add(1_000_000));
        assert!(wait.ns().is_some_and(|ns| ns > 900_000));
    }

    fn any_speed() -> impl Strategy<Value = Speed> {
        let ns = || proptest::option::of(0u64..1 << 40);
        (ns(), ns()).prop_map(|(wait_ns, page_ns)| Speed { wait_ns, page_ns })
    }

    proptest! {
        #[test]
        fn the_order_of_servers_does_not_matter_and_queues_are_bounded(
            speeds in proptest::collection::vec(any_speed(), 1..8),
        ) {
            let mut backwards = speeds.clone();
            backwards.reverse();
            let mut shares_backwards = shares(&backwards);
            shares_backwards.reverse();
            prop_assert_eq!(shares(&speeds), shares_backwards);
            prop_assert!(speeds.iter().all(|s| QUEUE.contains(&s.queue())));
        }

        #[test]
        fn an_average_stays_within_what_was_measured(
            waits in proptest::collection::vec(1u64..1 << 40, 1..100),
        ) {
            let mut wait = Wait::default();
            waits.iter().for_each(|ns| wait.add(*ns));
            let (least, most) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
            let ns = wait.ns().unwrap();
            // Each step rounds down by up to 15 ns.
            prop_assert!(ns <= *most && ns + 256 >= *least, "{} {:?}", ns, waits);
        }

        #[test]
        fn one_server_has_the_full_share_and_each_has_some(
            speeds in proptest::collection::vec(any_speed(), 1..8),
        ) {
            let shares = shares(&speeds);
            prop_assert_eq!(shares.len(), speeds.len());
            prop_assert_eq!(shares.iter().max(), Some(&Share::FULL));
            prop_assert!(shares.iter().all(|s| *s >= Share::LEAST && s.of(1 << 40) > 0));
        }

        #[test]
        fn a_slower_server_never_gets_more(
            speeds in proptest::collection::vec(any_speed(), 2..8),
        ) {
            let shares = shares(&speeds);
            for (a, x) in speeds.iter().zip(&shares) {
                for (b, y) in speeds.iter().zip(&shares) {
                    let slower = |a: Option<u64>, b: Option<u64>| match (a, b) {
                        (Some(a), Some(b)) => a >= b,
                        (_, b) => b.is_none(),
                    };
                    if slower(a.wait_ns, b.wait_ns) && slower(a.page_ns, b.page_ns) {
                        prop_assert!(x <= y, "{:?} {:?}", a, b);
                    }
                }
            }
        }
    }
}
