use super::*;
use crate::eviction::MAX_RUN;
use proptest::prelude::*;

fn any_use() -> impl Strategy<Value = MemoryUse> {
    let pages = (
        4000usize..100_000,
        0usize..60_000,
        0usize..5000,
        0usize..5000,
        0usize..3000,
    );
    let rates = (
        0usize..1000,
        0usize..=MAX_RUN as usize,
        512usize..8192,
        any::<bool>(),
        any::<bool>(),
    );
    (pages, rates).prop_map(
        |((resident, program, free, standby, writing), (demand, slack, pool, young, waiting))| {
            MemoryUse {
                resident,
                pool,
                populated: free + standby + writing,
                free,
                standby,
                evictable: program.min(resident),
                waiting,
                demand,
                slack,
                young,
            }
        },
    )
}

proptest! {
    #[test]
    fn watermarks_are_in_order(bytes in 16u64 << 20..1 << 44) {
        let b = Watermarks::new(bytes);
        let pages = bytes as usize / PAGE_SIZE;
        prop_assert!(b.adopt < b.evict && b.evict < pages && pages < b.throttle);
        prop_assert!(b.pool * 2 < pages && b.reserve < b.pool);
        // 5 % and 16 MiB above the budget are promised, and half of that is for memory that
        // is noticed late.
        prop_assert!(b.throttle <= pages + pages / 40 + 1024);
    }

    #[test]
    fn plans_can_be_carried_out_and_lead_to_the_evict_watermark(start in any_use()) {
        let b = Watermarks::new(256 << 20);
        let mut now = start;
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
            // Writes complete at once here.
            now.standby = now.standby - plan.reclaim + plan.evict;
            now.evictable -= plan.evict;
        }
        prop_assert_eq!(b.plan(&now), Plan::default());
        let most = match now.young {
            true => b.throttle,
            false => b.throttle.min(b.evict + now.slack),
        };
        prop_assert!(now.resident <= most || now.evictable <= b.floor);
    }

    // Threads wait then for as long as frames are free or on standby.
    #[test]
    fn frames_are_given_back_above_the_throttle_watermark_whatever_the_slack(
        now in any_use(), pages in 64usize..20_000, over in 1usize..200,
    ) {
        let b = Watermarks::new((pages * PAGE_SIZE) as u64);
        let now = MemoryUse { resident: b.throttle + over, ..now };
        let plan = b.plan(&now);
        prop_assert!(plan.release + plan.reclaim > 0 || now.free + now.standby == 0);
    }

    #[test]
    fn with_more_in_use_no_less_leaves(now in any_use(), more in 0usize..10_000) {
        let b = Watermarks::new(256 << 20);
        let less = b.plan(&now);
        let plan = b.plan(&MemoryUse { resident: now.resident + more, ..now });
        prop_assert!(plan.evict + plan.release >= less.evict.min(less.release) && plan.release >= less.release);
        prop_assert!(plan.evict >= less.evict || plan.release > less.release);
    }

    #[test]
    fn the_program_keeps_its_floor(now in any_use()) {
        let b = Watermarks::new(256 << 20);
        let plan = b.plan(&now);
        prop_assert!(plan.evict == 0 || now.evictable - plan.evict >= b.floor);
    }

    #[test]
    fn a_look_comes_before_the_fastest_program_is_at_the_watermark(
        bytes in 16u64 << 20..1 << 40, resident in 0usize..1 << 28,
    ) {
        let b = Watermarks::new(bytes);
        let us = b.quiet_us(resident);
        prop_assert!(LOOK_US.contains(&us));
        let filled = resident + (us * FILL_RATE) as usize / PAGE_SIZE;
        prop_assert!(us == *LOOK_US.start() || filled <= b.adopt);
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
fn looks_are_rare_far_from_the_budget_and_frequent_near_it() {
    let b = Watermarks::new(1 << 30);
    assert!(b.quiet_us(0) > 50_000);
    assert_eq!(b.quiet_us(b.adopt), 1_000);
}
