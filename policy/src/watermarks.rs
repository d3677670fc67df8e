//! Watermarks: decide when memory is adopted, when pages leave, when threads that ask for
//! memory wait, and how the local budget is divided between program, pool and free reserve.
//!
//! They play the part of the zone watermarks of Linux (`mm/vmscan.c`): background reclaim
//! begins at one, direct throttling at another. All values are pages.
//!
//! Invariants, tested below:
//! - adopt < evict < budget < throttle, and throttle is at most 2.5 % and 4 MiB over;
//! - every [`Plan`] can be carried out with what there is;
//! - plans that are carried out lead to the evict watermark and then end, unless nothing
//!   more can leave;
//! - with more memory in use a plan never evicts less.

use tmem_wire::PAGE_SIZE;

/// The most and the fewest frames of the free reserve.
const MAX_RESERVE: usize = 2048;
const MIN_RESERVE: usize = 64;
/// The free reserve holds the demand of this many milliseconds.
const RESERVE_MS: usize = 4;
/// Pages evicted at one go, between two looks at the faults.
const BATCH: usize = 512;
/// Fewer pages than this are not evicted to fill the pool while no answer is awaited.
const FEW: usize = 16;
/// Memory is adopted when this many pages are left of the budget; of a small budget when half
/// of it is left. A program that fills huge pages gets that much between two looks.
const ADOPT_LEAST: usize = 3072;
const ADOPT_MOST: usize = 4096;
/// No program fills memory faster than this, in bytes per microsecond.
const FILL_RATE: u64 = 16_000;
/// Between these, in microseconds, lies the time between two looks at a growing program.
const LOOK_US: core::ops::RangeInclusive<u64> = 1_000..=100_000;

/// The watermarks of a budget, in pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    /// Evict watermark: pages leave while more than this are resident, program and pool
    /// together.
    pub evict: usize,
    /// Adopt watermark: memory is adopted once this many pages are resident.
    pub adopt: usize,
    /// Throttle watermark: threads that ask for more memory wait while more are resident.
    pub throttle: usize,
    /// The most frames with memory that the pool has.
    pub pool: usize,
    /// The most of these that are free.
    pub reserve: usize,
    /// Pages that the program keeps even where shared memory takes up the budget. With fewer
    /// it would do little but wait.
    pub floor: usize,
}

/// How memory is used now, in pages.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryUse {
    /// Resident in the process as far as it counts, pool included.
    pub resident: usize,
    /// Frames with memory that the pool is to have.
    pub pool: usize,
    /// Frames with memory.
    pub populated: usize,
    /// Free frames with memory.
    pub free: usize,
    /// Pages on standby that servers have.
    pub standby: usize,
    /// Pages that could be evicted.
    pub evictable: usize,
    /// A thread waits for an answer: what the engine does now takes no time of the program.
    pub waiting: bool,
    /// Free frames that are used up in a millisecond.
    pub demand: usize,
    /// The evict watermark may be exceeded by less than this, so that more frames are given
    /// back at a time.
    pub slack: usize,
    /// The process was just forked and shares its pages: to evict one is to copy it first, and
    /// many such processes end soon.
    pub young: bool,
}

/// What to do, in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Pages to take out of the program.
    pub evict: usize,
    /// Pages on standby to drop, so that their frames are free.
    pub reclaim: usize,
    /// Free frames whose memory goes back to the kernel.
    pub release: usize,
}

/// Bytes of address space that the pool takes, for a budget in bytes.
pub fn pool_bytes(budget: u64) -> u64 {
    (Watermarks::new(budget).frames() * PAGE_SIZE) as u64
}

/// Bytes of address space that the compressed cache may take, for a budget in bytes.
pub fn copies_bytes(budget: u64) -> u64 {
    (crate::compressed_cache::largest(Watermarks::new(budget).evict) * PAGE_SIZE) as u64
}

impl Watermarks {
    /// The watermarks of a budget in bytes.
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

    /// Frames of the pool in all: those with memory, and empty ones to move pages into while
    /// the others are being written.
    pub fn frames(&self) -> usize {
        self.pool * 2 + 8 * BATCH
    }

    /// Decides what to do now.
    pub fn plan(&self, now: &MemoryUse) -> Plan {
        let target = if now.young { self.throttle } else { self.evict };
        let over = now.resident.saturating_sub(target);
        let over = if over < now.slack { 0 } else { over };
        // Frames that can get memory without taking any from the program: there is room where
        // the program gave much back, or its share of the budget grew.
        let room = target.saturating_sub(now.resident);
        // Memory goes down as frames are given back; they come from standby.
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

    /// Free frames that there are to be: enough that runs of neighbours are found. More
    /// would be missing elsewhere.
    fn free_reserve(&self, now: &MemoryUse) -> usize {
        let wanted = now.demand.saturating_mul(RESERVE_MS);
        wanted.clamp(MIN_RESERVE, self.reserve).min(now.pool / 2)
    }

    /// Pages to evict, where `over` pages are too many even after `release` frames were given
    /// back, or `room` more could be resident.
    fn evictions(&self, now: &MemoryUse, over: usize, release: usize, room: usize) -> usize {
        let reserve = self.free_reserve(now);
        let frames = now.populated - release + room;
        let pool = if now.young { reserve } else { now.pool };
        let short = pool.saturating_sub(frames);
        // Some at a time are cheaper than one by one.
        let few = if now.waiting { 1 } else { FEW };
        let short = match short < few && frames > reserve {
            true => 0,
            false => short,
        };
        let most = now.evictable.saturating_sub(self.floor);
        short.max(over).min(BATCH).min(most)
    }

    /// The most pages that are ever resident where all memory can be paged: 5 % and 16 MiB
    /// more than the budget.
    pub fn most(&self) -> usize {
        let pages = self.evict + self.evict / 63;
        pages + pages / 20 + 4096
    }

    /// How long a program with `resident` pages needs to reach the adopt watermark, in
    /// microseconds.
    pub fn quiet_us(&self, resident: usize) -> u64 {
        let left = self.adopt.saturating_sub(resident) as u64 * PAGE_SIZE as u64;
        (left / FILL_RATE).clamp(*LOOK_US.start(), *LOOK_US.end())
    }
}

#[cfg(test)]
mod tests;
