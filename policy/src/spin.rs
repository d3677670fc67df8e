//! Spin or sleep: decides how the engine waits for an answer, by trying both.
//!
//! Spinning is faster if engine and server each have a CPU of their own and answers come
//! soon. Sleeping is faster if both share a CPU, and cheaper if answers take long. That
//! depends on what else runs. So the way that seems slower is tried again regularly, for
//! some waits in a row, since the other side and the scheduler need a moment to adapt.
//! (This is an epsilon-greedy choice between two arms; compare adaptive spinning in Karlin
//! et al., "Empirical studies of competitive spinning for a shared-memory multiprocessor",
//! SOSP 1991.)
//!
//! Invariants, tested below:
//! - whatever the times, each way is tried once in every `LONG_ROUND` waits;
//! - the longest spin lies between 20 µs and a quarter of `LONGEST_NS`;
//! - for answers that take longer than that the engine sleeps.

/// Waits after which the way that seems slower is tried again; the second is for a way that
/// was much slower.
const ROUND: u32 = 256;
const LONG_ROUND: u32 = 2048;
/// Waits of a trial, and how many at its start and after its end are not measured.
const TRIAL: u32 = 16;
const UNSETTLED: u32 = 4;
/// The longest wait that counts, in nanoseconds. Longer ones show the load of the other
/// side.
const LONGEST_NS: u64 = 400_000;
/// The shortest limit of a spin, in nanoseconds.
const SHORTEST_SPIN_NS: u64 = 20_000;

/// A way to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitMode {
    /// By polling all the time.
    Spin,
    /// In the kernel, until woken.
    Sleep,
}

/// The measurements of both ways.
#[derive(Clone, Copy, Debug, Default)]
pub struct SpinOrSleep {
    /// Average times in nanoseconds; 0 if unknown.
    spin_ns: u64,
    sleep_ns: u64,
    /// Waits in this round.
    waits: u32,
}

impl SpinOrSleep {
    /// Decides how to wait next.
    pub fn choose(&mut self) -> WaitMode {
        let (spin, sleep) = (self.spin_ns, self.sleep_ns);
        let (less, more) = (spin.min(sleep), spin.max(sleep));
        let is_clear = less > 0 && more > less + less / 2;
        self.waits = (self.waits + 1) % if is_clear { LONG_ROUND } else { ROUND };
        let is_trial = self.waits < TRIAL;
        // A long spin is never worth its CPU time.
        let spin_is_quicker = spin < sleep && spin < LONGEST_NS / 2;
        if spin_is_quicker != is_trial {
            WaitMode::Spin
        } else {
            WaitMode::Sleep
        }
    }

    /// Returns the limit of a spin in nanoseconds: one and a half times the average of
    /// waits asleep.
    pub fn longest_spin_ns(&self) -> u64 {
        match self.sleep_ns {
            0 => LONGEST_NS / 4,
            ns => (ns.saturating_mul(3) / 2).clamp(SHORTEST_SPIN_NS, LONGEST_NS / 4),
        }
    }

    /// Records that waiting in this way took `ns` nanoseconds.
    pub fn record(&mut self, how: WaitMode, ns: u64) {
        if self.waits % TRIAL < UNSETTLED && self.waits < 2 * TRIAL {
            return;
        }
        let average = match how {
            WaitMode::Spin => &mut self.spin_ns,
            WaitMode::Sleep => &mut self.sleep_ns,
        };
        let ns = ns.min(LONGEST_NS);
        *average = if *average == 0 {
            ns.max(1)
        } else {
            *average - *average / 16 + ns / 16
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Returns how many of 8192 waits are spent spinning.
    fn spins(spin_ns: u64, sleep_ns: u64, choice: &mut SpinOrSleep) -> usize {
        (0..8192)
            .filter(|_| {
                let how = choice.choose();
                let ns = match how {
                    WaitMode::Spin => spin_ns,
                    WaitMode::Sleep => sleep_ns,
                };
                choice.record(how, ns);
                how == WaitMode::Spin
            })
            .count()
    }

    #[test]
    fn the_quicker_way_is_found_and_found_again_when_it_changes() {
        let mut choice = SpinOrSleep::default();
        assert!(spins(15_000, 60_000, &mut choice) > 7000);
        assert!(spins(70_000, 25_000, &mut choice) < 1000);
        assert!(spins(20_000, 50_000, &mut choice) > 4000);
    }

    #[test]
    fn long_waits_are_slept_through() {
        let mut choice = SpinOrSleep::default();
        assert!(spins(10_000_000, 10_000_001, &mut choice) < 1000);
    }

    proptest! {
        #[test]
        fn both_ways_are_tried_in_every_long_round(
            times in prop::collection::vec((0u64..1 << 40, 0u64..1 << 40), 1..40),
        ) {
            let mut choice = SpinOrSleep::default();
            for (spin_ns, sleep_ns) in times {
                let (mut spun, mut slept) = (0, 0);
                for _ in 0..2 * LONG_ROUND {
                    let how = choice.choose();
                    match how {
                        WaitMode::Spin => spun += 1,
                        WaitMode::Sleep => slept += 1,
                    }
                    choice.record(how, if how == WaitMode::Spin { spin_ns } else { sleep_ns });
                    prop_assert!((SHORTEST_SPIN_NS..=LONGEST_NS / 4).contains(&choice.longest_spin_ns()));
                }
                prop_assert!(spun > 0 && slept > 0, "{} {}", spun, slept);
            }
        }

        #[test]
        fn a_way_that_takes_twice_as_long_is_used_for_one_wait_in_eight_at_most(
            ns in 2_000u64..90_000, is_spin: bool,
        ) {
            let mut choice = SpinOrSleep::default();
            let (spin_ns, sleep_ns) = if is_spin { (ns, 2 * ns) } else { (2 * ns, ns) };
            spins(spin_ns, sleep_ns, &mut choice);
            let spun = spins(spin_ns, sleep_ns, &mut choice);
            let slower = if is_spin { 8192 - spun } else { spun };
            prop_assert!(slower <= 8192 / 8, "{}", slower);
        }
    }
}
