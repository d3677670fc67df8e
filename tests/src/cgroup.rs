//! A memory limit by cgroup, of either version.

use crate::software;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A memory cgroup; removed when dropped.
pub struct Cgroup {
    path: PathBuf,
    unified: bool,
}

impl Cgroup {
    /// A cgroup that may use `bytes` of memory and no swap, or none when this
    /// machine or user cannot have one.
    pub fn with_limit(bytes: u64) -> Option<Cgroup> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !software::is_root() {
            return None;
        }
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("tmem-test-{}-{count}", std::process::id());
        let legacy = Path::new("/sys/fs/cgroup/memory");
        let unified = !legacy.is_dir();
        let parent = if unified {
            Path::new("/sys/fs/cgroup")
        } else {
            legacy
        };
        let path = parent.join(name);
        fs::create_dir(&path).ok()?;
        let cgroup = Cgroup { path, unified };
        let limit = if unified {
            "memory.max"
        } else {
            "memory.limit_in_bytes"
        };
        fs::write(cgroup.path.join(limit), bytes.to_string()).ok()?;
        // Where swap is not accounted there is nothing to forbid.
        let _ = match unified {
            true => fs::write(cgroup.path.join("memory.swap.max"), "0"),
            false => fs::write(
                cgroup.path.join("memory.memsw.limit_in_bytes"),
                bytes.to_string(),
            ),
        };
        Some(cgroup)
    }

    /// The file that takes processes in.
    pub(crate) fn members(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }

    /// Processes killed because memory ran out.
    pub fn oom_kills(&self) -> u64 {
        let file = if self.unified {
            "memory.events"
        } else {
            "memory.oom_control"
        };
        let text = fs::read_to_string(self.path.join(file)).expect("a cgroup has counters");
        text.lines()
            .find_map(|line| line.strip_prefix("oom_kill "))
            .and_then(|n| n.trim().parse().ok())
            .unwrap_or_else(|| panic!("no oom_kill in {text}"))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The last member may still be on its way out.
        for _ in 0..200 {
            if fs::remove_dir(&self.path).is_ok() || !self.path.exists() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
