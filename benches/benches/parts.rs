//! Micro-benchmarks of the parts that an access to an absent page passes through, and of the
//! policies: `cargo bench -p tmem-benches --bench parts`.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use tmem_pager::ServerId;
use tmem_pager::bench::{Digests, PageTable};
use tmem_pager::slots::{Location, Slots};
use tmem_pager::sys::mem::is_zero;
use tmem_policy::PageNumber;
use tmem_policy::compressed_cache::{CacheSample, CacheSizer, CacheState, Times};
use tmem_policy::contention::Contention;
use tmem_policy::demand::FrameDemand;
use tmem_policy::eviction::{EvictionQueue, Segment};
use tmem_policy::placement::{Speed, shares};
use tmem_policy::readahead::Prefetcher;
use tmem_policy::refault::RefaultClock;
use tmem_policy::spin::{SpinOrSleep, WaitMode};
use tmem_policy::standby::{StandbySample, StandbySizer};
use tmem_policy::straddle::StraddlePredictor;
use tmem_policy::watermarks::{MemoryUse, Watermarks};
use tmem_policy::zero_fill::ZeroFillAhead;
use tmem_wire::packed::{ROOM, pack_page, unpack_page};
use tmem_wire::{Header, Op, PAGE_SIZE, PageBytes};

/// A page of which compressors leave some 40 %: records with noise in a part of their fields.
fn page() -> PageBytes {
    let mut page = [0; PAGE_SIZE];
    for (i, byte) in page.iter_mut().enumerate() {
        let noise = (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
        *byte = if i % 8 < 3 {
            noise as u8
        } else {
            (i / 512) as u8
        };
    }
    page
}

/// Evenly distributed numbers, the same each time.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

fn codec(c: &mut Criterion) {
    let mut group = c.benchmark_group("codec");
    let header = Header::request(Op::Read, 7);
    let bytes = header.encode();
    group.bench_function("header encode", |b| b.iter(|| black_box(header).encode()));
    group.bench_function("header decode", |b| {
        b.iter(|| Header::decode(black_box(&bytes)));
    });
    let (page, mut to) = (page(), [0; ROOM]);
    let len = pack_page(&page, &mut to).expect("the page gets smaller");
    let packed = to[..len].to_vec();
    group.throughput(Throughput::Bytes(PAGE_SIZE as u64));
    group.bench_function("compress page", |b| {
        b.iter(|| pack_page(black_box(&page), &mut to));
    });
    let mut back = [0; PAGE_SIZE];
    group.bench_function("decompress page", |b| {
        b.iter(|| unpack_page(black_box(&packed), &mut back));
    });
}

fn contents(c: &mut Criterion) {
    let mut group = c.benchmark_group("contents");
    group.throughput(Throughput::Bytes(PAGE_SIZE as u64));
    let (digests, page, zeros) = (Digests::draw(), page(), [0; PAGE_SIZE]);
    group.bench_function("digest", |b| b.iter(|| digests.digest(black_box(&page))));
    group.bench_function("zero check of zeros", |b| {
        b.iter(|| is_zero(black_box(&zeros)));
    });
    group.bench_function("zero check of data", |b| {
        b.iter(|| is_zero(black_box(&page)));
    });
}

fn tables(c: &mut Criterion) {
    let mut group = c.benchmark_group("tables");
    const PAGES: u64 = 1 << 18;
    let mut table = PageTable::default();
    (0..PAGES).for_each(|page| table.set_hot(PageNumber::new(page), page % 3 == 0));
    let mut state = 88_172_645_463_325_252;
    group.bench_function("page table get", |b| {
        b.iter(|| table.is_hot(PageNumber::new(random(&mut state) % PAGES)));
    });
    group.bench_function("page table set", |b| {
        b.iter(|| table.set_hot(PageNumber::new(random(&mut state) % PAGES), true));
    });
    let slabs: Vec<u32> = (0..16).collect();
    let slots = || {
        let mut slots = Slots::new(vec![Location::default()], 1);
        slots
            .set_geometry(ServerId::new(0), 16_384)
            .expect("slabs may be so large");
        slots.add_slabs(ServerId::new(0), &slabs);
        slots
    };
    let mut slots = slots();
    let mut out = Vec::new();
    group.bench_function("slots of a run of 128 taken and freed", |b| {
        b.iter(|| {
            out.clear();
            slots.alloc(128, &mut out);
            out.iter().for_each(|(slot, len)| slots.free(*slot, *len));
        });
    });
}

fn reclaim(c: &mut Criterion) {
    let mut group = c.benchmark_group("reclaim policy");
    const RESIDENT: u64 = 1 << 16;
    let filled = |run: u32| {
        let mut queue = EvictionQueue::default();
        queue.set_resident(RESIDENT as usize, 512);
        for i in 0..RESIDENT / u64::from(run) {
            queue.push(PageNumber::new(i * 1000), run, Segment::Small);
        }
        queue
    };
    for run in [1, 64] {
        let (mut queue, mut next) = (filled(run), PageNumber::new(1 << 40));
        group.bench_function(format!("eviction queue, run of {run} in and out"), |b| {
            b.iter(|| {
                next = next + 1000;
                let segment = queue.choose_segment(next, run as usize, run as usize);
                queue.push(next, run, segment);
                queue.pop()
            });
        });
    }
    let (mut clock, mut standby) = (RefaultClock::default(), StandbySizer::default());
    group.bench_function("refault clock", |b| {
        b.iter(|| clock.evicted(RESIDENT as usize));
    });
    let mut seen = StandbySample::default();
    group.bench_function("standby sizer", |b| {
        b.iter(|| {
            (seen.refaults, seen.faults) = (seen.refaults + 300, seen.faults + 1000);
            standby.update(4096, 1000, seen);
            standby.frames(4096)
        });
    });
    let marks = Watermarks::new(256 << 20);
    let now = MemoryUse {
        resident: marks.evict + 100,
        pool: marks.pool,
        populated: 3000,
        free: 100,
        standby: 2000,
        evictable: 50_000,
        demand: 50,
        ..MemoryUse::default()
    };
    group.bench_function("plan by the watermarks", |b| {
        b.iter(|| marks.plan(black_box(&now)));
    });
    let (mut demand, mut taken) = (FrameDemand::default(), 0);
    group.bench_function("frame demand", |b| {
        b.iter(|| {
            taken += 17;
            demand.update(taken, 1_000_000);
        });
    });
    let sample = CacheSample {
        left: 8192,
        asked: Times {
            n: 4000,
            ns: 4000 * 60_000,
        },
        busy_ns: 4000 * 70_000,
        ..CacheSample::default()
    };
    let state = CacheState {
        target: 65_536,
        remote: 65_536,
        ..CacheState::default()
    };
    group.bench_function("compressed cache sizer", |b| {
        b.iter_batched(
            CacheSizer::default,
            |mut sizer| sizer.update(&sample, &state),
            BatchSize::SmallInput,
        );
    });
}

fn faults(c: &mut Criterion) {
    let mut group = c.benchmark_group("fault policy");
    let mut state = 88_172_645_463_325_252;
    let mut readahead = Prefetcher::new();
    let mut page = 0;
    group.bench_function("readahead of a stream", |b| {
        b.iter(|| {
            page += 1;
            readahead.fault(1, page * PAGE_SIZE as u64, true)
        });
    });
    let mut readahead = Prefetcher::new();
    group.bench_function("readahead of random faults", |b| {
        b.iter(|| readahead.fault(1, random(&mut state) % (1 << 40), true));
    });
    let mut straddle = StraddlePredictor::default();
    group.bench_function("straddle predictor", |b| {
        b.iter(|| straddle.missed(1, random(&mut state) % (1 << 40), true));
    });
    let mut fills = ZeroFillAhead::default();
    group.bench_function("zero-fill-ahead", |b| {
        b.iter(|| fills.size(PageNumber::new(random(&mut state) % (1 << 28))));
    });
    let mut spin = SpinOrSleep::default();
    group.bench_function("spin or sleep", |b| {
        b.iter(|| {
            let how = spin.choose();
            spin.record(
                how,
                if how == WaitMode::Spin {
                    20_000
                } else {
                    30_000
                },
            );
        });
    });
    let (mut contention, mut tid) = (Contention::default(), 0u32);
    group.bench_function("contention", |b| {
        b.iter(|| {
            tid = tid.wrapping_add(1);
            contention.fault(tid % 4);
            contention.is_contended()
        });
    });
    let speed = |us: u64| Speed {
        wait_ns: Some(us * 1000),
        page_ns: Some(us * 100),
    };
    let speeds: Vec<Speed> = (1..9).map(|n| speed(n * 30)).collect();
    group.bench_function("placement over 8 servers", |b| {
        b.iter(|| shares(black_box(&speeds)));
    });
}

criterion_group!(benches, codec, contents, tables, reclaim, faults);
criterion_main!(benches);
