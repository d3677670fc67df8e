//! Statistics of paged processes, in memory that `tmem run` shares with them.
//!
//! `tmem run` creates one memory file. Each process under it maps the file and claims a
//! [`Slot`]. Everything is atomics without locks, so a process may end at any instruction
//! and leaves readable statistics behind.

use crate::family::Family;
use crate::keeper::Keeper;
use crate::names::Names;
use crate::told::Told;
use core::fmt;
use core::ops::Range;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Slots of a [`Shared`] area. Further processes share the last one.
pub const SLOTS: usize = 256;

/// Linear buckets for each power of two of a [`Histogram`].
const STEPS: usize = 16;
/// Powers of two above the linear start: up to 2^40 ns, about 18 minutes.
const POWERS: usize = 36;
const BUCKETS: usize = STEPS * (POWERS + 1);

/// A histogram of latencies, with buckets at most 1/16 wide.
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

    /// Returns the lowest value of a bucket, in nanoseconds.
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
        /// The statistics of one process. Counters only grow. [`Slot::peak`] raises those
        /// that keep a maximum.
        #[repr(C)]
        pub struct Slot {
            /// The process, or 0 while the slot is free.
            pub pid: AtomicU32,
            /// How many processes of this slot have begun to page: 0 or 1, or more if
            /// several share the last slot.
            pub paging: AtomicU32,
            $($(#[$most_doc])* pub $most: AtomicU64,)*
            $($(#[$doc])* pub $name: AtomicU64,)*
            /// Times from when a fault was read until its thread was woken.
            pub fault_ns: Histogram,
        }

        /// The statistics of all processes together.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Totals {
            /// Processes that were started with a budget.
            pub processes: u64,
            /// Processes that have begun to page.
            pub paging: u64,
            /// The most memory that all processes had resident at one moment, as far as it
            /// counts against the budget, in bytes. Memory that several share counts once.
            pub budget_peak_bytes: u64,
            $($(#[$most_doc])* pub $most: u64,)*
            $($(#[$doc])* pub $name: u64,)*
            buckets: [u64; BUCKETS],
        }

        impl Totals {
            /// Starts with zeros.
            pub const fn new() -> Totals {
                Totals { processes: 0, paging: 0, budget_peak_bytes: 0, $($most: 0,)* $($name: 0,)* buckets: [0; BUCKETS] }
            }

            /// Adds the statistics of one slot.
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
    /// The most resident memory of one process, in bytes: the kernel's resident size, which
    /// includes pages of files.
    peak_resident_bytes,
    /// The most memory of one process that counted against the budget, in bytes: private
    /// and shared memory, without pages of files.
    peak_counted_bytes,
    /// The most resident pages of files of one process, in bytes. They do not count against
    /// the budget, since the kernel reclaims them when memory is short.
    files_bytes,
    /// The most resident shared memory of one process, in bytes. It counts, and cannot be
    /// paged.
    shared_bytes,
    /// The most address space of one process that was locked, or pinned for devices, in
    /// bytes. It cannot be paged.
    locked_bytes,
    /// The most memory of one process in huge pages of the reserved pool (hugetlbfs), in
    /// bytes. It does not count, and cannot be paged.
    huge_bytes,
    /// Named thread stacks, in bytes. This and the next four are private memory of one
    /// process that is not paged. It is measured only when more is resident than the budget
    /// and its allowance, else 0.
    stacks_bytes,
    /// Code that was generated while the program ran and is not writable, in bytes.
    code_bytes,
    /// Changed pages of mapped files, such as the data of libraries, in bytes.
    libraries_bytes,
    /// Mappings that are too small to be worth paging, in bytes.
    small_bytes,
    /// Unnamed stacks, memory that the program registers with a userfaultfd of its own, and
    /// memory that was not found yet, in bytes.
    other_bytes,
    /// The most memory, of all processes together, whose only copy was on servers at one
    /// moment, in bytes.
    remote_bytes,
    /// The most memory of the local tier of one process, in bytes.
    local_tier_bytes,
    /// The most bytes in the spill files of one process.
    spilled_bytes,
        /// The longest delay of a sample of the resident memory, in microseconds. Memory
        /// that is not adopted can grow unnoticed for so long.
        late_look_us,
} all {
    /// Memory adopted so far, in bytes.
    adopted_bytes,
    /// Page faults that the engine served.
    faults,
    /// Pages read from servers, including those read ahead.
    fetched_pages,
    /// Pages read ahead.
    prefetched_pages,
    /// Faults on pages that had been read ahead. Most pages that are read ahead are
    /// installed before they are touched, and cause no fault, so this is not the number of
    /// those that were used.
    prefetch_hits,
    /// Pages evicted from the program.
    evicted_pages,
    /// Pages written to servers.
    written_pages,
    /// Evicted pages that a server already had.
    clean_evictions,
    /// Evicted pages that were all zeros.
    zero_evictions,
    /// Faults on pages on standby in the frame pool.
    standby_refaults,
    /// Faults on pages that were in the compressed cache.
    compressed_hits,
    /// The most memory of the compressed cache, in bytes.
    compressed_cache_bytes,
    /// Faults on memory that was never touched or was discarded, served with zeros.
    zero_fills,
    /// Pages that the program discarded and that servers could forget.
    discarded_pages,
    /// Pages that were evicted or installed by copying, since the kernel refused to move
    /// them.
    copied_pages,
    /// Faults of the engine's own threads. Anything but 0 is a defect.
    self_faults,
    /// Pages that no server could return.
    lost_pages,
    /// How often pages had to stay in the program because every memory server was full,
    /// counted at most once in a while.
    servers_full,
    /// Nanoseconds in which at least one thread of a process waited for a page.
    waited_some_ns,
    /// Those of them in which nothing of the process ran: at most, where it has several
    /// threads.
    waited_full_ns,
    /// Pages that were asked of another server, because the first did not give them.
    failed_over_pages,
    /// Pages that were asked of a second server, because the first took long.
    late_pages,
    /// Pages that were written anew, because one server had other bytes than the others.
    mended_pages,
    /// Pages that were copied to another server, because a server that had them was lost.
    repaired_pages,
    /// Pages on servers that have fewer copies than they are to have, at this moment.
    degraded_pages,
    /// Servers that are away and waited for, at this moment.
    away_servers,
    /// CPU time of the engine in nanoseconds.
    pager_cpu_ns,
    /// Connections to servers that broke and were made again.
    reconnects,
    /// Pages that were compressed on the network, in both directions.
    compressed_pages,
    /// Bytes of these pages on the network.
    compressed_bytes,
}}

impl Slot {
    /// Raises a statistic that keeps a maximum.
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
    /// Iterates over the times of faults that there were: bounds in nanoseconds, at most a
    /// sixteenth apart, and how many lay between them.
    pub fn fault_times(&self) -> impl Iterator<Item = (Range<u64>, u64)> {
        let buckets = self.buckets.iter().copied().enumerate();
        let some = buckets.filter(|(_, count)| *count > 0);
        some.map(|(at, count)| (Histogram::value(at)..Histogram::value(at + 1), count))
    }

    /// Returns the time, in microseconds, within which the share `quantile` (0 to 1) of the
    /// faults was served. 0 without faults.
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

/// First word of a [`Shared`] area with this layout.
pub const MAGIC: u64 = u64::from_le_bytes(*b"tmstats8");

/// The area that processes share. Its initial state is all zeros except for `magic`.
#[repr(C)]
pub struct Shared {
    /// [`MAGIC`], which tells a file of another layout.
    pub magic: AtomicU64,
    /// Processes that have claimed a slot.
    started: AtomicU64,
    /// One slot per process.
    pub slots: [Slot; SLOTS],
    /// The shared budget.
    pub family: Family,
    /// Addresses of servers.
    pub names: Names,
    /// Messages that were printed.
    pub told: Told,
    /// Whether `tmem run` is alive.
    pub keeper: Keeper,
    /// Not 0 once a process takes orphans in (`PR_SET_CHILD_SUBREAPER`).
    pub has_reaper: AtomicU32,
    /// How often an engine has looked what a core of its program lacks.
    pub cores: AtomicU32,
}

impl Shared {
    /// Bytes of the area.
    pub const LEN: usize = size_of::<Shared>();

    /// Claims a slot for process `pid`: the next one, or the last if all are taken. Other
    /// slots are not touched, which would make them resident in each process.
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

    /// Returns the claimed slots. Reading others would make the kernel allocate memory for
    /// them.
    fn claimed(&self) -> &[Slot] {
        let started = self.started.load(Relaxed);
        &self.slots[..usize::try_from(started).map_or(SLOTS, |n| n.min(SLOTS))]
    }

    /// Tells whether process `pid` is paged.
    pub fn is_paged(&self, pid: u32) -> bool {
        let is_it = |slot: &Slot| slot.pid.load(Relaxed) == pid;
        let mut slots = self.claimed().iter().filter(|slot| is_it(slot));
        slots.any(|slot| slot.paging.load(Relaxed) != 0)
    }

    /// Returns the statistics of all slots together.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::new();
        self.claimed().iter().for_each(|slot| totals.add(slot));
        totals.processes = self.started.load(Relaxed);
        // Each process samples itself more often than the shared budget is computed.
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
        // SAFETY: all zeros is a valid value of every field.
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
