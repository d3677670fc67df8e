//! Counts of resident and remote pages, and the watermarks.

use crate::engine::budget_share::BudgetShare;
use crate::engine::kernel::Kernel;
use crate::engine::settings::Settings;
use crate::stats::Slot as Figures;
use tmem_policy::demand::FrameDemand;
use tmem_policy::watermarks::Watermarks;

/// Time between two samples of the resident memory.
pub(crate) const SAMPLE_NS: u64 = 1_000_000;

/// Counts of pages, and the watermarks to compare them with.
pub(crate) struct Residency {
    marks: Watermarks,
    share: BudgetShare,
    /// Pages put into the program, less those taken out of it.
    known: i64,
    /// Resident pages that count against the budget, and the value of `held`, at the last
    /// sample.
    sampled: (usize, i64),
    sampled_ns: u64,
    /// When the next sample is due.
    look_due_ns: u64,
    demand: FrameDemand,
    /// Pages of memory that the compressed cache takes.
    compressed: usize,
    /// Pages whose only copy is on servers, or on the way there.
    remote: u64,
    /// How many of them the parent had at the fork, and until when this process counts as
    /// just forked.
    inherited: u64,
    young_ns: u64,
}

impl Residency {
    /// Starts with the watermarks and the budget share.
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

    /// Returns the watermarks.
    pub(crate) fn marks(&self) -> &Watermarks {
        &self.marks
    }

    /// Sets other watermarks, in a test.
    #[cfg(test)]
    pub(crate) fn set_marks(&mut self, marks: Watermarks) {
        self.marks = marks;
    }

    /// Returns the budget share.
    pub(crate) fn share(&self) -> &BudgetShare {
        &self.share
    }

    /// Returns the budget share, to be changed.
    pub(crate) fn share_mut(&mut self) -> &mut BudgetShare {
        &mut self.share
    }

    /// Counts pages that were put into the program, or (negative) taken out of it.
    pub(crate) fn count_put(&mut self, pages: i64) {
        self.known += pages;
    }

    /// Returns the pages that the engine has put into the program and into its own memory,
    /// less those that it took out. `pool` of them are in frames.
    pub(crate) fn held(&self, pool: usize) -> i64 {
        (pool + self.compressed) as i64 + self.known
    }

    /// Returns the number of resident pages, as far as this thread can know.
    pub(crate) fn resident(&self, pool: usize) -> usize {
        let (resident, held) = self.sampled;
        resident.saturating_add_signed((self.held(pool) - held) as isize)
    }

    /// Returns the resident pages at the last sample.
    pub(crate) fn sampled(&self) -> usize {
        self.sampled.0
    }

    /// Returns the time of the last sample.
    pub(crate) fn sampled_ns(&self) -> u64 {
        self.sampled_ns
    }

    /// Begins a sample. `taken` is the number of free frames used since the start.
    pub(crate) fn begin_sample(&mut self, stats: &Figures, taken: u64, now: u64) {
        let since = now.saturating_sub(self.sampled_ns);
        self.demand.update(taken, since);
        self.note_lateness(stats, now);
        self.sampled_ns = now;
    }

    /// Ends a sample. `resident` pages count against the budget, `pool` of them are in
    /// frames. Returns whether resident memory has grown.
    pub(crate) fn end_sample(&mut self, resident: usize, pool: usize) -> bool {
        let grows = resident > self.sampled.0;
        self.sampled = (resident, self.held(pool));
        grows
    }

    /// Makes the next sample due `ns` after the last. Returns when that is.
    pub(crate) fn look_after(&mut self, ns: u64) -> u64 {
        self.look_due_ns = self.sampled_ns + ns;
        self.look_due_ns
    }

    /// Returns the least time between two samples, in nanoseconds.
    pub(crate) fn turn_ns(&self) -> u64 {
        self.share.turn_us() * 1000
    }

    /// Sets the pages of memory that the compressed cache takes.
    pub(crate) fn set_compressed(&mut self, pages: usize) {
        self.compressed = pages;
    }

    /// Returns the pages of memory that the compressed cache takes.
    pub(crate) fn compressed(&self) -> usize {
        self.compressed
    }

    /// Returns the pages whose only copy is on servers, or on the way there.
    pub(crate) fn remote(&self) -> u64 {
        self.remote
    }

    /// Changes the count of remote pages. Returns the count without those that the parent
    /// counts already.
    pub(crate) fn count_remote(&mut self, more: i64) -> u64 {
        self.remote = self.remote.saturating_add_signed(more);
        self.remote.saturating_sub(self.inherited)
    }

    /// Starts in a forked child with `remote` remote pages. The child counts as young until
    /// `young_ns`.
    pub(crate) fn begin_as_child(&mut self, remote: u64, young_ns: u64) {
        self.inherited = remote;
        self.young_ns = young_ns;
    }

    /// Tells whether this process was forked just now.
    pub(crate) fn is_young(&self) -> bool {
        self.sampled_ns < self.young_ns
    }

    /// Records by how much this sample is late. On a busy machine the thread has to wait
    /// for a CPU.
    fn note_lateness(&self, stats: &Figures, now: u64) {
        let due = match self.look_due_ns > self.sampled_ns {
            true => self.look_due_ns,
            // The sample was late because there was other work.
            false => self.sampled_ns + SAMPLE_NS,
        };
        if self.sampled_ns > 0 {
            Figures::peak(&stats.late_look_us, now.saturating_sub(due) / 1000);
        }
    }

    /// Returns how many free frames are used up per millisecond.
    pub(crate) fn frame_demand(&self) -> usize {
        self.demand.rate()
    }

    /// Updates the watermarks to this process's current budget share.
    pub(crate) fn take_share(&mut self, settings: &Settings, resident: usize, shared: u64) {
        if settings.family.is_some() || settings.report.live.is_some() {
            let remote = self.remote.saturating_sub(self.inherited);
            self.marks = self.share.budget(settings, resident, shared, remote);
        }
    }

    /// Updates what the budget share is computed from. This may be a little late.
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
