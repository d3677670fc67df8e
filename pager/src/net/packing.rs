//! Whether pages travel packed, learnt by trying: it makes less of them for the network to
//! carry and more for both sides to do, and is the quicker way where the network is
//! the slowest of the three.

use crate::When;

/// Pages that are under way at least while the rate is measured: fewer wait for the
/// distance, not for the network's bandwidth.
const BUSY: usize = 16;

/// Pages of one measurement.
const MEASURED: u64 = 1024;

/// Of so many measurements one tries the other way.
const ROUND: u32 = 32;

/// A stretch of so many pages shows what the network can carry: the quickest of those of
/// the last measurements does, since others may be slow for what the program or the
/// server does meanwhile.
const STRETCH: u64 = 256;

/// Where a page can come within this many nanoseconds, packing it would take longer.
const QUICK_NS: u64 = 10_000;

/// Learns how the pages of one server travel best.
#[derive(Debug)]
pub(super) struct Learner {
    packing: When,
    /// Whether the server can.
    able: bool,
    packed: bool,
    /// Nanoseconds that a page takes plain and packed; 0 is not known.
    takes: [u64; 2],
    measurements: u32,
    /// Pages to come that were asked for in the other way.
    unsettled: u64,
    measured: Sum,
    stretch: Sum,
    /// Nanoseconds for a plain page in the quickest stretches of this round of
    /// measurements and of the one before.
    quickest: [u64; 2],
    last: Look,
    /// Nanoseconds that were waited for servers since the last look.
    waited_ns: u64,
}

/// Pages that came, and the time that they took.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    pages: u64,
    ns: u64,
}

impl Sum {
    /// Nanoseconds for a page, once there are so many.
    fn add(&mut self, pages: u64, ns: u64, enough: u64) -> Option<u64> {
        self.pages += pages;
        self.ns += ns;
        if self.pages < enough {
            return None;
        }
        let sum = core::mem::take(self);
        Some((sum.ns / sum.pages).max(1))
    }
}

/// What was seen at one time.
#[derive(Clone, Copy, Debug, Default)]
struct Look {
    now: u64,
    busy: bool,
}

impl Learner {
    pub(super) fn new(packing: When) -> Learner {
        Learner {
            packing,
            able: false,
            packed: false,
            takes: [0; 2],
            measurements: 0,
            unsettled: 0,
            measured: Sum::default(),
            stretch: Sum::default(),
            quickest: [u64::MAX; 2],
            last: Look::default(),
            waited_ns: 0,
        }
    }

    /// A connection says whether the server can unpack.
    pub(super) fn greeted(&mut self, able: bool) {
        self.able = able;
        self.packed = able && (self.packed || self.packing == When::Always);
    }

    /// Whether pages that are asked for or sent now are to be packed.
    pub(super) fn is_packed(&self) -> bool {
        self.packed
    }

    /// So long there was nothing else to do than to wait for servers.
    pub(super) fn waited(&mut self, ns: u64) {
        self.waited_ns += ns;
    }

    /// So many pages have come or were taken since the last look, and so many are
    /// under way still.
    pub(super) fn look(&mut self, now: u64, came: u64, under_way: usize) {
        if !self.able || self.packing != When::Auto {
            return;
        }
        let since = now.saturating_sub(self.last.now);
        let waited = core::mem::take(&mut self.waited_ns);
        let busy = core::mem::replace(&mut self.last.busy, under_way >= BUSY);
        self.last.now = now;
        if self.unsettled > 0 {
            self.unsettled = self.unsettled.saturating_sub(came);
            return;
        }
        if !busy {
            self.stretch = Sum::default();
            return;
        }
        // What was there long before it was looked says nothing of the network.
        if let Some(ns) = self.stretch.add(came, waited, STRETCH)
            && !self.packed
        {
            self.quickest[0] = self.quickest[0].min(ns);
        }
        if let Some(ns) = self.measured.add(came, since, MEASURED) {
            self.measured(ns);
            self.unsettled = under_way as u64;
            self.stretch = Sum::default();
        }
    }

    fn measured(&mut self, ns: u64) {
        let takes = &mut self.takes[usize::from(self.packed)];
        // Whoever packs or unpacks may have been kept from it; a slower network is
        // believed when it stays slow.
        *takes = if *takes == 0 { ns } else { (*takes + ns) / 2 };
        self.measurements = (self.measurements + 1) % ROUND;
        let [plain, packed] = self.takes;
        let quicker = packed > 0 && packed + packed / 8 < plain;
        let trial = packed == 0 || plain == 0 || self.measurements == 0;
        let quick = self.quickest[0].min(self.quickest[1]) < QUICK_NS;
        if self.measurements == 0 {
            self.quickest = [u64::MAX, self.quickest[0]];
        }
        self.packed = quicker != trial && !quick;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A network that takes `wire` nanoseconds for a page and a third for a packed one,
    /// and sides that take `work` to pack one; the share of pages that travelled packed.
    fn run(learner: &mut Learner, wire: u64, work: u64, pages: u64) -> f64 {
        let (mut now, mut packed) = (learner.last.now, 0u64);
        for _ in 0..pages / 8 {
            let takes = if learner.is_packed() {
                packed += 8;
                work.max(wire / 3)
            } else {
                wire
            };
            now += 8 * takes;
            learner.waited(8 * takes);
            learner.look(now, 8, 64);
        }
        packed as f64 / pages as f64
    }

    fn learner() -> Learner {
        let mut learner = Learner::new(When::Auto);
        learner.greeted(true);
        learner
    }

    #[test]
    fn a_slow_network_has_its_pages_packed() {
        assert!(run(&mut learner(), 34_000, 9_000, 1 << 18) > 0.9);
    }

    #[test]
    fn a_quick_one_is_not_tried() {
        assert_eq!(run(&mut learner(), 1_000, 9_000, 1 << 18), 0.0);
    }

    #[test]
    fn one_that_is_no_slower_than_packing_is_left_alone_but_for_trials() {
        let share = run(&mut learner(), 12_000, 13_000, 1 << 18);
        assert!(share > 0.0 && share < 0.05, "{share}");
    }

    #[test]
    fn it_is_found_when_the_network_changes() {
        let mut learner = learner();
        run(&mut learner, 1_000, 9_000, 1 << 18);
        assert!(run(&mut learner, 40_000, 9_000, 1 << 20) > 0.9);
        assert!(run(&mut learner, 1_000, 9_000, 1 << 20) < 0.2);
    }

    #[test]
    fn a_quick_one_on_which_little_comes_at_a_time_is_not_tried() {
        let mut learner = learner();
        for _ in 0..32 {
            run(&mut learner, 2_000, 9_000, 512);
            assert_eq!(run(&mut learner, 30_000, 9_000, 8192), 0.0);
        }
    }

    #[test]
    fn who_is_seldom_there_to_wait_does_not_take_a_quick_one_for_a_slow_one() {
        let mut learner = learner();
        for i in 0..1 << 16 {
            learner.waited(8_000);
            learner.look(i * 400_000, 8, 64);
        }
        assert_eq!(learner.takes[1], 0);
    }

    #[test]
    fn what_waits_for_single_pages_is_not_measured() {
        let mut learner = learner();
        for i in 0..1 << 16 {
            learner.look(i * 100_000, 1, 1);
        }
        assert!(!learner.is_packed() && learner.takes == [0, 0]);
    }

    #[test]
    fn who_wants_it_always_or_never_has_it_so_where_the_server_can() {
        for (packing, able, is) in [
            (When::Always, true, true),
            (When::Always, false, false),
            (When::Never, true, false),
        ] {
            let mut learner = Learner::new(packing);
            learner.greeted(able);
            let share = run(&mut learner, 34_000, 9_000, 1 << 16);
            assert_eq!(share, if is { 1.0 } else { 0.0 });
        }
    }
}
