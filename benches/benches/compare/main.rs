//! Accesses to memory of which half is local: natively, with the plain pager that anyone would
//! write first, and under tmem: `cargo bench -p tmem-benches --bench compare`.
//!
//! What tmem takes is measured with the `tmem` of the environment variable `TMEM_BIN`, and left
//! out without it. The plain pager is left out where the user may have no userfaultfd.

mod plain_pager;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use plain_pager::PlainPager;
use std::process::Command;
use std::time::Duration;
use tmem_benches::pattern::Pattern;
use tmem_benches::walk::{Limits, Walk};

/// Memory of the program.
const MIB: usize = 64;
/// The fewest accesses under tmem, so that pages leave and come back.
const LEAST: u64 = 50_000;

fn limits(accesses: u64) -> Limits {
    Limits {
        accesses,
        time: Duration::MAX,
    }
}

/// Goes through all pages once, and then takes the time of `accesses`.
fn measured(walk: &mut Walk, accesses: u64) -> Duration {
    let span = walk.go(limits(accesses)).expect("pages are as they were");
    Duration::from_nanos(span.ns as u64)
}

/// Time of `accesses` under `tmem run`, from what the workload prints.
fn under_tmem(tmem: &str, pattern: Pattern, accesses: u64) -> Duration {
    let pages = (MIB as u64) << 8;
    let did = accesses.max(LEAST);
    let count = if pattern.in_order() {
        did.div_ceil(pages)
    } else {
        did
    };
    let out = Command::new(tmem)
        .args(["run", "--local", &format!("{}M", MIB / 2), "--"])
        .arg(env!("CARGO_BIN_EXE_tmem-workload"))
        .args([pattern.name(), &MIB.to_string(), &count.to_string()])
        .output()
        .expect("tmem starts");
    let text = String::from_utf8_lossy(&out.stdout);
    let ns = text
        .split_whitespace()
        .nth(1)
        .and_then(|ns| ns.parse().ok());
    let ns: f64 = ns.unwrap_or_else(|| {
        panic!("tmem run failed: {}", String::from_utf8_lossy(&out.stderr));
    });
    Duration::from_nanos((ns * accesses as f64) as u64)
}

fn accesses(c: &mut Criterion) {
    let tmem = std::env::var("TMEM_BIN").ok();
    for pattern in [Pattern::SeqRead, Pattern::SeqRmw, Pattern::RandomRead] {
        let mut group = c.benchmark_group(pattern.name());
        group.sample_size(10).throughput(Throughput::Elements(1));
        group.bench_function("native", |b| {
            let mut walk = Walk::new(pattern, MIB << 20);
            b.iter_custom(|n| measured(&mut walk, n));
        });
        let mut walk = Walk::new(pattern, MIB << 20);
        let half = (MIB << 20) / 4096 / 2;
        // SAFETY: memory of a large vector is a mapping of its own; this thread alone uses it,
        // and frees it first.
        match unsafe { PlainPager::start(walk.range(), half) } {
            Ok(pager) => {
                group.bench_function("plain pager", |b| {
                    b.iter_custom(|n| measured(&mut walk, n));
                });
                drop(walk);
                drop(pager);
            }
            Err(error) => eprintln!("the plain pager is left out: {error}"),
        }
        if let Some(tmem) = &tmem {
            group.bench_function("tmem", |b| {
                b.iter_custom(|n| under_tmem(tmem, pattern, n));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, accesses);
criterion_main!(benches);
