//! Does what the user asks while the program runs, and measures what the user sees.
//!
//! Requests are words in shared memory ([`crate::live`]), which the event loop looks at with
//! its slow things. What takes longer is a job that goes on whenever no thread waits for a
//! page.

mod recall;
pub(crate) mod waiting;

use crate::engine::budget_share::{BudgetShare, SQUEEZED};
use crate::engine::memory::Memory;
use crate::engine::reclaim::Reclaim;
use crate::engine::settings::Settings;
use crate::live::{Live, Request};
use core::sync::atomic::Ordering::Relaxed;
use recall::Recall;
use tmem_wire::PAGE_SIZE;
use waiting::Waiting;

/// An eviction on request ends when no page has left for so long: the rest cannot leave.
const STUCK_NS: u64 = 1_000_000_000;

/// Answers what is asked before anything is paged; whether paging is to begin for it.
pub(crate) fn answer_early(share: &BudgetShare, settings: &Settings) -> bool {
    let Some(live) = share.live(settings) else {
        return false;
    };
    match live.asked() {
        Some((_, Request::Evict)) => true,
        Some((number, Request::Recall)) => {
            // All is there.
            live.set_done(number);
            false
        }
        None => false,
    }
}

/// What was asked and is under way.
enum Job {
    Evict(Evict),
    Recall(Recall),
}

struct Evict {
    /// Pages that had left when it was seen last that some do, and when that was.
    evicted: u64,
    seen_ns: u64,
}

/// The request that is carried out, and how long threads wait.
#[derive(Default)]
pub(crate) struct Control {
    job: Option<(u64, Job)>,
    pub(crate) waiting: Waiting,
}

impl Control {
    /// Looks whether something is asked. Not often.
    pub(crate) fn look(&mut self, m: &mut Memory, settings: &Settings, now: u64) {
        let Some(live) = m.residency.share_mut().live(settings) else {
            return;
        };
        let under_way = self.job.as_ref().map(|(number, _)| *number);
        if let Some((number, request)) = live.asked().filter(|a| Some(a.0) != under_way) {
            m.residency.share_mut().squeeze(request == Request::Evict);
            let job = match request {
                Request::Evict => Job::Evict(Evict {
                    evicted: m.report.stats.evicted_pages.load(Relaxed),
                    seen_ns: now,
                }),
                Request::Recall => Job::Recall(Recall::new(now)),
            };
            self.job = Some((number, job));
        }
        if let Some((_, Job::Evict(evict))) = &mut self.job
            && evict.has_ended(m, now)
        {
            m.residency.share_mut().squeeze(false);
            self.end(Some(live));
        }
    }

    /// Goes on with what is under way, while no thread waits for a page.
    pub(crate) fn go_on(&mut self, m: &mut Memory, reclaim: &mut Reclaim, settings: &Settings) {
        let Some((_, Job::Recall(recall))) = &mut self.job else {
            return;
        };
        if recall.go_on(m, reclaim) {
            self.end(m.residency.share_mut().live(settings));
        }
    }

    /// In a test: brings pages back from now on.
    #[cfg(test)]
    pub(crate) fn recall(&mut self, now: u64) {
        self.job = Some((0, Job::Recall(Recall::new(now))));
    }

    /// Whether something can go on at once, which nothing will announce.
    pub(crate) fn has_work(&self, m: &Memory) -> bool {
        matches!(&self.job, Some((_, Job::Recall(recall))) if recall.has_work(m))
    }

    fn end(&mut self, live: Option<&Live>) {
        if let (Some((number, _)), Some(live)) = (self.job.take(), live) {
            live.set_done(number);
        }
    }
}

impl Evict {
    /// Whether all has left that can.
    fn has_ended(&mut self, m: &Memory, now: u64) -> bool {
        let evicted = m.report.stats.evicted_pages.load(Relaxed);
        if evicted != self.evicted {
            *self = Evict {
                evicted,
                seen_ns: now,
            };
        }
        let few = m.resident() <= SQUEEZED as usize / PAGE_SIZE;
        few && m.pool.pending_writeback() == 0 || now.saturating_sub(self.seen_ns) > STUCK_NS
    }
}
