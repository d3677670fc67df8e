//! Limits of the machine and of this session that bear on paging.

use std::fs;

use tmem_config::Memory;

use super::finding::{Finding, State};

/// The fewest mappings that the kernel should allow: adopted memory is split at protections,
/// and programs with large heaps have many.
const MAPPINGS: u64 = 65_530;

/// Looks at them.
pub(crate) fn look() -> Vec<Finding> {
    let number = |file: &str| -> Option<u64> { fs::read_to_string(file).ok()?.trim().parse().ok() };
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut found = Vec::new();
    match Memory::get() {
        Ok(memory) => found.push(machine(&memory)),
        Err(error) => found.push(Finding::new(
            "memory",
            State::Warning,
            format!("/proc/meminfo cannot be read: {error}"),
        )),
    }
    found.push(overcommit(number("/proc/sys/vm/overcommit_memory")));
    found.push(locked(limit(&limits, "Max locked memory")));
    found.extend(address_space(limit(&limits, "Max address space")));
    found.extend(mappings(number("/proc/sys/vm/max_map_count")));
    found.push(seccomp(&status));
    found
}

/// RAM, and what a cgroup leaves of it.
fn machine(memory: &Memory) -> Finding {
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    let budget = memory.most() / 10 * 8;
    let text = match memory.cgroup {
        Some(limit) => format!(
            "{:.1} GiB of RAM, of which the cgroup allows {:.1} GiB; --local of up to {:.1} GiB \
             is sensible",
            gib(memory.ram),
            gib(limit),
            gib(budget)
        ),
        None => format!(
            "{:.1} GiB of RAM and no limit by a cgroup; --local of up to {:.1} GiB is sensible",
            gib(memory.ram),
            gib(budget)
        ),
    };
    Finding::new("memory", State::Ok, text)
}

fn overcommit(mode: Option<u64>) -> Finding {
    const ABOUT: &str = "overcommit";
    match mode {
        Some(2) => Finding::new(
            ABOUT,
            State::Problem,
            "vm.overcommit_memory is 2: the kernel refuses a program more memory than the \
             machine has, wherever its pages live",
        )
        .remedy("let the kernel judge by itself, now and after the next start")
        .commands([
            "sysctl -w vm.overcommit_memory=0",
            "echo vm.overcommit_memory=0 > /etc/sysctl.d/61-tmem-overcommit.conf",
        ]),
        Some(mode) => Finding::new(
            ABOUT,
            State::Ok,
            format!("vm.overcommit_memory is {mode}: programs may have more memory than RAM"),
        ),
        None => Finding::new(ABOUT, State::Note, "vm.overcommit_memory cannot be read"),
    }
}

/// A limit in `/proc/self/limits`; none where it is unlimited or not there.
fn limit(limits: &str, name: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn locked(bytes: Option<u64>) -> Finding {
    const ABOUT: &str = "locked memory";
    /// The agent registers some buffers for each server.
    const ENOUGH: u64 = 64 << 20;
    match bytes {
        Some(bytes) if bytes < ENOUGH => Finding::new(
            ABOUT,
            State::Note,
            format!(
                "{} KiB may be locked (ulimit -l): enough for TCP, too little for RDMA",
                bytes >> 10
            ),
        )
        .remedy("for RDMA, allow it in /etc/security/limits.d, and log in again")
        .commands(["echo '* - memlock unlimited' > /etc/security/limits.d/tmem.conf"]),
        Some(bytes) => Finding::new(
            ABOUT,
            State::Ok,
            format!("{} MiB may be locked", bytes >> 20),
        ),
        None => Finding::new(ABOUT, State::Ok, "no limit"),
    }
}

fn address_space(bytes: Option<u64>) -> Option<Finding> {
    let bytes = bytes?;
    let text = format!(
        "limited to {} MiB (ulimit -v): memory on servers counts as well",
        bytes >> 20
    );
    let finding = Finding::new("address space", State::Warning, text);
    Some(finding.remedy("lift it in the shell that starts the program: ulimit -v unlimited"))
}

fn mappings(most: Option<u64>) -> Option<Finding> {
    let most = most.filter(|most| *most < MAPPINGS)?;
    let text = format!("vm.max_map_count is {most}, fewer than usual: programs may run into it");
    let finding = Finding::new("mappings", State::Warning, text);
    Some(
        finding
            .remedy("raise it to what kernels have by default")
            .commands([format!("sysctl -w vm.max_map_count={MAPPINGS}")]),
    )
}

fn seccomp(status: &str) -> Finding {
    const ABOUT: &str = "seccomp";
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("Seccomp:"));
    match line.map(str::trim) {
        Some("2") => Finding::new(
            ABOUT,
            State::Note,
            "a filter is in place, as in containers; what it refuses shows above",
        ),
        Some("0") | None => Finding::new(ABOUT, State::Ok, "no filter"),
        Some(_) => Finding::new(ABOUT, State::Problem, "strict mode: nothing can be opened"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read() {
        let text = "Limit  Soft Limit  Hard Limit  Units\n\
                    Max locked memory         8388608              8388608              bytes\n\
                    Max address space         unlimited            unlimited            bytes\n";
        assert_eq!(limit(text, "Max locked memory"), Some(8 << 20));
        assert_eq!(limit(text, "Max address space"), None);
        assert_eq!(locked(Some(8 << 20)).state, State::Note);
        assert_eq!(locked(None).state, State::Ok);
    }

    #[test]
    fn what_refuses_memory_is_a_problem() {
        assert_eq!(overcommit(Some(2)).state, State::Problem);
        assert_eq!(overcommit(Some(0)).state, State::Ok);
        assert!(address_space(Some(1 << 30)).is_some() && address_space(None).is_none());
        assert!(mappings(Some(100)).is_some() && mappings(Some(1 << 20)).is_none());
    }

    #[test]
    fn a_filter_is_seen_and_a_cgroup_is_told() {
        assert_eq!(seccomp("Seccomp:\t2\n").state, State::Note);
        assert_eq!(seccomp("Seccomp:\t0\n").state, State::Ok);
        let memory = Memory {
            ram: 8 << 30,
            cgroup: Some(2 << 30),
        };
        assert!(machine(&memory).text.contains("the cgroup allows 2.0 GiB"));
    }
}
