//! The clock by which servers are waited for.
//!
//! It stands still while this process does not run: stopped from its terminal, in a virtual
//! machine that was paused, or without a processor for long. A server cannot have answered
//! somebody who did not ask, and may have been stopped itself.

/// The caller looks at least so often while anything is due.
const TICK_NS: u64 = 1_000_000_000;
/// More than this between two looks is time in which it did not run.
const MOST_NS: u64 = 2 * TICK_NS;

/// Time that passes while this process runs.
#[derive(Debug, Default)]
pub(super) struct Clock {
    /// When it was looked last, by the caller's clock.
    looked_ns: u64,
    /// By how much this clock is behind the caller's.
    absent_ns: u64,
}

impl Clock {
    /// The time of this clock, when it is `now_ns` by the caller's.
    pub(super) fn look(&mut self, now_ns: u64) -> u64 {
        let passed = now_ns.saturating_sub(self.looked_ns);
        self.absent_ns += passed.saturating_sub(MOST_NS);
        self.looked_ns = self.looked_ns.max(now_ns);
        now_ns.saturating_sub(self.absent_ns)
    }

    /// The time at the last look.
    pub(super) fn now(&self) -> u64 {
        self.looked_ns.saturating_sub(self.absent_ns)
    }

    /// When to look again, by the caller's clock, where something is due at `at` by this one.
    pub(super) fn wake_ns(&self, at: u64) -> u64 {
        let due = at.saturating_add(self.absent_ns);
        due.min(self.looked_ns + TICK_NS)
    }
}
