//! What this process may have of the budget that all processes of the program
//! share, see [`crate::family`].

use crate::engine::kernel::Process;
use crate::engine::settings::Settings;
use crate::family::{Member, Use};
use crate::stats::Slot as Figures;
use crate::sys::now_ns;
use crate::sys::proc::Resident;
use core::sync::atomic::Ordering::Relaxed;
use tmem_policy::watermarks::Watermarks;
use tmem_wire::PAGE_SIZE;

/// The least time between two looks at what processes share.
const LOOK_NS: u64 = 1_000_000_000;
/// The next look comes this many times as long after a look as that took.
const PAUSE_PER_LOOK: u64 = 100;
/// The same while so many pages of shared memory have come or gone since.
const CHANGED: u64 = 256;
const SOON_NS: u64 = 10_000_000;
const SOON_SHARE: u64 = 20;
/// With fewer pages of shared memory, and no fork, it is not looked.
const FEW: u64 = 256;
/// A child counts what it shares with its parent after so long: once the parent has
/// had time to see that it shares, or for a while both would count it, and one have
/// to give up memory for no reason.
const CHILDHOOD_NS: u64 = 250_000_000;

/// One process among its kin.
#[derive(Default)]
pub(crate) struct BudgetShare {
    member: Option<&'static Member>,
    has_joined: bool,
    /// Resident pages that other processes count: what a fork left in two of
    /// them is there once, and so is shared memory that several have touched.
    elsewhere: u64,
    /// Not to look before, and not while nothing has changed.
    soon_ns: u64,
    look_ns: u64,
    /// Pages of shared memory when it was looked last.
    shared: u64,
    /// Pages asked of servers by `need_ns`, and how many a second that was of
    /// late.
    fetched: u64,
    need: u32,
    need_ns: u64,
}

impl BudgetShare {
    /// The limits for this process, which has `resident` pages that count, `shared`
    /// memory among them, and `remote` pages on servers only.
    pub(crate) fn budget(
        &mut self,
        settings: &Settings,
        resident: usize,
        shared: u64,
        remote: u64,
    ) -> Watermarks {
        let all = settings.budget;
        // What has come to be shared memory since is somebody else's as likely as not:
        // it counts once it was looked, which is soon.
        let elsewhere = self.elsewhere + shared.saturating_sub(self.shared);
        let bytes = match settings.family {
            Some(family) => {
                if !self.has_joined {
                    self.has_joined = true;
                    self.member = family.join();
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
        settings.watermarks(bytes)
    }

    /// Sees how many pages it asks servers for.
    pub(crate) fn count(&mut self, figures: &Figures, now: u64) {
        let fetched = figures.fetched_pages.load(Relaxed);
        let ns = now.saturating_sub(self.need_ns).max(1);
        let new = u128::from(fetched.saturating_sub(self.fetched)) * 1_000_000_000 / u128::from(ns);
        let new = u32::try_from(new).unwrap_or(u32::MAX / 8).min(u32::MAX / 8);
        self.need = (self.need * 7).div_ceil(8).saturating_add(new / 8);
        (self.fetched, self.need_ns) = (fetched, now);
    }

    /// Sees what it shares with other processes, where it may share something and it is
    /// time.
    pub(crate) fn look(&mut self, proc: &mut dyn Process, settings: &Settings, now: u64) {
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
            // They are not read at one moment.
            let shared = resident.shared.saturating_sub(shares.shared);
            self.elsewhere = private.saturating_sub(own) + shared;
            self.shared = resident.shared;
        }
        let took = now_ns().saturating_sub(now);
        self.look_ns = now + (took * PAUSE_PER_LOOK).max(LOOK_NS);
        self.soon_ns = now + (took * SOON_SHARE).max(SOON_NS);
    }

    /// A child that was just forked has nothing that its parent has not.
    pub(crate) fn begin_as_child(&mut self, proc: &mut dyn Process) {
        if let Ok(resident) = proc.resident() {
            self.elsewhere = resident.counted();
            self.shared = resident.shared;
        }
        self.look_ns = now_ns() + CHILDHOOD_NS;
    }

    /// Who forked shares all that it has with the child.
    pub(crate) fn has_a_child(&mut self) {
        self.look_ns = 0;
    }
}

/// Takes what is resident into the figures.
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
