//! How much memory goes where, as arithmetic on numbers of pages.

use tmem_wire::PAGE_SIZE;

/// The most frames that rest with nothing in them, and the fewest.
const MAX_RESERVE: usize = 2048;
const MIN_RESERVE: usize = 64;
/// Pages evicted at one go, between two looks at the faults.
const BATCH: usize = 512;
/// Fewer than this are not evicted without need, while nothing is waited for.
const FEW: usize = 16;
/// Memory is adopted this long before the budget is used up, of a small budget
/// at most half of it: a program that fills huge pages has so much more before
/// it is looked at again.
const EARLY: usize = 3072;
const EARLIEST: usize = 4096;
/// No program fills memory faster than so many bytes in a microsecond.
const FILL_RATE: u64 = 16_000;

/// The limits that a budget gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermarks {
    /// Resident pages that the program and the pool may have.
    pub evict: usize,
    /// From so many resident pages on, memory is adopted.
    pub adopt: usize,
    /// Beyond so many, threads that ask for more memory wait.
    pub throttle: usize,
    /// Frames with memory that the pool has at most.
    pub pool: usize,
    /// Frames of these that have nothing in them, at most.
    pub reserve: usize,
    /// Pages that are left to the program even where shared memory takes up the budget:
    /// with fewer it would do little but wait.
    pub floor: usize,
}

/// What is there now, in pages.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryUse {
    /// Resident in the process as far as it counts, pool included.
    pub resident: usize,
    /// Frames with memory that there are to be.
    pub pool: usize,
    /// Frames with memory.
    pub populated: usize,
    /// Frames with memory and nothing in it.
    pub free: usize,
    /// Evicted pages that servers have.
    pub standby: usize,
    /// Pages that could be evicted.
    pub evictable: usize,
    /// An answer is waited for: what is done now takes no time of the program.
    pub waiting: bool,
    /// Frames with nothing in them that are used up in a millisecond.
    pub demand: usize,
    /// Fewer pages than this over the target are let be, so that more of them are
    /// given back at a time.
    pub slack: usize,
    /// What is there is shared with the process that this one was just forked from:
    /// to take it out is to copy it first, and many such processes end soon.
    pub young: bool,
}

/// What to do about it, in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Take so many out of the program.
    pub evict: usize,
    /// Give up so many pages on standby, so that their frames are free.
    pub reclaim: usize,
    /// Give the memory of so many free frames back to the kernel.
    pub release: usize,
}

/// Bytes of address space that the pool takes with a budget in bytes.
pub fn pool_bytes(budget: u64) -> u64 {
    (Watermarks::new(budget).frames() * PAGE_SIZE) as u64
}

/// Bytes of address space that packed copies may take with a budget in bytes.
pub fn copies_bytes(budget: u64) -> u64 {
    (crate::compressed_cache::largest(Watermarks::new(budget).evict) * PAGE_SIZE) as u64
}

impl Watermarks {
    /// The limits for a budget in bytes.
    pub fn new(bytes: u64) -> Watermarks {
        let pages = (bytes / PAGE_SIZE as u64) as usize;
        let pool = (pages / 8).clamp(512, 1 << 16);
        Watermarks {
            evict: pages - (pages / 64).min(512),
            adopt: pages - (pages / 16).clamp(EARLY.min(pages / 2), EARLIEST),
            throttle: pages + (pages / 40).min(1024),
            pool,
            reserve: (pool / 4).min(MAX_RESERVE),
            floor: pages / 4,
        }
    }

    /// Frames that the pool needs in all: those with memory, and holes to move
    /// pages into while the others are being written.
    pub fn frames(&self) -> usize {
        self.pool * 2 + 8 * BATCH
    }

    /// What to do now.
    pub fn plan(&self, now: &MemoryUse) -> Plan {
        let target = if now.young { self.throttle } else { self.evict };
        let over = now.resident.saturating_sub(target);
        let over = if over < now.slack { 0 } else { over };
        // Frames that can have memory without anybody giving his up: there is such
        // room where a program has given up much, or its share of a budget grew.
        let room = target.saturating_sub(now.resident);
        // Memory comes down by frames given back; they come from standby.
        let release = over.min(now.free);
        let free = now.free - release + room;
        // So many that runs of neighbours are found; what rests empty beyond that is
        // missing elsewhere.
        let reserve = (now.demand * 4)
            .clamp(MIN_RESERVE, self.reserve)
            .min(now.pool / 2);
        let short = reserve.saturating_sub(free) + (over - release);
        let reclaim = short.min(now.standby);
        let kept = now.populated - release + room;
        let pool = if now.young { reserve } else { now.pool };
        let short = pool.saturating_sub(kept);
        // A few at a time are cheaper than one by one.
        let few = if now.waiting { 1 } else { FEW };
        let short = if short < few && kept > reserve {
            0
        } else {
            short
        };
        let want = short.max(over.saturating_sub(release));
        let evict = want
            .min(BATCH)
            .min(now.evictable.saturating_sub(self.floor));
        Plan {
            evict,
            reclaim,
            release,
        }
    }

    /// More than so many pages are never resident where all can be paged: 5 % and 16 MiB
    /// more than the budget.
    pub fn most(&self) -> usize {
        let pages = self.evict + self.evict / 63;
        pages + pages / 20 + 4096
    }

    /// How long nothing can happen while `resident` pages are there, in
    /// microseconds.
    pub fn quiet_us(&self, resident: usize) -> u64 {
        let left = self.adopt.saturating_sub(resident) as u64 * PAGE_SIZE as u64;
        (left / FILL_RATE).clamp(1_000, 100_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn limits_are_in_order(bytes in 16u64 << 20..1 << 44) {
            let b = Watermarks::new(bytes);
            let pages = bytes as usize / PAGE_SIZE;
            prop_assert!(b.adopt < b.evict && b.evict < pages && pages < b.throttle);
            prop_assert!(b.pool * 2 < pages && b.reserve < b.pool);
            // 5 % and 16 MiB are promised; half of that is for what comes late.
            prop_assert!(b.throttle <= pages + pages / 40 + 1024);
        }

        #[test]
        fn plans_can_be_carried_out_and_lead_to_the_target(
            resident in 4000usize..100_000, program in 0usize..60_000, free in 0usize..5000,
            standby in 0usize..5000, writing in 0usize..3000, demand in 0usize..1000,
            young in proptest::bool::ANY, slack in 0usize..=128, pool in 512usize..8192,
        ) {
            let b = Watermarks::new(256 << 20);
            let mut now = MemoryUse {
                resident, pool, populated: free + standby + writing, free, standby,
                evictable: program.min(resident), waiting: false, demand, young, slack,
            };
            for _ in 0..10_000 {
                let plan = b.plan(&now);
                prop_assert!(plan.release <= now.free && plan.reclaim <= now.standby);
                prop_assert!(plan.evict <= now.evictable);
                if plan == Plan::default() {
                    break;
                }
                now.resident = now.resident.saturating_sub(plan.release);
                now.free = now.free - plan.release + plan.reclaim;
                now.populated = now.populated - plan.release + plan.evict;
                // Writes end at once here.
                now.standby = now.standby - plan.reclaim + plan.evict;
                now.evictable -= plan.evict;
            }
            prop_assert_eq!(b.plan(&now), Plan::default());
            let most = if young { b.throttle } else { b.evict } + slack;
            prop_assert!(now.resident <= most || now.evictable <= b.floor);
        }
    }

    #[test]
    fn a_process_that_was_just_forked_fills_no_pool_ahead_of_need() {
        let b = Watermarks::new(256 << 20);
        let now = MemoryUse {
            resident: b.evict + 100,
            evictable: 50_000,
            pool: b.pool,
            young: true,
            ..MemoryUse::default()
        };
        assert_eq!(b.plan(&now).evict, 0);
        let now = MemoryUse {
            resident: b.throttle + 100,
            ..now
        };
        assert!(b.plan(&now).evict > 0);
    }

    #[test]
    fn sleep_is_long_far_from_the_budget_and_short_near_it() {
        let b = Watermarks::new(1 << 30);
        assert!(b.quiet_us(0) > 50_000);
        assert_eq!(b.quiet_us(b.adopt), 1_000);
    }
}
