//! Runs a trace through a policy.

use super::trace::Trace;
use super::{Outcome, Policy};

/// What faults cost, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Costs {
    /// A page on standby.
    pub standby: f64,
    /// A page that is on a server.
    pub miss: f64,
}

/// Counts of faults. First uses of pages, which are the same for all policies, do not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Uses of pages on a server.
    pub misses: u64,
    /// Uses of pages on standby.
    pub standby: u64,
}

impl Counts {
    /// The cost of all faults, in microseconds.
    pub fn cost(&self, costs: &Costs) -> f64 {
        self.misses as f64 * costs.miss + self.standby as f64 * costs.standby
    }
}

/// Uses the pages of a trace in order.
pub fn run(trace: &Trace, policy: &mut dyn Policy) -> Counts {
    let mut counts = Counts::default();
    let mut seen = vec![false; trace.limit as usize];
    for &page in &trace.pages {
        let outcome = policy.access(page);
        if outcome == Outcome::Hit || !std::mem::replace(&mut seen[page as usize], true) {
            continue;
        }
        match outcome {
            Outcome::Standby => counts.standby += 1,
            _ => counts.misses += 1,
        }
    }
    counts
}
