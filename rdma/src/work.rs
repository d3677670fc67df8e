//! Work that the device was asked to do and has not finished.

use crate::counts::Counts;
use crate::keys::Remote;
use crate::staging::{Place, SENDS, Staging};
use std::collections::VecDeque;
use tmem_verbs::{Error, Op, Work};
use tmem_wire::Header;

/// The most work that is posted and not finished.
pub(crate) const DEPTH: usize = 128;

/// Of works posted in a row, one in this many is signaled.
const SIGNAL: usize = 16;

/// The flag of sends in the numbers of works.
const SEND: u64 = 1 << 63;
/// The flag of receives.
const RECEIVE: u64 = 1 << 62;

/// Transfers of pages, in the order in which the device finishes them: when one is
/// finished, all before it are.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    queue: VecDeque<Job>,
    /// The number of the first in the queue. The others are numbered in order.
    first: u64,
    batch: Vec<Work>,
    /// Buffers of messages that the device has.
    sending: [bool; SENDS],
    counts: Counts,
}

/// One READ or WRITE of pages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job {
    pub(crate) header: Header,
    pub(crate) place: Place,
    pub(crate) write: bool,
}

/// What the device has finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// All pages up to this one.
    Pages(u64),
    /// A message was sent.
    Sent(usize),
    /// A message was received.
    Received(usize),
}

impl Done {
    /// The meaning of a work's number.
    pub(crate) fn of(id: u64) -> Done {
        if id & SEND != 0 {
            Done::Sent((id & !SEND) as usize)
        } else if id & RECEIVE != 0 {
            Done::Received((id & !RECEIVE) as usize)
        } else {
            Done::Pages(id)
        }
    }

    /// The number of a receive into buffer `slot`.
    pub(crate) fn receive(slot: usize) -> u64 {
        RECEIVE | slot as u64
    }
}

impl Jobs {
    /// What was finished so far.
    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether no more can be posted for now.
    pub(crate) fn is_full(&self) -> bool {
        self.queue.len() >= DEPTH
    }

    /// Whether the device has finished everything.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty() && !self.sending.contains(&true)
    }

    /// Whether no pages are on their way.
    pub(crate) fn has_no_pages(&self) -> bool {
        self.queue.is_empty()
    }

    /// Prepares the moving of pages.
    pub(crate) fn pages(
        &mut self,
        job: Job,
        remote: Remote,
        staging: &Staging,
    ) -> Result<(), Error> {
        // A page must be read before it is overwritten.
        let fence = job.write && self.queue.iter().any(|j| overlaps(j, &job));
        let op = if job.write {
            Op::Write {
                remote: remote.address,
                key: remote.key,
            }
        } else {
            Op::Read {
                remote: remote.address,
                key: remote.key,
            }
        };
        self.batch.push(Work {
            id: self.first + self.queue.len() as u64,
            op,
            pieces: staging.piece(job.place)?.into(),
            signaled: self.batch.len() % SIGNAL == SIGNAL - 1,
            fence,
        });
        self.queue.push_back(job);
        let counts = if job.write {
            &mut self.counts.written
        } else {
            &mut self.counts.read
        };
        counts.0 += u64::from(job.header.count);
        counts.1 += 1;
        self.counts.most = self.counts.most.max(self.queue.len() as u64);
        Ok(())
    }

    /// A free buffer for the next message.
    pub(crate) fn free_send(&self) -> Option<usize> {
        self.sending.iter().position(|busy| !busy)
    }

    /// Prepares the sending of `len` bytes of a buffer.
    pub(crate) fn send(&mut self, slot: usize, len: usize, staging: &Staging) -> Result<(), Error> {
        let place = Place {
            len,
            ..Staging::to_server(slot)
        };
        self.batch.push(Work {
            id: SEND | slot as u64,
            op: Op::Send,
            pieces: staging.piece(place)?.into(),
            signaled: true,
            fence: false,
        });
        self.sending[slot] = true;
        Ok(())
    }

    /// Takes the works that are to be posted together.
    pub(crate) fn batch(&mut self) -> Vec<Work> {
        signal_last_pages(&mut self.batch);
        let signaled = self.batch.iter().filter(|w| is_pages(w) && w.signaled);
        self.counts.signals += signaled.count() as u64;
        std::mem::take(&mut self.batch)
    }

    /// Takes the transfers that are finished, up to `id`.
    pub(crate) fn done(&mut self, id: u64) -> impl Iterator<Item = Job> {
        self.counts.completions += 1;
        let n = (id + 1).saturating_sub(self.first) as usize;
        let n = n.min(self.queue.len());
        self.first += n as u64;
        self.queue.drain(..n)
    }

    /// A message was sent.
    pub(crate) fn sent(&mut self, slot: usize) {
        if let Some(busy) = self.sending.get_mut(slot) {
            *busy = false;
        }
    }
}

/// Signals the last transfer of pages of a batch: that a message after it was sent does not
/// say that it is finished.
fn signal_last_pages(batch: &mut [Work]) {
    if let Some(last) = batch.iter_mut().rfind(|work| is_pages(work)) {
        last.signaled = true;
    }
}

fn is_pages(work: &Work) -> bool {
    matches!(Done::of(work.id), Done::Pages(_))
}

fn overlaps(a: &Job, b: &Job) -> bool {
    let (a, b) = (&a.header, &b.header);
    let end = |h: &Header| u64::from(h.page) + u64::from(h.count);
    a.slab == b.slab && u64::from(a.page) < end(b) && u64::from(b.page) < end(a)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_it_names() {
        assert_eq!(Done::of(7), Done::Pages(7));
        assert_eq!(Done::of(SEND | 3), Done::Sent(3));
        assert_eq!(Done::of(Done::receive(5)), Done::Received(5));
    }

    #[test]
    fn the_last_pages_say_when_they_are_done_even_before_something_else() {
        let work = |id| Work {
            id,
            op: Op::Send,
            pieces: tmem_verbs::Pieces::new(&[]).unwrap(),
            signaled: false,
            fence: false,
        };
        let mut batch = [work(4), work(5), work(SEND)];
        signal_last_pages(&mut batch);
        assert_eq!(batch.map(|w| w.signaled), [false, true, false]);
        signal_last_pages(&mut []);
    }

    #[test]
    fn requests_overlap_where_they_share_a_page() {
        let job = |slab, page, count| Job {
            header: Header {
                slab,
                page,
                count,
                ..Header::request(tmem_wire::Op::Read, 0)
            },
            place: Place { at: 0, len: 0 },
            write: false,
        };
        assert!(overlaps(&job(1, 0, 4), &job(1, 3, 1)));
        assert!(!overlaps(&job(1, 0, 4), &job(1, 4, 1)));
        assert!(!overlaps(&job(1, 0, 4), &job(2, 0, 4)));
        assert!(overlaps(&job(1, u32::MAX, 1), &job(1, u32::MAX - 1, 2)));
    }
}
