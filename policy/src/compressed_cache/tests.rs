use super::*;
use proptest::prelude::*;
use tmem_wire::PAGE_SIZE;

const TARGET: usize = 65_536;

/// A program that uses its pages in no order.
struct Program {
    all: usize,
    /// Pages that it uses all the time.
    hot: usize,
    /// Bytes of a compressed page, and the time of a request in nanoseconds.
    packed: u64,
    asked_ns: u64,
    /// The program waits for one in this many of the pages that it gets.
    one_in: u64,
    has: usize,
    may_have: usize,
}

impl Program {
    const RANDOM: Program = Program {
        all: TARGET * 2,
        hot: 0,
        packed: 1024,
        asked_ns: 120_000,
        one_in: 1,
        has: 0,
        may_have: 0,
    };

    /// Simulates a period.
    fn seen(&self) -> CacheSample {
        let left = TARGET as u64 / 8;
        let room = TARGET - self.has;
        let cold = (self.all - room) as u64;
        let share = |part: u64, whole: u64| (left / self.one_in) * part.min(whole) / whole.max(1);
        let copied = self.has as u64 * PAGE_SIZE as u64 / self.packed;
        let hits = share(copied, self.all as u64);
        let asked = left / self.one_in - hits;
        // If the hot pages do not fit, they are the ones that have just left.
        let young = match room < self.hot {
            true => hits * 9 / 10,
            false => share((self.has as u64).min(cold), cold * 4).min(hits / 4),
        };
        let ns = |n: u64, each: u64| Times { n, ns: n * each };
        let made = if self.has == 0 { asked / 32 } else { asked };
        let busy_ns = asked * (self.asked_ns + 5_000) + hits * 17_500 + made * 3_000;
        CacheSample {
            left,
            asked: ns(asked, self.asked_ns),
            hits: ns(hits, 2_500),
            young,
            made: ns(made, 3_000),
            bytes: made * self.packed,
            busy_ns,
        }
    }

    /// Runs for some periods. Returns in how many of them there were copies.
    fn run(&mut self, sizer: &mut CacheSizer, periods: usize) -> usize {
        let mut with = 0;
        for _ in 0..periods {
            let now = CacheState {
                target: TARGET,
                remote: self.all - (TARGET - self.has),
                has: self.has,
                may_have: self.may_have,
            };
            self.may_have = sizer.update(&self.seen(), &now);
            assert!(self.may_have <= largest(TARGET));
            // The cache fills within a few periods.
            self.has = self.may_have.min(self.has + TARGET / 16);
            with += usize::from(self.may_have > 0);
        }
        with
    }
}

#[test]
fn a_program_that_waits_for_a_slow_network_gets_copies_and_keeps_them() {
    let mut program = Program::RANDOM;
    let mut sizer = CacheSizer::default();
    assert!(program.run(&mut sizer, 100) > 90);
    assert!(program.has >= TARGET / 4, "{}", program.has);
    assert_eq!(program.run(&mut sizer, 1000), 1000);
}

#[test]
fn quick_networks_incompressible_pages_and_streams_get_no_copies() {
    for mut program in [
        Program {
            asked_ns: 10_000,
            ..Program::RANDOM
        },
        Program {
            packed: 4096,
            ..Program::RANDOM
        },
        Program {
            one_in: 16,
            ..Program::RANDOM
        },
    ] {
        assert_eq!(program.run(&mut CacheSizer::default(), 1000), 0);
    }
}

#[test]
fn where_the_room_is_needed_less_is_tried_and_then_hardly_ever() {
    // The program needs all the memory that it has.
    let mut program = Program {
        hot: TARGET,
        ..Program::RANDOM
    };
    let mut sizer = CacheSizer::default();
    let with = program.run(&mut sizer, 4000);
    assert!(with > 0 && with < 1000, "{with}");
}

#[test]
fn copies_go_when_the_program_begins_to_stream() {
    let mut program = Program::RANDOM;
    let mut sizer = CacheSizer::default();
    program.run(&mut sizer, 100);
    program.one_in = 16;
    program.run(&mut sizer, PATIENCE as usize);
    assert_eq!(program.may_have, 0);
}

#[test]
fn without_measurements_there_are_no_copies() {
    let mut sizer = CacheSizer::default();
    for target in [0, 1, 7, TARGET] {
        let now = CacheState {
            target,
            ..CacheState::default()
        };
        assert_eq!(sizer.update(&CacheSample::default(), &now), 0);
    }
}

#[test]
fn evictions_until_some_different_pages_have_left_are_estimated() {
    // Evicts random pages until `room` different ones have left.
    for (room, elsewhere) in [(100, 10_000), (1000, 4000), (5000, 10_000)] {
        let mut gone = alloc::vec![false; elsewhere];
        let (mut different, mut left, mut random) = (0, 0, 88_172_645_463_325_252_u64);
        while different < room {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let page = random as usize % elsewhere;
            different += usize::from(!core::mem::replace(&mut gone[page], true));
            left += 1;
        }
        let told = evictions_until(room, elsewhere);
        assert!(told.abs_diff(left) * 20 <= left, "{told} of {left}");
    }
    assert_eq!(evictions_until(0, 0), 0);
}

#[test]
fn copies_go_where_more_is_saved_without_them() {
    let now = CacheState {
        target: TARGET,
        remote: TARGET * 2,
        ..CacheState::default()
    };
    let with = CacheState {
        has: TARGET / 2,
        may_have: TARGET / 2,
        ..now
    };
    // A page from a copy takes 29 µs in all, and two in five of these pages would not have
    // left.
    let seen = |asked: u64, each: u64, hits: u64| CacheSample {
        left: 8192,
        asked: Times {
            n: asked,
            ns: asked * (each - 5_000),
        },
        hits: Times {
            n: hits,
            ns: hits * 4_000,
        },
        young: hits * 2 / 5,
        made: Times {
            n: 1_000,
            ns: 1_000 * 6_000,
        },
        bytes: 1_000 * 1_400,
        busy_ns: asked * each + hits * 29_000,
    };
    for (each, stay) in [(35_000, false), (120_000, true)] {
        let mut sizer = CacheSizer::default();
        sizer.update(&seen(7_900, each, 0), &now);
        let mut looks = (0..PATIENCE).map(|_| sizer.update(&seen(400, each, 7_500), &with));
        assert_eq!(looks.all(|pages| pages >= with.may_have), stay, "{each}");
    }
}

prop_compose! {
    fn any_sample()(
        left in 0u64..10_000, asked in 0u64..10_000, hits in 0u64..10_000, young in 0u64..10_000,
        made in 0u64..10_000, each in 0u64..300_000, bytes in 1u64..4096, busy in 0u64..400_000,
    ) -> CacheSample {
        CacheSample {
            left,
            asked: Times { n: asked, ns: asked * each },
            hits: Times { n: hits, ns: hits * (each / 4) },
            young: young.min(hits),
            made: Times { n: made, ns: made * 4_000 },
            bytes: made * bytes,
            busy_ns: (asked + hits) * busy,
        }
    }
}

proptest! {
    #[test]
    fn the_size_is_never_too_large_and_a_pause_is_kept(
        samples in prop::collection::vec(any_sample(), 1..300),
        target in 0usize..100_000, remote in 0usize..200_000,
    ) {
        let mut sizer = CacheSizer::default();
        let mut now = CacheState { target, remote, ..CacheState::default() };
        for sample in samples {
            let (pause, cap) = (sizer.wait, sizer.cap);
            now.may_have = sizer.update(&sample, &now);
            now.has = now.may_have.min(now.has + 1 + target / 16);
            prop_assert!(now.may_have <= largest(target) && largest(target) <= target * 3 / 4);
            // During a pause no size is tried that was too large before.
            prop_assert!(pause == 0 || now.may_have <= cap);
            prop_assert!(sizer.pause <= LONGEST_PAUSE && sizer.wait <= LONGEST_PAUSE);
        }
    }
}
