//! `tmem run --local auto`: a thread that has the budget follow the machine.

use std::thread;
use std::time::{Duration, Instant};

use tmem_config::{Memory, Options, available_bytes, check_local};
use tmem_policy::auto_budget::{Bounds, Seen, next};

use crate::stats::Stats;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);

/// What is left for others: a part of the memory, and no less than this.
const RESERVE_PART: u64 = 20;
const RESERVE_LEAST: u64 = 64 << 20;

/// The budget to begin with, in bytes: what is free, within the bounds.
pub(crate) fn first(options: &Options, memory: &Memory) -> u64 {
    let bounds = bounds(options, memory);
    let spare = free().saturating_sub(reserve(memory));
    spare.min(bounds.most).max(bounds.least)
}

fn bounds(options: &Options, memory: &Memory) -> Bounds {
    let most = memory.most();
    let least = options.local_min.map_or(0, |size| size.bytes(most));
    let least = least.max(tmem_config::MIN_LOCAL);
    let most = options.local_max.map_or(most, |size| size.bytes(most));
    // Not more than a budget may be that users give.
    let (most, _) = check_local(most, memory);
    Bounds {
        least,
        most: most.max(least),
    }
}

fn reserve(memory: &Memory) -> u64 {
    (memory.most() / RESERVE_PART).max(RESERVE_LEAST)
}

/// What the machine, or the cgroup, has left, in bytes.
fn free() -> u64 {
    let machine = available_bytes().unwrap_or(0);
    Memory::left_by_cgroups().map_or(machine, |left| machine.min(left))
}

/// Has the budget of all processes follow the machine, as long as this process lives.
pub(crate) fn follow(stats: Stats, options: &Options, memory: Memory) {
    let bounds = bounds(options, &memory);
    // Without a thread the first budget stays.
    let _ = thread::Builder::new()
        .name("auto".to_owned())
        .spawn(move || {
            let mut before = (Instant::now(), 0);
            loop {
                thread::sleep(LOOK);
                let waited = stats.waited_ns();
                let elapsed = before.0.elapsed().as_nanos().max(1) as f64;
                let share = waited.saturating_sub(before.1) as f64 / elapsed;
                before = (Instant::now(), waited);
                let now = stats.present();
                let seen = Seen {
                    free: free(),
                    reserve: reserve(&memory),
                    resident: now.resident,
                    remote: now.remote,
                    waited: share.min(1.0),
                };
                stats.limit(next(now.budget, &seen, &bounds));
            }
        });
}
