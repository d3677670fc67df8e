//! How many pages are resident, and how many may be.

use crate::engine::budget_share::BudgetShare;
use crate::engine::kernel::Kernel;
use crate::engine::settings::Settings;
use crate::stats::Slot as Figures;
use tmem_policy::demand::FrameDemand;
use tmem_policy::watermarks::Watermarks;

/// Between two looks at how much memory is resident.
pub(crate) const SAMPLE_NS: u64 = 1_000_000;

/// Counts of pages, and the watermarks that they are held against.
pub(crate) struct Residency {
    marks: Watermarks,
    share: BudgetShare,
    /// Pages put into the program, less those taken out of it.
    known: i64,
    /// Pages that count when it was looked last, and what `held` was.
    sampled: (usize, i64),
    sampled_ns: u64,
    /// When it is to be looked next, if this is later.
    look_due_ns: u64,
    demand: FrameDemand,
    /// Pages of memory that the compressed cache takes.
    compressed: usize,
    /// Pages whose only copy is on servers, or on the way there.
    remote: u64,
    /// How many of them there were when this process was forked, and until when that
    /// counts as just now.
    inherited: u64,
    young_ns: u64,
}

impl Residency {
    /// Nothing is known yet but the watermarks and the share in them.
    pub(crate) fn new(marks: Watermarks, share: BudgetShare) -> Residency {
        Residency {
            marks,
            share,
            known: 0,
            sampled: (0, 0),
            sampled_ns: 0,
            look_due_ns: 0,
            demand: FrameDemand::default(),
            compressed: 0,
            remote: 0,
            inherited: 0,
            young_ns: 0,
        }
    }

    /// The watermarks.
    pub(crate) fn marks(&self) -> &Watermarks {
        &self.marks
    }

    /// In a test: other watermarks hold from now on.
    #[cfg(test)]
    pub(crate) fn set_marks(&mut self, marks: Watermarks) {
        self.marks = marks;
    }

    /// What this process may have of a budget that several share.
    pub(crate) fn share_mut(&mut self) -> &mut BudgetShare {
        &mut self.share
    }

    /// Pages were put into the program, or (fewer than 0) taken out of it.
    pub(crate) fn count_put(&mut self, pages: i64) {
        self.known += pages;
    }

    /// Pages that the engine has put into the program and into memory of its own, less
    /// those that it took out; `pool` of them are in frames.
    pub(crate) fn held(&self, pool: usize) -> i64 {
        (pool + self.compressed) as i64 + self.known
    }

    /// Resident pages now, as far as this thread can know.
    pub(crate) fn resident(&self, pool: usize) -> usize {
        let (resident, held) = self.sampled;
        resident.saturating_add_signed((self.held(pool) - held) as isize)
    }

    /// Pages that counted as resident when it was looked last.
    pub(crate) fn sampled(&self) -> usize {
        self.sampled.0
    }

    /// When it was looked last.
    pub(crate) fn sampled_ns(&self) -> u64 {
        self.sampled_ns
    }

    /// It is looked now; `taken` free frames were used in all.
    pub(crate) fn begin_sample(&mut self, stats: &Figures, taken: u64, now: u64) {
        let since = now.saturating_sub(self.sampled_ns);
        self.demand.update(taken, since);
        self.note_lateness(stats, now);
        self.sampled_ns = now;
    }

    /// So many pages count as resident, of which `pool` are in frames. Whether they are
    /// more than before.
    pub(crate) fn end_sample(&mut self, resident: usize, pool: usize) -> bool {
        let grows = resident > self.sampled.0;
        self.sampled = (resident, self.held(pool));
        grows
    }

    /// It is to be looked next so long after it was last.
    pub(crate) fn look_after(&mut self, ns: u64) -> u64 {
        self.look_due_ns = self.sampled_ns + ns;
        self.look_due_ns
    }

    /// The compressed cache takes so many pages of memory.
    pub(crate) fn set_compressed(&mut self, pages: usize) {
        self.compressed = pages;
    }

    /// Pages of memory that the compressed cache takes.
    pub(crate) fn compressed(&self) -> usize {
        self.compressed
    }

    /// Pages whose only copy is on servers, or on the way there.
    pub(crate) fn remote(&self) -> u64 {
        self.remote
    }

    /// Such pages are more, or fewer. How many of them count here: what a child shares
    /// with its parent is counted there.
    pub(crate) fn count_remote(&mut self, more: i64) -> u64 {
        self.remote = self.remote.saturating_add_signed(more);
        self.remote.saturating_sub(self.inherited)
    }

    /// This process was forked just now, with so many remote pages, and counts as young
    /// until then.
    pub(crate) fn begin_as_child(&mut self, remote: u64, young_ns: u64) {
        self.inherited = remote;
        self.young_ns = young_ns;
    }

    /// Whether this process was forked just now.
    pub(crate) fn is_young(&self) -> bool {
        self.sampled_ns < self.young_ns
    }

    /// Notes by how much this look is late: on a busy machine this thread gets a processor
    /// when there is one.
    fn note_lateness(&self, stats: &Figures, now: u64) {
        let due = match self.look_due_ns > self.sampled_ns {
            true => self.look_due_ns,
            // There was more to do than to wait.
            false => self.sampled_ns + SAMPLE_NS,
        };
        if self.sampled_ns > 0 {
            Figures::peak(&stats.late_look_us, now.saturating_sub(due) / 1000);
        }
    }

    /// Frames with nothing in them that are used up in a millisecond.
    pub(crate) fn frame_demand(&self) -> usize {
        self.demand.rate()
    }

    /// Takes the share that is this process's now.
    pub(crate) fn take_share(&mut self, settings: &Settings, resident: usize, shared: u64) {
        if settings.family.is_some() {
            let remote = self.remote.saturating_sub(self.inherited);
            self.marks = self.share.budget(settings, resident, shared, remote);
        }
    }

    /// What has to be known for that, and need not be known at once.
    pub(crate) fn look_at_share(
        &mut self,
        kernel: &mut dyn Kernel,
        settings: &Settings,
        stats: &Figures,
        now: u64,
    ) {
        if settings.family.is_none() {
            return;
        }
        self.share.count(stats, now);
        self.share.look(kernel, settings, now);
    }
}
