//! A paged program, as it shows itself.

use std::fs;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use tmem_pager::live::{Live, Request, Shown};
use tmem_pager::own::Own;
use tmem_pager::stats::{Shared, Slot, Totals};

use super::area::Area;

/// Where a program shows itself.
pub(crate) enum View {
    /// One of those under a `tmem run`, by its place among the living.
    Shared(Rc<Area<Shared>>, usize),
    /// One that was started with the library alone.
    Own(Area<Own>),
}

/// A paged program.
pub(crate) struct Program {
    /// Its number here.
    pub(crate) pid: u32,
    /// The processes that map the same memory: those under the same `tmem run`, and that.
    pub(crate) group: Vec<u32>,
    /// What it is called.
    pub(crate) command: String,
    /// The number by which it knows itself.
    inner: u32,
    view: View,
}

/// The figures of a program at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) at: Instant,
    pub(crate) shown: Shown,
    pub(crate) faults: u64,
    /// Pages that came from servers, and pages that went there.
    pub(crate) fetched: u64,
    pub(crate) written: u64,
    pub(crate) some_ns: u64,
    pub(crate) full_ns: u64,
}

/// What happened between two samples, by the second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Rates {
    pub(crate) faults: f64,
    /// Bytes from servers and to them.
    pub(crate) bytes: f64,
    /// Shares of the time, 0 to 1, in which a thread waited, and in which nothing ran.
    pub(crate) some: f64,
    pub(crate) full: f64,
}

impl View {
    /// What is shown there, while the program lives.
    pub(crate) fn shown(&self) -> Option<Shown> {
        self.live().map(Live::shown).filter(|shown| shown.pid != 0)
    }

    fn live(&self) -> Option<&Live> {
        match self {
            View::Shared(area, place) => area.get().family.living().nth(*place),
            View::Own(area) => Some(&area.get().live),
        }
    }
}

impl Program {
    pub(crate) fn new(pid: u32, group: Vec<u32>, view: View) -> Program {
        Program {
            pid,
            group,
            command: command(pid),
            inner: view.shown().map_or(0, |shown| shown.pid),
            view,
        }
    }

    /// Its words, as long as it lives: who takes its place later is another.
    fn live(&self) -> Option<&Live> {
        let is_it = |live: &&Live| live.shown().pid == self.inner;
        match &self.view {
            // Places move up as others end.
            View::Shared(area, _) => area.get().family.living().find(is_it),
            View::Own(_) => self.view.live().filter(is_it),
        }
    }

    fn slot(&self, shown: &Shown) -> Option<&Slot> {
        match &self.view {
            View::Shared(area, _) => area.get().slots.get(shown.slot as usize),
            View::Own(area) => Some(&area.get().slot),
        }
    }

    /// Whether it has not ended.
    pub(crate) fn is_there(&self) -> bool {
        fs::exists(format!("/proc/{}/maps", self.pid)).unwrap_or(false) && self.live().is_some()
    }

    /// Its figures now; none once it has ended.
    pub(crate) fn sample(&self) -> Option<Sample> {
        let shown = self.live()?.shown();
        let slot = self.slot(&shown)?;
        Some(Sample {
            at: Instant::now(),
            shown,
            faults: slot.faults.load(Relaxed),
            fetched: slot.fetched_pages.load(Relaxed),
            written: slot.written_pages.load(Relaxed),
            some_ns: slot.waited_some_ns.load(Relaxed),
            full_ns: slot.waited_full_ns.load(Relaxed),
        })
    }

    /// All its statistics.
    pub(crate) fn totals(&self) -> Totals {
        let mut totals = Totals::new();
        let shown = self.live().map(Live::shown).unwrap_or_default();
        if let Some(slot) = self.slot(&shown) {
            totals.add(slot);
        }
        totals
    }

    /// What all processes under its `tmem run` may have together, in bytes, if it has no budget
    /// of its own.
    pub(crate) fn shared_budget(&self) -> Option<u64> {
        match &self.view {
            View::Shared(area, _) => area.get().family.budget(),
            View::Own(_) => None,
        }
    }

    /// What it may have, in bytes: together with others where they share a budget.
    pub(crate) fn allowed(&self) -> u64 {
        let own = || self.live().and_then(Live::wanted);
        let first = || self.totals().local_budget_bytes;
        self.shared_budget().or_else(own).unwrap_or_else(first)
    }

    /// Gives it another budget, in bytes: also to those that it shares its own with.
    pub(crate) fn allow(&self, bytes: u64) {
        match &self.view {
            View::Shared(area, _) if area.get().family.budget().is_some() => {
                area.get().family.limit(bytes);
            }
            _ => {
                if let Some(live) = self.live() {
                    live.want(bytes);
                }
            }
        }
    }

    /// Asks it for something; the number of that.
    pub(crate) fn ask(&self, request: Request) -> Option<u64> {
        self.live().map(|live| live.ask(request))
    }

    /// Whether it has done that, or has ended.
    pub(crate) fn has_done(&self, number: u64) -> bool {
        self.live().is_none_or(|live| live.is_done(number))
    }

    /// How it is called in messages.
    pub(crate) fn name(&self) -> String {
        format!("{} (process {})", self.command, self.pid)
    }
}

impl Rates {
    /// What happened since the sample `before`.
    pub(crate) fn between(before: &Sample, now: &Sample) -> Rates {
        let seconds = now.at.duration_since(before.at).as_secs_f64();
        if seconds <= 0.0 {
            return Rates::default();
        }
        let by_second = |before: u64, now: u64| now.saturating_sub(before) as f64 / seconds;
        let share = |before, now| (by_second(before, now) / 1e9).min(1.0);
        let moved = |sample: &Sample| sample.fetched + sample.written;
        Rates {
            faults: by_second(before.faults, now.faults),
            bytes: by_second(moved(before), moved(now)) * tmem_wire::PAGE_SIZE as f64,
            some: share(before.some_ns, now.some_ns),
            full: share(before.full_ns, now.full_ns),
        }
    }
}

/// What a process is called: its arguments, or the kernel's name where it has none.
fn command(pid: u32) -> String {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = String::from_utf8_lossy(&words).replace('\0', " ");
    let text: String = words.trim().chars().filter(|c| !c.is_control()).collect();
    match text.is_empty() {
        false => text,
        true => {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            name.trim().to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn rates_are_by_the_second_and_shares_at_most_one() {
        let at = Instant::now();
        let before = Sample {
            at,
            shown: Shown::default(),
            faults: 100,
            fetched: 10,
            written: 0,
            some_ns: 0,
            full_ns: 0,
        };
        let now = Sample {
            at: at + Duration::from_millis(500),
            faults: 150,
            fetched: 15,
            written: 5,
            some_ns: 900_000_000,
            full_ns: 125_000_000,
            ..before
        };
        let rates = Rates::between(&before, &now);
        assert!((rates.faults - 100.0).abs() < 1e-6);
        assert!((rates.bytes - 20.0 * 4096.0).abs() < 1e-6);
        assert!((rates.some - 1.0).abs() < 1e-6 && (rates.full - 0.25).abs() < 1e-6);
        assert_eq!(Rates::between(&now, &now), Rates::default());
    }
}
