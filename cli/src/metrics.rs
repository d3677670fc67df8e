//! `tmem run --metrics`: the figures of its programs for Prometheus.

use std::fmt;

use tmem_metrics::{Figures, Histogram, Source, Unit};
use tmem_pager::stats::Totals;
use tmem_wire::PAGE_SIZE;

use crate::stats::{Present, Stats};

/// Bounds of the buckets of times, as powers of two of nanoseconds: 1 microsecond to 8.6
/// seconds. The statistics have bounds there too.
const BOUNDS: std::ops::RangeInclusive<u32> = 10..=33;

/// The processes under this `tmem run`, together.
pub(crate) struct Programs {
    /// Their statistics.
    pub(crate) stats: Stats,
    /// What the first one is called.
    pub(crate) name: String,
}

impl Source for Programs {
    fn figures(&self, to: &mut Figures<'_>) -> fmt::Result {
        let totals = self.stats.totals();
        present(to, &self.stats.present())?;
        pages(to, &totals)?;
        events(to, &totals)?;
        times(to, &totals)?;
        to.info(
            "tmem_program_build",
            "The release of tmem, and the program that it runs",
            &[
                ("version", env!("CARGO_PKG_VERSION")),
                ("program", &self.name),
            ],
        )
    }

    fn readiness(&self) -> Result<(), &'static str> {
        match self.stats.present().processes {
            0 => Err("no process is paged"),
            _ => Ok(()),
        }
    }
}

fn bytes(pages: u64) -> u64 {
    pages.saturating_mul(PAGE_SIZE as u64)
}

/// What there is at this moment.
fn present(to: &mut Figures<'_>, now: &Present) -> fmt::Result {
    let size = Some(&Unit::Bytes);
    for (name, help, unit, value) in [
        (
            "processes",
            "Processes that live and have an engine",
            None,
            now.processes,
        ),
        (
            "budget",
            "Memory that may be in local RAM",
            size,
            now.budget,
        ),
        (
            "resident",
            "Memory in local RAM that counts against the budget",
            size,
            now.resident,
        ),
        (
            "remote",
            "Memory whose only copy is on servers",
            size,
            now.remote,
        ),
        (
            "degraded",
            "Memory with fewer copies on servers than it is to have",
            size,
            bytes(now.degraded_pages),
        ),
        (
            "away_servers",
            "Servers that are away and waited for, once for each process that waits",
            None,
            now.away_servers,
        ),
    ] {
        to.gauge(&format!("tmem_program_{name}"), help, unit, value)?;
    }
    // It is not known before a program has been short of memory for a while.
    if let Some(working_set) = now.working_set {
        to.gauge(
            "tmem_program_working_set",
            "Memory that is used again and again, as estimated",
            size,
            working_set,
        )?;
    }
    Ok(())
}

/// Pages that went somewhere, in bytes.
fn pages(to: &mut Figures<'_>, totals: &Totals) -> fmt::Result {
    for (name, help, pages) in [
        ("read", "Memory read from servers", totals.fetched_pages),
        (
            "read_ahead",
            "The part of it that was read before it was asked for",
            totals.prefetched_pages,
        ),
        ("written", "Memory sent to servers", totals.written_pages),
        ("evicted", "Memory taken out", totals.evicted_pages),
        (
            "repaired",
            "Memory copied to another server, since one that had it was lost",
            totals.repaired_pages,
        ),
        (
            "lost",
            "Memory that no server could give back",
            totals.lost_pages,
        ),
    ] {
        let name = format!("tmem_program_{name}");
        to.counter(&name, help, Some(&Unit::Bytes), bytes(pages))?;
    }
    Ok(())
}

fn events(to: &mut Figures<'_>, totals: &Totals) -> fmt::Result {
    for (name, help, value) in [
        ("faults", "Page faults that engines served", totals.faults),
        (
            "standby_refaults",
            "Faults on pages that had not left this machine yet",
            totals.standby_refaults,
        ),
        (
            "compressed_hits",
            "Faults that the compressed cache served",
            totals.compressed_hits,
        ),
        (
            "zero_fills",
            "Pages of zeros given for memory that was not used before",
            totals.zero_fills,
        ),
        (
            "servers_full",
            "How often pages had to stay because every server was full",
            totals.servers_full,
        ),
        (
            "failed_over_reads",
            "Pages asked of another server, since the first did not give them",
            totals.failed_over_pages,
        ),
        (
            "reconnects",
            "Connections to servers that broke and were made again",
            totals.reconnects,
        ),
        (
            "started_processes",
            "Processes that were started with a budget",
            totals.processes,
        ),
    ] {
        to.counter(&format!("tmem_program_{name}"), help, None, value)?;
    }
    Ok(())
}

fn times(to: &mut Figures<'_>, totals: &Totals) -> fmt::Result {
    for (name, help, ns) in [
        (
            "waited_some",
            "Time in which a thread waited for a page; those of several processes add up",
            totals.waited_some_ns,
        ),
        (
            "waited_full",
            "The part of it in which nothing of the process ran",
            totals.waited_full_ns,
        ),
        ("engine_cpu", "CPU time of engines", totals.pager_cpu_ns),
    ] {
        let name = format!("tmem_program_{name}");
        to.counter(&name, help, Some(&Unit::Seconds), ns as f64 / 1e9)?;
    }
    to.histogram(
        "tmem_program_fault_duration",
        "Time from a fault until its thread goes on; the sum is exact to 3 %",
        &[faults(totals)],
    )
}

/// How long faults took.
fn faults(totals: &Totals) -> Histogram {
    let bounds = BOUNDS.map(|power| 1u64 << power);
    let mut buckets: Vec<(u64, u64)> = bounds.map(|bound| (bound, 0)).collect();
    let (mut beyond, mut sum) = (0, 0.0);
    for (times, count) in totals.fault_times() {
        let middle = (times.start as f64 + times.end as f64) / 2.0;
        sum += middle / 1e9 * count as f64;
        match buckets.iter_mut().find(|(bound, _)| times.end <= *bound) {
            Some((_, sum)) => *sum += count,
            None => beyond += count,
        }
    }
    let seconds = |(bound, count): (u64, u64)| (bound as f64 / 1e9, count);
    let buckets = buckets.into_iter().map(seconds);
    Histogram {
        label: None,
        buckets: buckets.chain([(f64::INFINITY, beyond)]).collect(),
        sum,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn figures_have_units_and_times_are_in_the_bucket_that_holds_them() {
        let stats = Stats::new().unwrap();
        let slot = stats.claimed(7);
        for ns in [1, 1023, 1024, 5_000, 20_000_000_000] {
            slot.fault_ns.record(ns);
        }
        slot.fetched_pages
            .store(3, std::sync::atomic::Ordering::Relaxed);
        stats.limit(64 << 20);
        let programs = Arc::new(Programs {
            stats: stats.again().unwrap(),
            name: "app".to_owned(),
        });
        let text = tmem_metrics::render(&programs).unwrap();
        for line in [
            "tmem_program_budget_bytes 67108864",
            "tmem_program_read_bytes_total 12288",
            "tmem_program_waited_some_seconds_total 0.0",
            "tmem_program_fault_duration_seconds_bucket{le=\"0.000001024\"} 2",
            "tmem_program_fault_duration_seconds_bucket{le=\"0.000002048\"} 3",
            "tmem_program_fault_duration_seconds_bucket{le=\"0.000008192\"} 4",
            "tmem_program_fault_duration_seconds_count 5",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in\n{text}");
        }
        let sum = faults(&stats.totals()).sum;
        assert!((sum - 20.0).abs() < 20.0 / 32.0, "{sum}");
        assert_eq!(programs.readiness(), Err("no process is paged"));
    }
}
