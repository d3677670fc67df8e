//! This process's share of the budget that all processes of the program have in common: see
//! [`crate::family`].

use crate::engine::kernel::Process;
use crate::engine::settings::Settings;
use crate::family::{Family, Member, Use};
use crate::live::Live;
use crate::stats::Slot as Figures;
use crate::sys::now_ns;
use crate::sys::proc::Resident;
use core::sync::atomic::Ordering::Relaxed;
use tmem_policy::glide::Glide;
use tmem_policy::watermarks::Watermarks;
use tmem_wire::PAGE_SIZE;

/// The shortest pause between two measurements of shared memory.
const LOOK_NS: u64 = 1_000_000_000;
/// Pause after a measurement, in multiples of the time that it took.
const PAUSE_PER_LOOK: u64 = 100;
/// With more processes than this the pauses are longer: what all of them measure together
/// takes no more of a CPU.
const FEW_PROCESSES: u32 = 8;
/// Once at least `CHANGED` pages of shared memory have come or gone, the pauses are
/// shorter: at least `SOON_NS`, and `SOON_SHARE` times the measurement.
const CHANGED: u64 = 256;
const SOON_NS: u64 = 10_000_000;
const SOON_SHARE: u64 = 20;
/// Below this number of shared pages nothing is measured, unless the process has forked.
const FEW: u64 = 256;
/// A child waits this long before it counts memory that it shares with its parent. The
/// parent needs the time to notice that it shares. Until then both would count the memory,
/// and one of them would evict pages for no reason.
const CHILDHOOD_NS: u64 = 250_000_000;

/// The share of one process in the time between two samples of a process. All engines
/// together take a bounded part of a CPU for samples, however many processes there are. A
/// process of many grows more slowly, since the others run as well.
const TURN_US: u64 = 100;

/// Budget in bytes while all memory is to leave.
pub(crate) const SQUEEZED: u64 = 8 << 20;

/// One member of the shared budget.
#[derive(Default)]
pub(crate) struct BudgetShare {
    member: Option<&'static Member>,
    has_joined: bool,
    /// Resident pages that other processes count. Pages that a fork left in two processes
    /// exist once, and so does shared memory that several have touched.
    elsewhere: u64,
    /// The earliest time of the next measurement, if shared memory has changed (`soon_ns`)
    /// and if not (`look_ns`).
    soon_ns: u64,
    look_ns: u64,
    /// Pages of the local tier, which do not count. After a fork they are in two processes.
    tier: u64,
    /// Pages of shared memory at the last measurement.
    shared: u64,
    /// Pages read from servers until `need_ns`, and a moving average of that number per
    /// second.
    fetched: u64,
    need: u32,
    need_ns: u64,
    /// Processes that share the budget, when they were counted last.
    processes: u32,
    /// All is to leave.
    squeezed: bool,
    /// Bytes that the user allowed when it was looked last, and how a lower budget takes
    /// effect.
    allowed: u64,
    glide: Glide,
}

impl BudgetShare {
    /// Returns the watermarks for this process. `resident` pages count against the budget,
    /// `shared` of them are shared memory, and `remote` pages are on servers only.
    pub(crate) fn budget(
        &mut self,
        settings: &Settings,
        resident: usize,
        shared: u64,
        remote: u64,
    ) -> Watermarks {
        let all = self.allowed(settings);
        // Shared memory that has appeared since the last measurement is probably another
        // process's too. It counts once it was measured, which is soon.
        let elsewhere = self.elsewhere + shared.saturating_sub(self.shared);
        let bytes = match settings.family {
            Some(family) => {
                if !self.has_joined {
                    self.has_joined = true;
                    self.join(settings);
                }
                if let Some(me) = self.member {
                    me.say(Use {
                        held: (resident as u64).saturating_sub(elsewhere),
                        need: self.need,
                        remote,
                    });
                }
                family.share_of(self.member).map_or(all, |share| {
                    ((share + elsewhere) * PAGE_SIZE as u64).min(all)
                })
            }
            None => all,
        };
        if let Some(live) = self.live(settings) {
            let page = PAGE_SIZE as u64;
            live.show(bytes, resident as u64 * page, remote * page);
        }
        let bytes = if self.squeezed {
            bytes.min(SQUEEZED)
        } else {
            bytes
        };
        self.glide.follow(settings.watermarks(bytes), resident)
    }

    fn join(&mut self, settings: &Settings) {
        self.member = settings.family.and_then(Family::join);
        let report = &settings.report;
        if let (Some(me), Some(shared)) = (self.member, report.shared) {
            let pid = report.figures.pid.load(Relaxed);
            me.live.begin(pid, shared.number_of(report.figures));
        }
    }

    /// Returns how many bytes of memory the local tier of this process may have of `all`, where
    /// it has `mine` now.
    pub(crate) fn tier_share(&self, settings: &Settings, all: u64, mine: u64) -> u64 {
        let (Some(family), Some(me)) = (settings.family, self.member) else {
            return all;
        };
        me.say_tier(mine);
        all.saturating_sub(family.tiers_beside(me))
    }

    /// Where this process shows what it has, and is asked for something.
    pub(crate) fn live(&self, settings: &Settings) -> Option<&'static Live> {
        self.member.map(|me| &me.live).or(settings.report.live)
    }

    /// Has all leave, or ends that.
    pub(crate) fn squeeze(&mut self, on: bool) {
        self.squeezed = on;
    }

    /// Bytes that the user allows now: this process, or all together.
    fn allowed(&mut self, settings: &Settings) -> u64 {
        let together = settings.family.and_then(Family::budget);
        let own = || self.live(settings).and_then(Live::wanted);
        let all = together.or_else(own).unwrap_or(settings.budget);
        let now = if self.squeezed { SQUEEZED } else { all };
        if now != self.allowed {
            if now < self.allowed {
                self.glide.begin();
            }
            self.allowed = now;
            // The largest that it ever had is what its use is held against at the end.
            Figures::peak(&settings.report.figures.local_budget_bytes, all);
        }
        all
    }

    /// The least time between two samples, in microseconds.
    pub(crate) fn turn_us(&self) -> u64 {
        u64::from(self.processes) * TURN_US
    }

    /// Updates the rate at which this process reads pages from servers.
    pub(crate) fn count(&mut self, figures: &Figures, now: u64) {
        let fetched = figures.fetched_pages.load(Relaxed);
        let ns = now.saturating_sub(self.need_ns).max(1);
        let new = u128::from(fetched.saturating_sub(self.fetched)) * 1_000_000_000 / u128::from(ns);
        let new = u32::try_from(new).unwrap_or(u32::MAX / 8).min(u32::MAX / 8);
        self.need = (self.need * 7).div_ceil(8).saturating_add(new / 8);
        (self.fetched, self.need_ns) = (fetched, now);
    }

    /// Measures what this process shares with others, if it may share anything and a
    /// measurement is due.
    pub(crate) fn look(&mut self, proc: &mut dyn Process, settings: &Settings, now: u64) {
        if let Some(family) = settings.family {
            self.processes = family.count() as u32;
        }
        let Ok(resident) = proc.resident() else {
            return;
        };
        let forked = crate::engine::fork::state::has_been() || settings.start.inherit.is_some();
        if settings.family.is_none() || !forked && resident.shared < FEW {
            return;
        }
        let changed = resident.shared.abs_diff(self.shared) >= CHANGED && now >= self.soon_ns;
        if now < self.look_ns && !changed {
            return;
        }
        if let Ok(shares) = proc.shares() {
            let (private, own) = shares.private;
            // The two numbers are not read at the same moment, so their difference may be
            // negative.
            let shared = resident.shared.saturating_sub(shares.shared);
            // How much of the tier is another process's too is not known. To take all of it
            // for that keeps the budget, whatever there is.
            let both = private.saturating_sub(own).saturating_sub(self.tier);
            self.elsewhere = both + shared;
            self.shared = resident.shared;
        }
        let took = now_ns().saturating_sub(now);
        let took = took * u64::from(self.processes / FEW_PROCESSES).max(1);
        self.look_ns = now + (took * PAUSE_PER_LOOK).max(LOOK_NS);
        self.soon_ns = now + (took * SOON_SHARE).max(SOON_NS);
    }

    /// Starts in a child that was just forked: everything that it has is its parent's too.
    pub(crate) fn begin_as_child(&mut self, proc: &mut dyn Process) {
        if let Ok(resident) = proc.resident() {
            self.elsewhere = resident.counted();
            self.shared = resident.shared;
        }
        self.look_ns = now_ns() + CHILDHOOD_NS;
    }

    /// Notes how many pages the local tier has.
    pub(crate) fn note_tier(&mut self, pages: u64) {
        self.tier = pages;
    }

    /// Notes how many pages of the local tier this process has from its parent.
    pub(crate) fn inherits_tier(&mut self, pages: u64) {
        self.tier = pages;
        self.elsewhere = self.elsewhere.saturating_sub(pages);
    }

    /// Notes a fork: everything that is resident is now shared with a child.
    pub(crate) fn has_a_child(&mut self) {
        self.look_ns = 0;
    }
}

/// Updates the statistics of resident memory.
pub(crate) fn note(figures: &Figures, resident: &Resident) {
    let page = PAGE_SIZE as u64;
    for (figure, pages) in [
        (&figures.peak_resident_bytes, resident.all()),
        (&figures.peak_counted_bytes, resident.counted()),
        (&figures.files_bytes, resident.files),
        (&figures.shared_bytes, resident.shared),
        (&figures.locked_bytes, resident.locked),
        (&figures.huge_bytes, resident.huge),
    ] {
        Figures::peak(figure, pages * page);
    }
}
