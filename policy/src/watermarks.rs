//! Watermarks: decide when memory is adopted, when pages leave, when threads that ask for
//! memory wait, and how the local budget is divided between program, pool and free reserve.
//!
//! They are like the zone watermarks of Linux (`mm/vmscan.c`): background reclaim begins at
//! one, direct throttling at another. All values are pages.
//!
//! Invariants, tested below:
//! - adopt < evict < budget < throttle, and throttle is at most 2.5 % and 4 MiB over;
//! - every [`Plan`] can be carried out with the memory that there is;
//! - plans lead to the evict watermark and then end, unless nothing more can leave;
//! - the more memory is in use, the more a plan evicts, or as much.

use tmem_wire::PAGE_SIZE;

/// The most and the fewest frames of the free reserve.
const MAX_RESERVE: usize = 2048;
const MIN_RESERVE: usize = 64;
/// The free reserve covers the demand of this many milliseconds.
const RESERVE_MS: usize = 4;
/// The most pages that are evicted before faults are looked at again.
const BATCH: usize = 512;
/// While no answer is awaited, the pool is not filled by fewer evictions than this.
const FEW: usize = 16;
/// Memory is adopted when this many pages of the budget are left, or half of a small
/// budget. A program that fills huge pages fills as much between two samples.
const ADOPT_LEAST: usize = 3072;
const ADOPT_MOST: usize = 4096;
/// The highest rate at which a program fills memory, in bytes per microsecond.
const FILL_RATE: u64 = 16_000;
/// Bounds of the time between two samples of a growing program, in microseconds.
const LOOK_US: core::ops::RangeInclusive<u64> = 1_000..=100_000;

/// The watermarks of a budget, in pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    /// Evict watermark: pages leave while more than this many are resident, in program and
    /// pool together.
    pub evict: usize,
    /// Adopt watermark: memory is adopted once this many pages are resident.
    pub adopt: usize,
    /// Throttle watermark: threads that ask for more memory wait while more are resident.
    pub throttle: usize,
    /// The most frames of the pool that have memory.
    pub pool: usize,
    /// The most frames that are kept free.
    pub reserve: usize,
    /// Pages that the program keeps even if shared memory takes up the budget. With fewer
    /// it would do little but wait.
    pub floor: usize,
}

/// How memory is used now, in pages.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryUse {
    /// Resident pages of the process that count against the budget, pool included.
    pub resident: usize,
    /// Frames with memory that the pool should have.
    pub pool: usize,
    /// Frames with memory.
    pub populated: usize,
    /// Free frames with memory.
    pub free: usize,
    /// Pages on standby that servers have.
    pub standby: usize,
    /// Pages that could be evicted.
    pub evictable: usize,
    /// A thread waits for an answer, so the engine's work costs the program no time.
    pub waiting: bool,
    /// Free frames used up per millisecond.
    pub demand: usize,
    /// The evict watermark may be exceeded by up to this, so that more frames are given
    /// back at a time. The throttle watermark may not.
    pub slack: usize,
    /// The process was just forked and shares its pages. Evicting a shared page means
    /// copying it first, and many such processes end soon.
    pub young: bool,
}

/// What to do, in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Pages to evict.
    pub evict: usize,
    /// Pages on standby whose frames are to be freed.
    pub reclaim: usize,
    /// Free frames whose memory goes back to the kernel.
    pub release: usize,
}

/// Returns the pool's address space in bytes, for a budget in bytes.
pub fn pool_bytes(budget: u64) -> u64 {
    (Watermarks::new(budget).frames() * PAGE_SIZE) as u64
}

/// Returns the most address space of the compressed cache in bytes, for a budget in bytes.
pub fn copies_bytes(budget: u64) -> u64 {
    (crate::compressed_cache::largest(Watermarks::new(budget).evict) * PAGE_SIZE) as u64
}

impl Watermarks {
    /// Computes the watermarks of a budget in bytes.
    pub fn new(bytes: u64) -> Watermarks {
        let pages = (bytes / PAGE_SIZE as u64) as usize;
        let pool = (pages / 8).clamp(512, 1 << 16);
        Watermarks {
            evict: pages - (pages / 64).min(512),
            adopt: pages - (pages / 16).clamp(ADOPT_LEAST.min(pages / 2), ADOPT_MOST),
            throttle: pages + (pages / 40).min(1024),
            pool,
            reserve: (pool / 4).min(MAX_RESERVE),
            floor: pages / 4,
        }
    }

    /// Returns the number of all frames of the pool: those with memory, and unbacked ones
    /// to move pages into while the others are being written.
    pub fn frames(&self) -> usize {
        self.pool * 2 + 8 * BATCH
    }

    /// Decides what to do now.
    pub fn plan(&self, now: &MemoryUse) -> Plan {
        let target = if now.young { self.throttle } else { self.evict };
        let over = now.resident.saturating_sub(target);
        // Threads wait for memory above the throttle watermark: nothing may stay there.
        let stays = over < now.slack && now.resident <= self.throttle;
        let over = if stays { 0 } else { over };
        // Frames that can get memory without taking any from the program, because it has
        // freed memory, or its share of the budget grew.
        let room = target.saturating_sub(now.resident);
        // Giving frames back lowers resident memory. They come from standby.
        let release = over.min(now.free);
        let still_over = over - release;
        let short = self
            .free_reserve(now)
            .saturating_sub(now.free - release + room);
        Plan {
            evict: self.evictions(now, still_over, release, room),
            reclaim: (short + still_over).min(now.standby),
            release,
        }
    }

    /// Returns how many frames should be free: enough to find runs of neighbours. More
    /// would be missing elsewhere.
    fn free_reserve(&self, now: &MemoryUse) -> usize {
        let wanted = now.demand.saturating_mul(RESERVE_MS);
        wanted.clamp(MIN_RESERVE, self.reserve).min(now.pool / 2)
    }

    /// Returns how many pages to evict, if resident memory is `over` pages too high even
    /// after `release` frames were given back, or `room` pages below the limit.
    fn evictions(&self, now: &MemoryUse, over: usize, release: usize, room: usize) -> usize {
        let reserve = self.free_reserve(now);
        let frames = now.populated - release + room;
        let pool = if now.young { reserve } else { now.pool };
        let short = pool.saturating_sub(frames);
        // Several evictions at a time are cheaper than one by one.
        let few = if now.waiting { 1 } else { FEW };
        let short = match short < few && frames > reserve {
            true => 0,
            false => short,
        };
        let most = now.evictable.saturating_sub(self.floor);
        short.max(over).min(BATCH).min(most)
    }

    /// Returns the most pages that are ever resident if all memory can be paged: 5 % and 16
    /// MiB above the budget.
    pub fn most(&self) -> usize {
        let pages = self.evict + self.evict / 63;
        pages + pages / 20 + 4096
    }

    /// Returns how long a program with `resident` pages needs at least to reach the adopt
    /// watermark, in microseconds.
    pub fn quiet_us(&self, resident: usize) -> u64 {
        let left = self.adopt.saturating_sub(resident) as u64 * PAGE_SIZE as u64;
        (left / FILL_RATE).clamp(*LOOK_US.start(), *LOOK_US.end())
    }
}

#[cfg(test)]
mod tests;
