//! Whether to wait awake or asleep, learnt by trying.
//!
//! Awake, on both sides, is quicker where each has a processor of its own and
//! answers come soon; asleep is quicker where both share a processor, and
//! cheaper where answers take long. Which of it holds changes with what else
//! runs, so both are tried again and again: some waits in a row each time,
//! since the other side and the scheduler take a moment to follow.

/// Of so many waits, some try what seems to be the slower way; of this many
/// where it was much slower.
const ROUND: u32 = 256;
const LONG_ROUND: u32 = 2048;
/// Waits of a trial, and those at its beginning and after its end that tell
/// nothing yet.
const TRIAL: u32 = 16;
const UNSETTLED: u32 = 4;
/// Longer waits than this count as this long: they tell of the other side's
/// leisure.
const LONGEST_NS: u64 = 400_000;

/// How a wait is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitMode {
    /// Looking again and again.
    Spin,
    /// In the kernel, until woken.
    Sleep,
}

/// Two ways to wait, and how long each takes on the average.
#[derive(Clone, Copy, Debug, Default)]
pub struct SpinOrSleep {
    spin_ns: u64,
    sleep_ns: u64,
    waits: u32,
}

impl SpinOrSleep {
    /// How to spend the next wait.
    pub fn choose(&mut self) -> WaitMode {
        let (awake, asleep) = (self.spin_ns, self.sleep_ns);
        let (less, more) = (awake.min(asleep), awake.max(asleep));
        let clear = less > 0 && more > less + less / 2;
        self.waits = (self.waits + 1) % if clear { LONG_ROUND } else { ROUND };
        let trial = self.waits < TRIAL;
        // To lie awake for long is never worth it.
        let quicker_awake = awake < asleep && awake < LONGEST_NS / 2;
        if quicker_awake != trial {
            WaitMode::Spin
        } else {
            WaitMode::Sleep
        }
    }

    /// How long to stay awake at the most, in nanoseconds: a while longer than
    /// it takes asleep.
    pub fn longest_spin_ns(&self) -> u64 {
        match self.sleep_ns {
            0 => LONGEST_NS / 4,
            ns => (ns * 3 / 2).clamp(20_000, LONGEST_NS / 4),
        }
    }

    /// A wait spent that way took so long.
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

    fn share_awake(spin_ns: u64, sleep_ns: u64, choice: &mut SpinOrSleep) -> usize {
        (0..8192)
            .filter(|_| {
                let how = choice.choose();
                let ns = if how == WaitMode::Spin {
                    spin_ns
                } else {
                    sleep_ns
                };
                choice.record(how, ns);
                how == WaitMode::Spin
            })
            .count()
    }

    #[test]
    fn the_quicker_way_is_found_and_found_again_when_it_changes() {
        let mut choice = SpinOrSleep::default();
        assert!(share_awake(15_000, 60_000, &mut choice) > 7000);
        assert!(share_awake(70_000, 25_000, &mut choice) < 1000);
        assert!(share_awake(20_000, 50_000, &mut choice) > 4000);
    }

    #[test]
    fn long_waits_are_slept_through() {
        let mut choice = SpinOrSleep::default();
        assert!(share_awake(10_000_000, 10_000_001, &mut choice) < 1000);
    }
}
