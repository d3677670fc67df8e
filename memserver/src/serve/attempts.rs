//! Wrong secrets: how many one client may try.

use crate::client::Client;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Wrong secrets that a client may try in a row: as many as programs with an old secret
/// try that a user starts together.
const BURST: u32 = 10;

/// A client may try another wrong one after so long.
const REFILL: Duration = Duration::from_secs(1);

/// Clients that are remembered; those beyond share one allowance.
const MOST: usize = 4096;

/// What wrong secrets were tried.
#[derive(Debug, Default)]
pub(crate) struct Attempts(Mutex<HashMap<Client, Tried>>);

#[derive(Clone, Copy, Debug)]
struct Tried {
    /// When all that was tried is made up for.
    until: Instant,
    /// In all, since it last was.
    wrong: u64,
}

/// Whether a client was right, and whether it may be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Right,
    /// It has been wrong so often.
    Wrong(u64),
    /// It has been wrong so often that neither is told.
    Later(u64),
}

impl Attempts {
    /// Judges an attempt. A client that was wrong too often is not told whether it is
    /// right now, unless it is `known` for something else that nobody can guess.
    pub(crate) fn judge(&self, client: Client, right: bool, known: bool, now: Instant) -> Verdict {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MOST {
            all.retain(|_, tried| tried.until > now);
        }
        let key = if all.len() < MOST || all.contains_key(&client) {
            client
        } else {
            Client::at(None)
        };
        let tried = all.get(&key).filter(|tried| tried.until > now);
        let spent = tried.is_some_and(|tried| tried.until > now + REFILL * (BURST - 1));
        let wrong = tried.map_or(0, |tried| tried.wrong);
        match (right, spent) {
            (true, true) if !known => Verdict::Later(wrong),
            (true, _) => Verdict::Right,
            (false, _) => {
                let (until, wrong) = (tried.map_or(now, |t| t.until), wrong + 1);
                // More of them do not keep it out for longer.
                let until = if spent { until } else { until + REFILL };
                all.insert(key, Tried { until, wrong });
                if spent {
                    Verdict::Later(wrong)
                } else {
                    Verdict::Wrong(wrong)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_tries_too_many_is_not_told_whether_it_is_right() {
        let (attempts, start) = (Attempts::default(), Instant::now());
        let client = |n: u8| Client::at(Some(([10, 0, 0, n], 1).into()));
        let judge = |n, right, at| attempts.judge(client(n), right, false, at);
        for n in 1..=10 {
            assert_eq!(judge(1, false, start), Verdict::Wrong(n));
        }
        for n in 11..=1000 {
            assert_eq!(judge(1, false, start), Verdict::Later(n));
        }
        assert_eq!(judge(1, true, start), Verdict::Later(1000));
        // Neither others are held up nor those who are in.
        assert_eq!(judge(2, true, start), Verdict::Right);
        let known = attempts.judge(client(1), true, true, start);
        assert_eq!(known, Verdict::Right);
        // One a second, however many were tried meanwhile.
        let later = start + REFILL;
        assert_eq!(judge(1, true, later), Verdict::Right);
        assert_eq!(judge(1, false, later), Verdict::Wrong(1001));
        assert_eq!(judge(1, true, later), Verdict::Later(1001));
        let much_later = start + REFILL * 20;
        assert_eq!(judge(1, false, much_later), Verdict::Wrong(1));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (attempts, start) = (Attempts::default(), Instant::now());
        for n in 0..2 * MOST as u32 {
            let client = Client::at(Some((n.to_be_bytes(), 1).into()));
            attempts.judge(client, false, false, start);
        }
        assert!(attempts.0.lock().unwrap().len() <= MOST + 1);
    }
}
