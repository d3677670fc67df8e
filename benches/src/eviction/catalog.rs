//! All policies, with their names.

use super::Policy;
use super::bits;
use super::opt::Opt;
use super::paged::{Paged, Share};
use super::rank::{Adaptive, Chances, EngineQueue, Fifo, Lirs, Mru, Random, Rank, Shape};
use super::simulate::Costs;
use super::trace::Trace;

/// What a policy has to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sees {
    /// What is to come.
    Future,
    /// Uses of resident pages: it needs accessed bits.
    Bits,
    /// Faults only, as tmem does.
    Faults,
}

impl Sees {
    /// As a table says it.
    pub fn text(self) -> &'static str {
        match self {
            Sees::Future => "future",
            Sees::Bits => "needs accessed bits",
            Sees::Faults => "faults",
        }
    }
}

/// A policy and what it needs.
pub struct Entry {
    /// Its name; a number at the end is the percentage of memory on standby.
    pub name: String,
    /// What it has to see.
    pub sees: Sees,
    make: Box<Make>,
}

type Make = dyn for<'a> Fn(&'a Trace, usize) -> Box<dyn Policy + 'a>;

impl Entry {
    /// Makes the policy for a trace. It holds `capacity` pages, at least two.
    pub fn policy<'a>(&self, trace: &'a Trace, capacity: usize) -> Box<dyn Policy + 'a> {
        (self.make)(trace, capacity.max(2))
    }
}

/// What all are measured by.
pub const OPT: &str = "OPT";
/// What the engine does.
pub const TMEM: &str = "tmem";

/// All policies; some aim at a balance of these costs.
pub fn all(costs: &Costs) -> Vec<Entry> {
    let mut all = vec![Entry {
        name: OPT.to_owned(),
        sees: Sees::Future,
        make: Box::new(|t, n| Box::new(Opt::new(n, t.limit, &t.pages))),
    }];
    let mut bits = |name: &str, make: Box<Make>| {
        all.push(Entry {
            name: name.to_owned(),
            sees: Sees::Bits,
            make,
        });
    };
    bits("LRU", Box::new(|t, n| Box::new(bits::Lru::new(n, t.limit))));
    bits(
        "CLOCK",
        Box::new(|t, n| Box::new(bits::Clock::new(n, t.limit))),
    );
    bits(
        "SIEVE",
        Box::new(|t, n| Box::new(bits::Sieve::new(n, t.limit))),
    );
    bits(
        "S3-FIFO",
        Box::new(|t, n| Box::new(bits::S3Fifo::new(n, t.limit))),
    );
    all.push(Entry {
        name: "FIFO".to_owned(),
        sees: Sees::Faults,
        make: Box::new(|t, n| Box::new(bits::Fifo::new(n, t.limit))),
    });
    all.push(Entry {
        name: TMEM.to_owned(),
        sees: Sees::Faults,
        make: Box::new(|t, n| {
            let rank = EngineQueue::new(n, t.limit, Shape::engine(n));
            Box::new(Paged::new(n, t.limit, Share::Engine, rank))
        }),
    });
    let balanced = |aim| Share::Balanced {
        hit: costs.standby / costs.miss,
        aim,
    };
    let shares = [5, 10, 25, 50].map(|p| (Share::Percent(p), p.to_string()));
    let aims = [25, 50].map(|a| (balanced(f64::from(a) / 100.0), format!("balanced-{a}")));
    for (share, text) in shares.iter().chain(&aims) {
        paged(&mut all, "fifo", text, *share, |t, _| Fifo::new(t.limit));
        paged(&mut all, "tmem", text, *share, |t, n| {
            EngineQueue::new(n, t.limit, Shape::engine(n))
        });
        paged(&mut all, "tmem-acyclic", text, *share, |t, n| {
            // Cyclic scans are not looked for.
            let shape = Shape {
                cyclic: false,
                ..Shape::engine(n)
            };
            EngineQueue::new(n, t.limit, shape)
        });
        paged(&mut all, "tmem-short", text, *share, |t, n| {
            // Refaults after more evictions do not count.
            let shape = Shape {
                hot_age: 2,
                ..Shape::engine(n)
            };
            EngineQueue::new(n, t.limit, shape)
        });
        paged(&mut all, "2q", text, *share, |t, n| {
            let engine = Shape::engine(n);
            let shape = Shape {
                queue: tmem_policy::eviction::Shape {
                    small_part: 4,
                    ..engine.queue
                },
                promote: false,
                cyclic: false,
                ..engine
            };
            EngineQueue::new(n, t.limit, shape)
        });
        paged(&mut all, "car", text, *share, |t, n| {
            Adaptive::new(n, t.limit)
        });
        paged(&mut all, "lirs", text, *share, |t, n| {
            Lirs::new(n, t.limit, 80)
        });
        paged(&mut all, "chances1", text, *share, |t, _| {
            Chances::new(t.limit, 1, true)
        });
        paged(&mut all, "chances3", text, *share, |t, _| {
            Chances::new(t.limit, 3, true)
        });
        paged(&mut all, "misses3", text, *share, |t, _| {
            Chances::new(t.limit, 3, false)
        });
        paged(&mut all, "random", text, *share, |_, _| Random::default());
    }
    paged(&mut all, "mru", "10", Share::Percent(10), |t, n| {
        Mru::new(n, t.limit)
    });
    all
}

fn paged<R: Rank + 'static>(
    all: &mut Vec<Entry>,
    name: &str,
    share_text: &str,
    share: Share,
    rank: impl Fn(&Trace, usize) -> R + 'static,
) {
    all.push(Entry {
        name: format!("{name}-{share_text}"),
        sees: Sees::Faults,
        make: Box::new(move |t, n| Box::new(Paged::new(n, t.limit, share, rank(t, n)))),
    });
}
