//! The figures that `--stats-file` writes.

use serde::Deserialize;

/// What `tmem run --stats-file` wrote. Bytes and pages as the names say.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs, reason = "the names are those of the documented figures")]
pub struct Stats {
    pub processes: u64,
    pub local_budget_bytes: u64,
    pub paging_processes: u64,
    pub budget_peak_bytes: u64,
    pub peak_resident_bytes: u64,
    pub peak_counted_bytes: u64,
    pub files_bytes: u64,
    pub local_tier_bytes: u64,
    /// In spill files, at most.
    pub spilled_bytes: u64,
    pub shared_bytes: u64,
    pub locked_bytes: u64,
    pub huge_bytes: u64,
    pub stacks_bytes: u64,
    pub code_bytes: u64,
    pub libraries_bytes: u64,
    pub small_bytes: u64,
    pub other_bytes: u64,
    pub remote_bytes: u64,
    pub adopted_bytes: u64,
    pub faults: u64,
    pub fetched_pages: u64,
    pub prefetched_pages: u64,
    pub evicted_pages: u64,
    pub written_pages: u64,
    pub clean_evictions: u64,
    pub zero_evictions: u64,
    pub standby_refaults: u64,
    pub compressed_hits: u64,
    pub compressed_cache_bytes: u64,
    pub copied_pages: u64,
    pub self_faults: u64,
    pub lost_pages: u64,
    pub servers_full: u64,
    pub failed_over_pages: u64,
    pub late_pages: u64,
    pub mended_pages: u64,
    pub repaired_pages: u64,
    pub degraded_pages: u64,
    pub late_look_us: u64,
    pub reconnects: u64,
    pub compressed_pages: u64,
    pub compressed_bytes: u64,
    pub fault_us: Latency,
}

/// Times of faults in microseconds.
#[derive(Clone, Debug, Deserialize)]
#[allow(missing_docs, reason = "the names are quantiles")]
pub struct Latency {
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
}

impl Stats {
    /// Parses the file's text.
    pub fn parse(text: &str) -> Stats {
        serde_json::from_str(text).unwrap_or_else(|e| panic!("the stats file: {e} in {text}"))
    }
}
