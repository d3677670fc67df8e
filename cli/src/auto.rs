//! `tmem run --local auto`: a thread that has the budget follow the machine.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use tmem_config::{Memory, Options, available_bytes};
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
    let spare = free(memory).saturating_sub(reserve(memory));
    spare.min(bounds.most).max(bounds.least)
}

fn bounds(options: &Options, memory: &Memory) -> Bounds {
    let most = memory.most();
    let least = options.local_min.map_or(0, |size| size.bytes(most));
    let least = least.max(tmem_config::MIN_LOCAL);
    let most = options.local_max.map_or(most, |size| size.bytes(most));
    Bounds {
        least,
        most: most.max(least),
    }
}

fn reserve(memory: &Memory) -> u64 {
    (memory.most() / RESERVE_PART).max(RESERVE_LEAST)
}

/// What the machine, or the cgroup, has left, in bytes.
fn free(memory: &Memory) -> u64 {
    let machine = available_bytes().unwrap_or(0);
    let cgroup = memory.cgroup.zip(cgroup_use());
    cgroup.map_or(machine, |(limit, used)| {
        machine.min(limit.saturating_sub(used))
    })
}

/// Memory that the cgroup uses and cannot give back, in bytes: without clean pages of files.
fn cgroup_use() -> Option<u64> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let folder = PathBuf::from("/sys/fs/cgroup").join(path);
    let number = |text: String| text.trim().parse::<u64>().ok();
    let all = number(fs::read_to_string(folder.join("memory.current")).ok()?)?;
    let stat = fs::read_to_string(folder.join("memory.stat")).ok()?;
    let file = stat
        .lines()
        .find_map(|l| l.strip_prefix("inactive_file "))?;
    Some(all.saturating_sub(file.parse().ok()?))
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
                let (budget, resident, remote) = stats.memory_now();
                let seen = Seen {
                    free: free(&memory),
                    reserve: reserve(&memory),
                    resident,
                    remote,
                    waited: share.min(1.0),
                };
                stats.limit(next(budget, &seen, &bounds));
            }
        });
}
