//! The result of a workload, which it prints as one line of JSON.

use serde::{Deserialize, Serialize};
use tmem_pager::stats::Totals;

use crate::histogram::Histogram;
use crate::walk::Span;

/// The numbers of one workload's measured part.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Accesses: pages where whole pages are used, else words.
    pub accesses: u64,
    /// Bytes read or written.
    pub bytes: u64,
    /// Nanoseconds for all of it.
    pub ns: f64,
    /// Nanoseconds that filling the memory took before.
    pub fill_ns: f64,
    /// Times of single accesses, where they were taken: nanoseconds and count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<Histogram>,
    /// What the pager did meanwhile; `None` natively.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pager: Option<Pager>,
}

impl Outcome {
    /// With what was measured.
    pub fn of(span: Span) -> Outcome {
        Outcome {
            accesses: span.accesses,
            bytes: span.bytes,
            ns: span.ns,
            ..Outcome::default()
        }
    }

    /// Nanoseconds of an access.
    pub fn ns_per_access(&self) -> f64 {
        self.ns / self.accesses.max(1) as f64
    }

    /// Bytes per second, in units of 10^9.
    pub fn gb_per_s(&self) -> f64 {
        self.bytes as f64 / self.ns.max(1.0)
    }
}

macro_rules! figures {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Figures of the pager, between two moments.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct Pager {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Pager {
            /// What was added from `before` to `after`.
            pub fn between(before: &Totals, after: &Totals) -> Pager {
                Pager { $($name: after.$name.saturating_sub(before.$name),)* }
            }
        }
    };
}

figures! {
    /// Page faults served.
    faults,
    /// Pages fetched from servers, prefetched ones included.
    fetched_pages,
    /// Pages fetched before they were asked for.
    prefetched_pages,
    /// Prefetched pages that were then used.
    prefetch_hits,
    /// Faults on pages that still rested in the frame pool.
    standby_refaults,
    /// Faults answered with zeros.
    zero_fills,
    /// Pages taken out of the program.
    evicted_pages,
    /// Pages sent to servers.
    written_pages,
    /// Evicted pages that a server already had.
    clean_evictions,
    /// Nanoseconds of processor time that the pager used.
    pager_cpu_ns,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_and_back() {
        let mut latency = Histogram::default();
        latency.record(90);
        let mut after = Totals::new();
        (after.faults, after.pager_cpu_ns) = (7, 5_000);
        let outcome = Outcome {
            accesses: 4,
            bytes: 4 * 4096,
            ns: 1024.0,
            fill_ns: 3.0,
            latency: Some(latency),
            pager: Some(Pager::between(&Totals::new(), &after)),
        };
        assert_eq!(outcome.ns_per_access(), 256.0);
        assert_eq!(outcome.gb_per_s(), 16.0);
        let line = serde_json::to_string(&outcome).unwrap();
        assert!(!line.contains('\n') && line.contains("\"faults\":7"));
        assert_eq!(serde_json::from_str::<Outcome>(&line).unwrap(), outcome);
    }
}
