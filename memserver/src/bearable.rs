//! How many connections a server can bear on this machine.

use crate::serve::connection_limits::STRANGERS;
use rustix::process::{Resource, getrlimit};
use std::fs;
use tmem_config::{Memory, most_tasks};

/// Descriptors of a connection over RDMA: its pair of sockets, two channels of
/// events, and what the device's library takes.
const RDMA_DESCRIPTORS: u64 = 6;
/// Descriptors beside those of connections.
const OTHER_DESCRIPTORS: u64 = 32;
/// Memory of a connection that is idle: what its thread touches of its stack, its buffers,
/// and what the kernel has for thread and socket.
const IDLE_BYTES: u64 = 64 << 10;
/// The share of the memory that idle connections may take.
const MEMORY_SHARE: u64 = 16;
/// Mappings of a connection's thread, with some to spare.
const MAPPINGS: u64 = 4;
/// No more connections than this are allowed unless the user names a number, and no fewer.
const BOUNDS: core::ops::RangeInclusive<u64> = 64..=65_536;
/// Connections where the limits of the machine cannot be read.
const UNKNOWN: u64 = 1024;

/// What limits the connections of a server.
#[derive(Clone, Copy, Debug)]
struct Machine {
    /// Files that the process may open, at most.
    files: u64,
    /// Bytes of memory.
    memory: u64,
    /// Tasks that there may be.
    tasks: u64,
    /// Mappings of a process.
    mappings: u64,
}

impl Machine {
    fn here() -> Machine {
        let text = fs::read_to_string("/proc/sys/vm/max_map_count").unwrap_or_default();
        let own = getrlimit(Resource::Nproc).current.unwrap_or(u64::MAX);
        Machine {
            files: getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX),
            memory: Memory::get().map_or(UNKNOWN * IDLE_BYTES * MEMORY_SHARE, |m| m.most()),
            tasks: most_tasks().min(own),
            mappings: text.trim().parse().unwrap_or(UNKNOWN * MAPPINGS),
        }
    }

    /// The most connections. Half of the tasks are left to others.
    fn connections(&self, with_rdma: bool) -> u64 {
        let each = if with_rdma { RDMA_DESCRIPTORS } else { 1 };
        let files = self.files.saturating_sub(OTHER_DESCRIPTORS) / each;
        let most = [
            // Some are for connections that have not greeted.
            files.saturating_sub(STRANGERS as u64) / 9 * 8,
            self.memory / MEMORY_SHARE / IDLE_BYTES,
            self.tasks / 2,
            self.mappings / MAPPINGS,
        ];
        let least = most.into_iter().min().unwrap_or(UNKNOWN);
        least.clamp(*BOUNDS.start(), *BOUNDS.end())
    }
}

/// Returns how many connections a server can bear here: by open files, once the limit is
/// raised as far as it may be, by memory, tasks and mappings.
pub fn bearable_connections(with_rdma: bool) -> usize {
    Machine::here().connections(with_rdma) as usize
}

/// Returns the descriptors that a server with so many connections needs.
pub fn descriptors(connections: usize, with_rdma: bool) -> u64 {
    let each = if with_rdma { RDMA_DESCRIPTORS } else { 1 };
    (connections as u64)
        .saturating_mul(each)
        .saturating_add(OTHER_DESCRIPTORS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: Machine = Machine {
        files: 1 << 20,
        memory: 1 << 40,
        tasks: 1 << 22,
        mappings: 1 << 20,
    };

    #[test]
    fn each_limit_of_the_machine_limits_the_connections() {
        assert_eq!(LARGE.connections(false), 65_536);
        let few = [
            Machine {
                files: 4096,
                ..LARGE
            },
            Machine {
                memory: 3 << 30,
                ..LARGE
            },
            Machine {
                tasks: 5000,
                ..LARGE
            },
            Machine {
                mappings: 8000,
                ..LARGE
            },
        ];
        let most = few.map(|machine| machine.connections(false));
        assert_eq!(most, [3552, 3072, 2500, 2000]);
        assert!(few[0].connections(true) < 700);
        assert!(descriptors(3552, false) + 64 + 3552 / 8 <= 4096);
        let none = Machine { files: 20, ..LARGE };
        assert_eq!(none.connections(false), 64);
    }

    #[test]
    fn this_machine_bears_some_with_the_files_that_it_allows() {
        let most = bearable_connections(false);
        assert!((64..=65_536).contains(&most));
    }
}
