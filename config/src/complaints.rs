//! Complaints that strangers can cause, which must not fill a log.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Complaints come at most this often.
const SILENCE: Duration = Duration::from_secs(5);

/// When the last complaint was made.
#[derive(Debug, Default)]
pub struct Complaints(Mutex<Option<Instant>>);

impl Complaints {
    /// Whether one may be made now; then the next is not for a while.
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
