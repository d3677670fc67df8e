//! Control requests that a server failed to carry out: they are made again before the
//! caller hears of it.
//!
//! READ and WRITE are not repeated here: the caller can ask another server, or write to
//! one. A DISCARD is not repeated at all: it could undo a later WRITE, and without it
//! nothing is wrong but that the server keeps a page that nobody reads.

use super::request::Request;
use alloc::vec::Vec;
use tmem_wire::{Op, Status};

/// Pauses before the further attempts, in milliseconds.
const PAUSES_MS: [u64; 5] = [0, 10, 50, 200, 800];

/// Requests that wait for their next attempt.
#[derive(Debug, Default)]
pub(super) struct Retries {
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    due_ns: u64,
    request: Request,
}

impl Retries {
    /// The next attempt of a request that was answered with `status`, where another may
    /// succeed.
    pub(super) fn of(request: &Request, status: Status) -> Option<Request> {
        let repeats = matches!(request.op, Op::Grant | Op::Share | Op::Release);
        let is_left = usize::from(request.tries) < PAUSES_MS.len();
        (status == Status::Internal && repeats && is_left).then(|| Request {
            tries: request.tries + 1,
            done: false,
            payload: request.payload.copied(),
            ..*request
        })
    }

    /// Keeps what [`Retries::of`] gave until it is due.
    pub(super) fn add(&mut self, request: Request, now_ns: u64) {
        let earlier = usize::from(request.tries).saturating_sub(1);
        let pause_ms = PAUSES_MS.get(earlier).copied().unwrap_or_default();
        let due_ns = now_ns.saturating_add(pause_ms * 1_000_000);
        self.waiting.push(Waiting { due_ns, request });
    }

    /// Takes what is due.
    pub(super) fn take_due(&mut self, now_ns: u64) -> Vec<Request> {
        let is_due = |w: &mut Waiting| w.due_ns <= now_ns;
        let due = self.waiting.extract_if(.., is_due);
        due.map(|w| w.request).collect()
    }

    /// When the next one is due.
    pub(super) fn due(&self) -> Option<u64> {
        self.waiting.iter().map(|w| w.due_ns).min()
    }

    /// Takes all of them.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Request> {
        core::mem::take(&mut self.waiting)
            .into_iter()
            .map(|w| w.request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::request::Payload;

    fn request(op: Op) -> Request {
        Request {
            payload: Payload::Bytes(alloc::vec![1, 0, 0, 0].into()),
            ..Request::new(op)
        }
    }

    #[test]
    fn only_what_can_be_repeated_is_and_not_for_ever() {
        assert!(Retries::of(&request(Op::Grant), Status::Full).is_none());
        assert!(Retries::of(&request(Op::Discard), Status::Internal).is_none());
        assert!(Retries::of(&request(Op::Read), Status::Internal).is_none());
        let (mut retries, mut now) = (Retries::default(), 5);
        let mut next = Retries::of(&request(Op::Release), Status::Internal);
        let mut attempts = 0;
        while let Some(request) = next {
            assert_eq!(request.payload.len(), 4);
            retries.add(request, now);
            now = retries.due().expect("one waits");
            let due = retries.take_due(now);
            next = Retries::of(&due[0], Status::Internal);
            attempts += 1;
        }
        assert_eq!(attempts, PAUSES_MS.len());
        assert_eq!(now - 5, PAUSES_MS.iter().sum::<u64>() * 1_000_000);
        assert_eq!(retries.due(), None);
    }
}
