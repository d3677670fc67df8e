//! Limits how often a warning that clients can cause is printed, so that none fills a log.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The least time between two warnings.
const SILENCE: Duration = Duration::from_secs(5);

/// When the last warning was printed.
#[derive(Debug, Default)]
pub struct Complaints(Mutex<Option<Instant>>);

impl Complaints {
    /// Whether a warning may be printed now. If so, the next may not for a while.
    pub fn are_due(&self, now: Instant) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|at| now.saturating_duration_since(at) < SILENCE) {
            return false;
        }
        *last = Some(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_complaint_waits() {
        let (complaints, start) = (Complaints::default(), Instant::now());
        assert!(complaints.are_due(start));
        assert!(!complaints.are_due(start + SILENCE / 2));
        assert!(complaints.are_due(start + SILENCE));
        assert!(!complaints.are_due(start + SILENCE));
    }
}
