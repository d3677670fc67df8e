//! Figures of paged processes, in memory that `tmem run` shares with them.
//!
//! `tmem run` makes one memory file, every process under it maps the file and
//! claims a [`Slot`]. Plain atomics and no locks: a process may die at any
//! instruction and leaves its figures behind readable.

use crate::family::Family;
use crate::keeper::Keeper;
use crate::names::Names;
use crate::told::Told;
use core::fmt;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Slots of a [`Shared`] area; processes beyond them add up in the last one.
pub const SLOTS: usize = 256;

/// Linear steps in each power of two of a [`Histogram`].
const STEPS: usize = 16;
/// Powers of two above the linear start: up to 2^40 ns, some 18 minutes.
const POWERS: usize = 36;
const BUCKETS: usize = STEPS * (POWERS + 1);

/// A latency histogram with buckets at most 1/16 wide.
#[repr(C)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
}

impl Histogram {
    fn index(ns: u64) -> usize {
        if ns < STEPS as u64 {
            return ns as usize;
        }
        let power = ns.ilog2() as usize;
        let step = (ns >> (power - 4)) as usize & (STEPS - 1);
        ((power - 3) * STEPS + step).min(BUCKETS - 1)
    }

    /// The lowest value of a bucket, in nanoseconds.
    fn value(index: usize) -> u64 {
        if index < STEPS {
            return index as u64;
        }
        let power = index / STEPS + 3;
        ((STEPS + index % STEPS) as u64) << (power - 4)
    }

    /// Counts one event of `ns` nanoseconds.
    pub fn record(&self, ns: u64) {
        self.buckets[Histogram::index(ns)].fetch_add(1, Relaxed);
    }
}

macro_rules! counters {
    (most { $($(#[$most_doc:meta])* $most:ident,)* } all { $($(#[$doc:meta])* $name:ident,)* }) => {
        /// The figures of one process. Counters only grow; see [`Slot::peak`]
        /// for those that keep a maximum.
        #[repr(C)]
        pub struct Slot {
            /// The process, 0 while the slot is free.
            pub pid: AtomicU32,
            /// How many processes here have begun to page: 0 or 1, more where several
            /// share the last slot.
            pub paging: AtomicU32,
            $($(#[$most_doc])* pub $most: AtomicU64,)*
            $($(#[$doc])* pub $name: AtomicU64,)*
            /// Times from the moment a fault is read to the moment the thread
            /// is woken.
            pub fault_ns: Histogram,
        }

        /// Figures of all processes, added up.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Totals {
            /// Processes that were started with a budget.
            pub processes: u64,
            /// Those of them that have begun to page.
            pub paging: u64,
            /// The most memory that all had resident at one moment, as far as it counts
            /// against the budget, in bytes: a page that several share counts once.
            pub budget_peak_bytes: u64,
            $($(#[$most_doc])* pub $most: u64,)*
            $($(#[$doc])* pub $name: u64,)*
            buckets: [u64; BUCKETS],
        }

        impl Totals {
            /// Figures of nothing.
            pub const fn new() -> Totals {
                Totals { processes: 0, paging: 0, budget_peak_bytes: 0, $($most: 0,)* $($name: 0,)* buckets: [0; BUCKETS] }
            }

            /// Adds what one slot holds now.
            pub fn add(&mut self, slot: &Slot) {
                if slot.pid.load(Relaxed) == 0 {
                    return;
                }
                self.processes += 1;
                self.paging += u64::from(slot.paging.load(Relaxed));
                $(self.$most = self.$most.max(slot.$most.load(Relaxed));)*
                $(self.$name += slot.$name.load(Relaxed);)*
                for (sum, bucket) in self.buckets.iter_mut().zip(&slot.fault_ns.buckets) {
                    *sum += bucket.load(Relaxed);
                }
            }

            /// Writes one JSON object.
            ///
            /// # Errors
            /// Those of `out`.
            pub fn write_json(&self, out: &mut impl fmt::Write) -> fmt::Result {
                writeln!(out, "{{")?;
                writeln!(out, "  \"processes\": {},", self.processes)?;
                writeln!(out, "  \"paging_processes\": {},", self.paging)?;
                writeln!(out, "  \"budget_peak_bytes\": {},", self.budget_peak_bytes)?;
                $(writeln!(out, "  \"{}\": {},", stringify!($most), self.$most)?;)*
                $(writeln!(out, "  \"{}\": {},", stringify!($name), self.$name)?;)*
                let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|q| self.fault_us(q));
                writeln!(out, "  \"fault_us\": {{ \"p50\": {p50:.1}, \"p99\": {p99:.1}, \"p999\": {p999:.1} }}")?;
                writeln!(out, "}}")
            }
        }
    };
}

counters! { most {
    /// The budget for resident memory, in bytes.
    local_budget_bytes,
    /// The most memory that was resident in one process, in bytes: the kernel's
    /// resident size, with pages of files.
    peak_resident_bytes,
    /// The most memory of one process that counted against the budget, in bytes:
    /// private memory and shared memory, without pages of files.
    peak_counted_bytes,
    /// The most pages of files that were resident in one process, in bytes. They do not
    /// count against the budget: the kernel takes them back when memory is short.
    files_bytes,
    /// The most shared memory that was resident in one process, in bytes: it counts and
    /// cannot be paged.
    shared_bytes,
    /// The most memory of one process that was locked, or pinned for devices, in bytes
    /// of address space: it cannot be paged.
    locked_bytes,
    /// The most huge pages that one process had, of those that are set aside for them,
    /// in bytes: they do not count and cannot be paged.
    huge_bytes,
    /// Private memory of one process that is not paged, by kinds, in bytes: looked at
    /// only where more was resident than the budget and what is allowed beyond it, else 0.
    /// Stacks, as far as they have that name.
    stacks_bytes,
    /// Likewise: code that was made while the program ran, and may not be written to.
    code_bytes,
    /// Likewise: what was changed of mapped files, such as the data of libraries.
    libraries_bytes,
    /// Likewise: mappings that are too small to be worth it.
    small_bytes,
    /// Likewise: stacks without a name, memory that the program registers with a
    /// userfaultfd of its own, and what had not been found yet.
    other_bytes,
    /// The most memory whose only copy was on servers at one moment, of all processes
    /// together, in bytes.
    remote_bytes,
        /// By how much, at most, the pager looked later at the resident size than it was to, in
        /// microseconds: so long memory that it does not serve yet can grow unseen.
        late_look_us,
} all {
    /// Memory put under the pager so far, in bytes.
    adopted_bytes,
    /// Page faults that the pager served.
    faults,
    /// Pages fetched from servers, prefetched ones included.
    fetched_pages,
    /// Pages fetched before they were asked for.
    prefetched_pages,
    /// Faults on pages that had been fetched ahead. Most pages that are fetched ahead
    /// are put into the program before they are touched, and have no fault: this is not
    /// how many of them were used.
    prefetch_hits,
    /// Pages taken out of the program.
    evicted_pages,
    /// Pages sent to servers.
    written_pages,
    /// Evicted pages that a server already had.
    clean_evictions,
    /// Evicted pages that were all zeros.
    zero_evictions,
    /// Faults on pages that still rested in the frame pool.
    standby_refaults,
    /// Faults on pages of which a packed copy was kept in local memory.
    compressed_hits,
    /// The most memory that such copies took, in bytes.
    compressed_cache_bytes,
    /// Faults on memory never touched or given up, answered with zeros.
    zero_fills,
    /// Pages given back to servers because the program gave them up.
    discarded_pages,
    /// Pages that a page-moving call refused and that were copied.
    copied_pages,
    /// Faults that the pager's own threads took; anything but 0 is a defect.
    self_faults,
    /// Pages that no server could give back.
    lost_pages,
    /// Times, at most one in a while, at which pages that were to leave had to stay because
    /// every memory server was full.
    servers_full,
    /// Nanoseconds in which at least one thread of a process waited for a page.
    waited_some_ns,
    /// Those of them in which nothing of the process ran: at most, where it has several
    /// threads.
    waited_full_ns,
    /// Nanoseconds of CPU time that the pager used.
    pager_cpu_ns,
    /// Connections to servers that broke and were made again.
    reconnects,
    /// Pages that travelled packed, to servers and from them.
    compressed_pages,
    /// Bytes that they took.
    compressed_bytes,
}}

impl Slot {
    /// Raises a figure that keeps a maximum.
    pub fn peak(figure: &AtomicU64, value: u64) {
        figure.fetch_max(value, Relaxed);
    }
}

impl Default for Totals {
    fn default() -> Totals {
        Totals::new()
    }
}

impl Totals {
    /// The time within which the share `quantile` (0 to 1) of the faults was
    /// served, in microseconds; 0 without faults.
    pub fn fault_us(&self, quantile: f64) -> f64 {
        let total: u64 = self.buckets.iter().sum();
        let wanted = (total as f64 * quantile) as u64;
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if *count > 0 && seen > wanted {
                return Histogram::value(index) as f64 / 1000.0;
            }
        }
        self.buckets
            .iter()
            .rposition(|n| *n > 0)
            .map_or(0.0, |i| Histogram::value(i) as f64 / 1000.0)
    }
}

/// First word of a [`Shared`] area of this layout.
pub const MAGIC: u64 = u64::from_le_bytes(*b"tmstats7");

/// The area that processes share. All zeros but for `magic` is its start.
#[repr(C)]
pub struct Shared {
    /// [`MAGIC`], so that a stale or foreign file is not taken for one.
    pub magic: AtomicU64,
    /// Processes that have claimed a slot.
    started: AtomicU64,
    /// One per process.
    pub slots: [Slot; SLOTS],
    /// What the processes share of a budget.
    pub family: Family,
    /// Addresses of servers.
    pub names: Names,
    /// What has been said to the user.
    pub told: Told,
    /// Whether `tmem run` is there.
    pub keeper: Keeper,
    /// Not 0 once a process takes orphans in (`PR_SET_CHILD_SUBREAPER`).
    pub has_reaper: AtomicU32,
}

impl Shared {
    /// Bytes of the area.
    pub const LEN: usize = size_of::<Shared>();

    /// The slot of process `pid`: the next one, or the last where all are taken. No other
    /// is touched, or all of them would come to be resident in each process.
    pub fn claim(&self, pid: u32) -> &Slot {
        let number = self.started.fetch_add(1, Relaxed);
        let at = usize::try_from(number).map_or(SLOTS - 1, |at| at.min(SLOTS - 1));
        let slot = &self.slots[at];
        slot.pid.store(pid, Relaxed);
        slot
    }

    /// The number of a slot.
    pub fn number_of(&self, slot: &Slot) -> u32 {
        let at = self.slots.iter().position(|s| core::ptr::eq(s, slot));
        at.unwrap_or(SLOTS - 1) as u32
    }

    /// The figures of all slots.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::new();
        let started = self.started.load(Relaxed);
        // To look at the others would have the kernel find memory for all of them.
        let claimed = usize::try_from(started).map_or(SLOTS, |n| n.min(SLOTS));
        self.slots[..claimed]
            .iter()
            .for_each(|slot| totals.add(slot));
        totals.processes = started;
        // What one process has was seen more often.
        totals.budget_peak_bytes = self.family.peak().max(totals.peak_counted_bytes);
        totals.remote_bytes = totals.remote_bytes.max(self.family.remote_peak());
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn buckets_are_at_most_a_sixteenth_off(ns in 0u64..1 << 39) {
            let low = Histogram::value(Histogram::index(ns));
            prop_assert!(low <= ns && ns - low <= ns / 16);
        }
    }

    fn shared() -> std::boxed::Box<Shared> {
        // SAFETY: all zeros is a valid value of every field, and is its start.
        unsafe { std::boxed::Box::new_zeroed().assume_init() }
    }

    #[test]
    fn each_figure_has_its_definition_for_readers() {
        let figures = include_str!("../../docs/statistics.md");
        let mut json = std::string::String::new();
        Totals::new().write_json(&mut json).unwrap();
        let names = json.split('"').skip(1).step_by(2);
        for name in names.filter(|name| !matches!(*name, "p50" | "p99" | "p999")) {
            let quoted = std::format!("`{name}`");
            let row = figures.lines().find(|line| line.contains(&quoted));
            assert!(
                row.is_some_and(|row| row.starts_with("| `")),
                "no definition of {name}"
            );
        }
    }

    #[test]
    fn figures_of_processes_add_up() {
        let shared = shared();
        for pid in 1..=SLOTS as u32 + 4 {
            let slot = shared.claim(pid);
            slot.faults.fetch_add(1, Relaxed);
            slot.paging.fetch_add(1, Relaxed);
            Slot::peak(&slot.remote_bytes, 7);
            Slot::peak(&slot.peak_resident_bytes, u64::from(pid));
            Slot::peak(&slot.late_look_us, u64::from(pid));
            slot.fault_ns.record(5000);
        }
        let totals = shared.totals();
        assert_eq!(totals.faults, SLOTS as u64 + 4);
        assert_eq!(totals.processes, SLOTS as u64 + 4);
        assert_eq!(totals.paging, SLOTS as u64 + 4);
        assert_eq!(totals.remote_bytes, 7);
        assert_eq!(totals.peak_resident_bytes, SLOTS as u64 + 4);
        assert_eq!(totals.late_look_us, SLOTS as u64 + 4);
        assert!((4.5..5.01).contains(&totals.fault_us(0.5)));
        let mut json = std::string::String::new();
        totals.write_json(&mut json).unwrap();
        assert!(json.contains("\"lost_pages\": 0,"));
        assert!(json.contains("\"fault_us\": { \"p50\": "));
    }
}
