//! Checks a local budget against this machine's memory.

use std::fs;
use std::io;

use crate::Memory;

/// The smallest local budget, in bytes: below it a program would do little
/// but wait for pages.
pub const MIN_LOCAL: u64 = 16 << 20;

/// How much of a cgroup's limit is not for the budget: `HEADROOM` bytes, and one part in
/// `HEADROOM_SHARE`.
/// The budget is kept to within 5 % and 16 MiB, and `tmem run` and page tables are in
/// the cgroup as well.
const HEADROOM: u64 = 24 << 20;
const HEADROOM_SHARE: u64 = 16;

/// The budget for a process that asks for `local` and may have `memory`, and a warning if the
/// two do not fit.
pub fn check_local(local: u64, memory: &Memory) -> (u64, Option<String>) {
    if local < MIN_LOCAL {
        let text = format!(
            "a local budget of {local} bytes is too small; using the smallest, {} MiB",
            MIN_LOCAL >> 20
        );
        return (MIN_LOCAL, Some(text));
    }
    if let Some(limit) = memory.cgroup {
        let headroom = HEADROOM + limit / HEADROOM_SHARE;
        let most = limit.saturating_sub(headroom).max(MIN_LOCAL);
        if local > most {
            let text = format!(
                "the local budget ({} MiB) leaves too little of the {} MiB that the cgroup \
                 allows for what cannot be paged; using {} MiB",
                local >> 20,
                limit >> 20,
                most >> 20
            );
            return (most, Some(text));
        }
    }
    let ram = memory.ram;
    if ram != 0 && local > ram {
        let text = format!(
            "the local budget ({} MiB) is larger than the machine's RAM ({} MiB), which may be \
             used up before paging begins; give a budget below it, for instance 80%",
            local >> 20,
            ram >> 20
        );
        return (local, Some(text));
    }
    (local, None)
}

/// Bytes of RAM that this machine has.
///
/// # Errors
/// When `/proc/meminfo` cannot be read, or does not contain it.
pub fn ram_bytes() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    parse_meminfo(&text)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc/meminfo has no MemTotal"))
}

/// Bytes of RAM that this machine has left, those included that the kernel can take back.
pub fn available_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    field(&text, "MemAvailable:")
}

fn parse_meminfo(text: &str) -> Option<u64> {
    field(text, "MemTotal:")
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ram(ram: u64) -> Memory {
        Memory { ram, cgroup: None }
    }

    fn cgroup(limit: u64) -> Memory {
        Memory {
            ram: 1 << 40,
            cgroup: Some(limit),
        }
    }

    #[test]
    fn what_a_cgroup_leaves_no_room_for_is_lowered_and_said() {
        let (local, warning) = check_local(300 << 20, &cgroup(300 << 20));
        // 5 % and 16 MiB may be there beyond the budget.
        assert!(local / 20 * 21 + (16 << 20) < 300 << 20 && local > 200 << 20);
        assert!(
            warning
                .unwrap()
                .contains("(300 MiB) leaves too little of the 300 MiB")
        );
        assert_eq!(
            check_local(150 << 20, &cgroup(300 << 20)),
            (150 << 20, None)
        );
        assert_eq!(check_local(1 << 30, &cgroup(20 << 20)).0, MIN_LOCAL);
    }

    #[test]
    fn a_tiny_budget_is_raised_and_said() {
        let (local, warning) = check_local(1, &ram(1 << 30));
        assert_eq!(local, MIN_LOCAL);
        assert!(warning.unwrap().contains("too small"));
    }

    #[test]
    fn a_budget_beyond_ram_is_kept_and_said() {
        let (local, warning) = check_local(2 << 30, &ram(1 << 30));
        assert_eq!(local, 2 << 30);
        assert!(
            warning
                .unwrap()
                .contains("(2048 MiB) is larger than the machine's RAM (1024 MiB)")
        );
    }

    #[test]
    fn a_budget_that_fits_is_not_talked_about() {
        assert_eq!(check_local(MIN_LOCAL, &ram(1 << 30)), (MIN_LOCAL, None));
        assert_eq!(check_local(1 << 30, &ram(1 << 30)), (1 << 30, None));
    }

    #[test]
    fn ram_is_read() {
        assert_eq!(
            parse_meminfo("MemFree: 1 kB\nMemTotal:   24 kB\n"),
            Some(24 * 1024)
        );
        assert_eq!(parse_meminfo("nothing"), None);
        assert!(ram_bytes().unwrap() > MIN_LOCAL);
    }
}
