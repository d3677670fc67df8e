//! The statistics that paged processes keep in shared memory.

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::{Duration, Instant};

use tmem_config::{Handed, family_from_env, write_file};
use tmem_pager::keeper::Keeper;
use tmem_pager::live::Live;
use tmem_pager::names::Names;
use tmem_pager::stats::{MAGIC, Shared, Totals};

/// The shared memory, mapped here as long as this lives.
pub(crate) struct Stats {
    file: OwnedFd,
    shared: *const Shared,
    /// Whether the other processes end with this one.
    keeps: bool,
}

/// What the processes that live have at this moment, together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Present {
    pub(crate) processes: u64,
    /// In bytes, as the next three.
    pub(crate) budget: u64,
    pub(crate) resident: u64,
    pub(crate) remote: u64,
    /// What they use again and again, as far as that is known.
    pub(crate) working_set: Option<u64>,
    /// Pages with fewer copies than they are to have.
    pub(crate) degraded_pages: u64,
    /// Servers that are waited for, once for each process.
    pub(crate) away_servers: u64,
}

impl Stats {
    /// Makes the memory file.
    pub(crate) fn new() -> io::Result<Stats> {
        let file = memfd_create(
            c"tmem-stats",
            MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
        )?;
        ftruncate(&file, Shared::LEN as u64)?;
        // If it became shorter, reading it would raise SIGBUS.
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let mut stats = Stats::map(file)?;
        stats.shared().magic.store(MAGIC, Relaxed);
        keep(&stats.shared().keeper)?;
        stats.keeps = true;
        Ok(stats)
    }

    /// Those of the family that this process is of.
    pub(crate) fn of_family() -> Option<Stats> {
        let memory = Handed::ask(&family_from_env()?).ok()?.memory;
        let stats = Stats::map(memory).ok()?;
        (stats.shared().magic.load(Relaxed) == MAGIC).then_some(stats)
    }

    fn map(file: OwnedFd) -> io::Result<Stats> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping of a file of this length.
        let address = unsafe {
            let anywhere = std::ptr::null_mut();
            mmap(
                anywhere,
                Shared::LEN,
                protection,
                MapFlags::SHARED,
                &file,
                0,
            )?
        };
        Ok(Stats {
            file,
            shared: address.cast(),
            keeps: false,
        })
    }

    /// The memory file, for other processes.
    pub(crate) fn memory(&self) -> io::Result<OwnedFd> {
        self.file.try_clone()
    }

    /// Sets the budget that all processes share.
    pub(crate) fn limit(&self, bytes: u64) {
        self.shared().family.limit(bytes);
    }

    /// The same memory once more, for another thread.
    pub(crate) fn again(&self) -> io::Result<Stats> {
        Stats::map(self.file.try_clone()?)
    }

    /// Where the processes find addresses of servers.
    pub(crate) fn names(&self) -> &Names {
        &self.shared().names
    }

    /// The statistics of all processes so far.
    pub(crate) fn totals(&self) -> Totals {
        self.shared().totals()
    }

    /// Nanoseconds in which threads of the processes have waited for pages so far.
    pub(crate) fn waited_ns(&self) -> u64 {
        self.totals().waited_some_ns
    }

    /// What the processes that live have now.
    pub(crate) fn present(&self) -> Present {
        let shared = self.shared();
        let mut all = Present::default();
        for shown in shared.family.living().map(Live::shown) {
            all.processes += 1;
            all.budget += shown.budget;
            all.resident += shown.resident;
            all.remote += shown.remote;
            if let Some(bytes) = shown.working_set {
                all.working_set = Some(all.working_set.unwrap_or(0) + bytes);
            }
            if let Some(slot) = shared.slots.get(shown.slot as usize) {
                all.degraded_pages += slot.degraded_pages.load(Relaxed);
                all.away_servers += slot.away_servers.load(Relaxed);
            }
        }
        all.budget = shared.family.budget().unwrap_or(all.budget);
        all
    }

    /// A slot of a process, for tests.
    #[cfg(test)]
    pub(crate) fn claimed(&self, pid: u32) -> &tmem_pager::stats::Slot {
        self.shared().claim(pid)
    }

    /// Waits until the engine of process `pid`, if it was paged, has said what the process's
    /// core lacks: the engine asks the kernel for the process, and writes to this process's
    /// standard error.
    pub(crate) fn await_core(&self, pid: libc::pid_t) {
        /// Before Linux 5.16 the kernel ends the engine when it begins a core.
        const PATIENCE: Duration = Duration::from_secs(2);
        const NAP: Duration = Duration::from_millis(1);
        let begun = Instant::now();
        let is_paged = u32::try_from(pid).is_ok_and(|pid| self.shared().is_paged(pid));
        while is_paged && self.shared().cores.load(Acquire) == 0 && begun.elapsed() < PATIENCE {
            std::thread::sleep(NAP);
        }
    }

    fn shared(&self) -> &Shared {
        // SAFETY: mapped until drop, page-aligned, and atomics throughout,
        // for which any bytes are a value.
        unsafe { &*self.shared }
    }
}

// SAFETY: the mapping is this value's own wherever it is, and atomics throughout.
unsafe impl Send for Stats {}

// SAFETY: atomics throughout, which any thread may read and write at any time.
unsafe impl Sync for Stats {}

impl Drop for Stats {
    fn drop(&mut self) {
        if self.keeps {
            let mutex = self.shared().keeper.mutex().cast();
            // SAFETY: this thread has locked it, for `Stats` does not leave its thread.
            unsafe { libc::pthread_mutex_unlock(mutex) };
        }
        // SAFETY: the mapping is this one's and no reference to it is left.
        let _ = unsafe { munmap(self.shared.cast_mut().cast(), Shared::LEN) };
    }
}

/// Locks the mutex by which others see whether this process was killed. It is this
/// thread's until it unlocks it, and the kernel's to mark when it ends before.
fn keep(keeper: &Keeper) -> io::Result<()> {
    const { assert!(size_of::<libc::pthread_mutex_t>() <= Keeper::LEN) };
    let mutex = keeper.mutex().cast::<libc::pthread_mutex_t>();
    let checked = |error: libc::c_int| match error {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    };
    let mut attr = MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
    let attr = attr.as_mut_ptr();
    // SAFETY: the mutex has room enough, is aligned, and is mapped until `Drop`; the
    // attributes are made by the first call.
    unsafe {
        checked(libc::pthread_mutexattr_init(attr))?;
        checked(libc::pthread_mutexattr_setpshared(
            attr,
            libc::PTHREAD_PROCESS_SHARED,
        ))?;
        checked(libc::pthread_mutexattr_setrobust(
            attr,
            libc::PTHREAD_MUTEX_ROBUST,
        ))?;
        checked(libc::pthread_mutex_init(mutex, attr))?;
        checked(libc::pthread_mutex_lock(mutex))
    }
}

/// Writes the statistics as JSON, completely or not at all.
pub(crate) fn write_json(path: &Path, totals: &Totals) -> io::Result<()> {
    let mut text = String::new();
    totals.write_json(&mut text).map_err(io::Error::other)?;
    write_file(path, text.as_bytes())
}

/// The statistics as text.
pub(crate) fn summary(totals: &Totals, time: Duration) -> String {
    let of_all = if totals.processes > 1 {
        let (n, peak) = (totals.processes, mib(totals.peak_counted_bytes));
        format!(" ({n} processes, the largest {peak:.1} MiB)")
    } else {
        String::new()
    };
    let tier = match (totals.local_tier_bytes, totals.spilled_bytes) {
        (0, _) => String::new(),
        (tier, 0) => format!(", which took {:.1} MiB here", mib(tier)),
        (tier, file) => format!(
            ", which took {:.1} MiB here and {:.1} MiB of the spill file",
            mib(tier),
            mib(file)
        ),
    };
    format!(
        "tmem: memory: budget {:.1} MiB, peak {:.1} MiB{of_all}; file pages {:.1} MiB, not \
         counted; {} at most {:.1} MiB{}\n\
         tmem: pages: {} faults, {} fetched ({} of them ahead), {} evicted, {} lost\n\
         tmem: time: waited for pages {:.3} s, with nothing else running {:.3} s; half of the \
         faults within {:.1} us, 99 % within {:.1} us; {:.3} s in all\n",
        mib(totals.local_budget_bytes),
        mib(totals.budget_peak_bytes),
        mib(totals.files_bytes),
        if tier.is_empty() {
            "on servers"
        } else {
            "evicted"
        },
        mib(totals.remote_bytes),
        tier,
        totals.faults,
        totals.fetched_pages,
        totals.prefetched_pages,
        totals.evicted_pages,
        totals.lost_pages,
        totals.waited_some_ns as f64 / 1e9,
        totals.waited_full_ns as f64 / 1e9,
        totals.fault_us(0.5),
        totals.fault_us(0.99),
        time.as_secs_f64(),
    )
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Says by how much the budget was exceeded, and by what, where it was by more than the
/// 5 % and 16 MiB that are allowed for.
pub(crate) fn overrun(totals: &Totals, per_process: bool) -> Option<String> {
    const SLACK: u64 = 16 << 20;
    /// Less is not reported.
    const LITTLE: u64 = 1 << 20;
    /// Each process may have 8 MiB, even where all together then have more than the budget,
    /// and somewhat more while it leaves.
    const EACH: u64 = 10 << 20;
    let budget = totals.local_budget_bytes;
    let peak = match per_process {
        true => totals.peak_counted_bytes,
        false => totals.budget_peak_bytes,
    };
    if peak <= budget.saturating_add(budget / 20).saturating_add(SLACK) {
        return None;
    }
    let mut kinds = [
        (totals.shared_bytes, "shared memory"),
        (totals.locked_bytes, "locked memory"),
        (totals.stacks_bytes, "stacks"),
        (totals.code_bytes, "code"),
        (totals.libraries_bytes, "data of libraries and files"),
        (totals.small_bytes, "small mappings"),
        (totals.other_bytes, "other memory"),
    ];
    kinds.sort_by_key(|kind| std::cmp::Reverse(kind.0));
    let much = kinds.iter().filter(|kind| kind.0 >= LITTLE);
    let named: Vec<_> = much
        .map(|(bytes, name)| format!("{:.0} MiB of {name}", mib(*bytes)))
        .collect();
    let others = totals.processes.saturating_sub(1);
    let full = totals.servers_full > 0;
    let few = named.is_empty() && !full && !per_process;
    if few && peak - budget <= budget / 20 + SLACK + others * EACH {
        return None;
    }
    let mut reasons = Vec::new();
    if full {
        reasons.push(
            "the memory servers were full: give them more capacity, or name further ones"
                .to_owned(),
        );
    }
    if !named.is_empty() {
        let most = named.join(", ");
        reasons.push(format!(
            "memory that cannot be paged was up to {most} in one process: give that much more, or \
             use less of it"
        ));
    }
    if reasons.is_empty() {
        reasons.push("memory grew faster than pages could leave".to_owned());
    }
    let why = reasons.join("; and ");
    Some(format!(
        "the budget of {:.0} MiB was exceeded by {:.0} MiB: {why}",
        mib(budget),
        mib(peak - budget),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(budget: u64, peak: u64) -> Totals {
        let mut totals = Totals::new();
        totals.local_budget_bytes = budget << 20;
        totals.budget_peak_bytes = peak << 20;
        totals.peak_counted_bytes = (peak / 2) << 20;
        totals
    }

    #[test]
    fn what_is_beyond_the_budget_is_told_with_its_kinds() {
        assert_eq!(overrun(&totals(100, 121), false), None);
        let mut over = totals(100, 300);
        let text = overrun(&over, false).unwrap();
        assert!(text.contains("exceeded by 200 MiB: memory grew faster"));
        let mut full = over.clone();
        full.servers_full = 1;
        let text = overrun(&full, false).unwrap();
        assert!(text.contains("200 MiB: the memory servers were full: give them more"));
        assert!(!text.contains("grew faster"), "{text}");
        over.shared_bytes = 150 << 20;
        over.locked_bytes = 160 << 20;
        over.stacks_bytes = 1000;
        assert_eq!(
            overrun(&over, false).unwrap(),
            "the budget of 100 MiB was exceeded by 200 MiB: memory that cannot be paged was up to \
             160 MiB of locked memory, 150 MiB of shared memory in one process: give that much \
             more, or use less of it"
        );
        assert!(overrun(&over, true).unwrap().contains("exceeded by 50 MiB"));
        assert_eq!(overrun(&totals(200, 400), true), None);
        // Many processes, none of which has much.
        let mut many = totals(100, 200);
        many.processes = 20;
        assert_eq!(overrun(&many, false), None);
        many.shared_bytes = 50 << 20;
        assert!(overrun(&many, false).is_some());
    }

    #[test]
    fn the_summary_tells_of_all_processes_and_of_one() {
        let mut two = totals(100, 90);
        two.processes = 2;
        two.files_bytes = 7 << 20;
        let text = summary(&two, Duration::from_secs(1));
        assert!(text.starts_with(
            "tmem: memory: budget 100.0 MiB, peak 90.0 MiB (2 processes, the largest 45.0 MiB); \
             file pages 7.0 MiB, not counted; on servers"
        ));
        two.processes = 1;
        let text = summary(&two, Duration::from_secs(1));
        assert!(text.starts_with("tmem: memory: budget 100.0 MiB, peak 90.0 MiB; file"));
    }
}
