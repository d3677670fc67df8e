//! How many tasks, processes and threads, this process may start.

use crate::memory::{Controller, lowest};
use std::fs;

/// The limits of tasks in a cgroup.
const TASKS: Controller = Controller {
    name: "pids",
    one: &["pids.max"],
    two: &["pids.max"],
};

/// The kernel's limits of tasks for the whole machine.
const MACHINE: [&str; 2] = ["/proc/sys/kernel/threads-max", "/proc/sys/kernel/pid_max"];

/// Returns how many tasks there may be: by the cgroup of this process and those around it,
/// and on the machine. What cannot be read limits nothing.
pub fn most_tasks() -> u64 {
    let of = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let (cgroups, mounts) = (of("/proc/self/cgroup"), of("/proc/self/mountinfo"));
    let own = lowest(&TASKS, &cgroups, &mounts, |path| {
        fs::read_to_string(path).ok()
    });
    let machine = MACHINE
        .iter()
        .filter_map(|file| of(file).trim().parse().ok());
    machine.chain(own).min().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_limit_of_tasks_counts_and_not_that_of_memory() {
        let mounts = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let read = |path: &std::path::Path| {
            let text = match path.to_str()? {
                "/sys/fs/cgroup/a/b/pids.max" => "max\n",
                "/sys/fs/cgroup/a/pids.max" => "500\n",
                "/sys/fs/cgroup/a/memory.max" => "7\n",
                _ => return None,
            };
            Some(text.to_owned())
        };
        assert_eq!(lowest(&TASKS, "0::/a/b\n", mounts, read), Some(500));
    }

    #[test]
    fn this_machine_allows_some() {
        assert!((2..1 << 40).contains(&most_tasks()));
    }
}
