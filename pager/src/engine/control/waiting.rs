//! How long threads of the program wait for pages, as the kernel's pressure stall information
//! has it (`Documentation/accounting/psi.rst`): the time in which at least one of them waited
//! (*some*), and the time in which nothing of the program ran meanwhile (*full*).
//!
//! *Some* is exact but for the time between a fault and its being read. *Full* is what is left
//! of it when the CPU time of the program is taken off: exact for a program of one thread, and
//! otherwise the most that it can have been.

use crate::engine::memory::Memory;
use crate::engine::memory::report::{WARN, program};
use crate::engine::settings::Settings;
use crate::sys;
use alloc::format;
use core::sync::atomic::Ordering::Relaxed;
use tmem_policy::working_set::WorkingSet;
use tmem_wire::PAGE_SIZE;

/// The working set is estimated this often, and the user told at most as often.
const WINDOW_NS: u64 = 10_000_000_000;

/// Measures it.
#[derive(Default)]
pub(crate) struct Waiting {
    /// Since when some thread waits, if one does.
    since_ns: Option<u64>,
    /// How long some did in all, up to then.
    some_ns: u64,
    /// When it was looked last, and what the times were by then.
    looked: Looked,
    /// The same at the start of the window.
    window: Looked,
    was_told: bool,
}

#[derive(Clone, Copy, Default)]
struct Looked {
    at_ns: u64,
    some_ns: u64,
    busy_ns: u64,
}

impl Waiting {
    /// Takes note whether threads wait now. Called at the start and at the end of each turn:
    /// the clock is read only where one begins or ends to wait.
    pub(crate) fn note(&mut self, m: &mut Memory) {
        if m.backing.requests.has_no_reads() {
            m.faults.part_all();
        }
        let waits = m.faults.is_awaited() || m.backing.requests.is_awaited();
        match (self.since_ns, waits) {
            (None, true) => {
                let first = m.faults.iter().map(|fault| fault.read_ns).next();
                self.since_ns = Some(first.unwrap_or_else(sys::now_ns));
            }
            (Some(since), false) => {
                self.some_ns += sys::now_ns().saturating_sub(since);
                self.since_ns = None;
            }
            _ => {}
        }
    }

    /// Takes it into the figures, and tells the user where it is most of the time. Not often.
    pub(crate) fn look(
        &mut self,
        m: &mut Memory,
        refaults: &mut WorkingSet,
        settings: &Settings,
        now: u64,
    ) {
        let under_way = self.since_ns.map_or(0, |since| now.saturating_sub(since));
        let looked = Looked {
            at_ns: now,
            some_ns: self.some_ns + under_way,
            busy_ns: sys::program_cpu_ns(),
        };
        let before = core::mem::replace(&mut self.looked, looked);
        if before.at_ns == 0 {
            self.window = looked;
            return;
        }
        let some = looked.some_ns.saturating_sub(before.some_ns);
        let elapsed = now.saturating_sub(before.at_ns);
        let busy = looked.busy_ns.saturating_sub(before.busy_ns);
        let stats = m.report.stats;
        stats.waited_some_ns.fetch_add(some, Relaxed);
        stats
            .waited_full_ns
            .fetch_add(full(some, elapsed, busy), Relaxed);
        let window = now.saturating_sub(self.window.at_ns);
        if window < WINDOW_NS {
            return;
        }
        let waited = looked.some_ns.saturating_sub(self.window.some_ns);
        self.window = looked;
        let budget = m.residency.marks().evict as u64;
        let set = refaults.take(budget, m.residency.remote());
        let bytes = set.map(|pages| pages * PAGE_SIZE as u64);
        if let Some(live) = m.residency.share_mut().live(settings) {
            live.show_working_set(bytes.unwrap_or(0));
        }
        if let Some(bytes) = bytes
            && waited > window / 2
            && !settings.evict_all
            && !core::mem::replace(&mut self.was_told, true)
        {
            tell(m, waited * 100 / window, bytes);
        }
    }
}

/// The time of `some` in which nothing of the program ran, of `elapsed` in which it ran for
/// `busy` on all CPUs together.
fn full(some: u64, elapsed: u64, busy: u64) -> u64 {
    some.min(elapsed.saturating_sub(busy))
}

/// Says how much the program waits, and what would help.
fn tell(m: &Memory, percent: u64, working_set: u64) {
    let mib = |bytes: u64| bytes >> 20;
    let budget = (m.residency.marks().evict * PAGE_SIZE) as u64;
    // With a sixteenth to spare, and nothing odd.
    let enough = mib(working_set + working_set / 16).next_multiple_of(64);
    m.report.say(
        WARN,
        &format!(
            "{} has waited for pages for {percent} % of the last 10 s: it may have {} MiB and \
             uses some {} MiB again and again; --local {enough}M would end most of it (`tmem set \
             {} --local {enough}M` while it runs)",
            program(),
            mib(budget),
            mib(working_set),
            m.report.stats.pid.load(Relaxed),
        ),
    );
}

#[cfg(test)]
mod tests {
    use super::full;

    #[test]
    fn one_thread_that_waits_stops_the_program_and_one_of_two_need_not() {
        assert_eq!(full(600, 1000, 400), 600);
        assert_eq!(full(300, 1000, 400), 300);
        assert_eq!(full(1000, 1000, 1000), 0);
        assert_eq!(full(500, 1000, 2000), 0);
    }
}
