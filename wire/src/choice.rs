//! Whether to wait awake or asleep, learnt by trying.
//!
//! Both sides wait for each other's messages. Awake is quicker where the other
//! side runs elsewhere and answers soon; asleep is quicker where both share a
//! processor, and cheaper where answers take long. Which of it holds changes
//! with what else runs, so both are tried again and again.

/// Of so many waits, one tries what seems to be the slower way.
const ROUND: u32 = 64;
/// Longer waits than this count as this long: they tell of the other side's
/// leisure.
const LONGEST_NS: u64 = 400_000;

/// How a wait is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Looking again and again.
    Awake,
    /// In the kernel, until woken.
    Asleep,
}

/// Two ways to wait, and how long each takes on the average.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choice {
    awake_ns: u64,
    asleep_ns: u64,
    waits: u32,
}

impl Choice {
    /// How to spend the next wait.
    pub fn choose(&mut self) -> Waiting {
        self.waits = (self.waits + 1) % ROUND;
        // To lie awake for long is never worth it.
        let awake = self.awake_ns < self.asleep_ns && self.awake_ns < LONGEST_NS / 2;
        if awake != (self.waits == 0) {
            Waiting::Awake
        } else {
            Waiting::Asleep
        }
    }

    /// How long to stay awake at the most, in nanoseconds: a while longer than
    /// it takes asleep.
    pub fn patience_ns(&self) -> u64 {
        match self.asleep_ns {
            0 => LONGEST_NS / 4,
            ns => (ns * 3 / 2).clamp(20_000, LONGEST_NS / 4),
        }
    }

    /// A wait spent that way took so long.
    pub fn took(&mut self, how: Waiting, ns: u64) {
        let average = match how {
            Waiting::Awake => &mut self.awake_ns,
            Waiting::Asleep => &mut self.asleep_ns,
        };
        let ns = ns.min(LONGEST_NS);
        *average = if *average == 0 {
            ns.max(1)
        } else {
            *average - *average / 8 + ns / 8
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share_awake(awake_ns: u64, asleep_ns: u64, choice: &mut Choice) -> usize {
        (0..640)
            .filter(|_| {
                let how = choice.choose();
                let ns = if how == Waiting::Awake {
                    awake_ns
                } else {
                    asleep_ns
                };
                choice.took(how, ns);
                how == Waiting::Awake
            })
            .count()
    }

    #[test]
    fn the_quicker_way_is_found_and_found_again_when_it_changes() {
        let mut choice = Choice::default();
        assert!(share_awake(15_000, 60_000, &mut choice) > 400);
        assert!(share_awake(70_000, 25_000, &mut choice) < 100);
        assert!(share_awake(20_000, 50_000, &mut choice) > 300);
    }

    #[test]
    fn long_waits_are_slept_through() {
        let mut choice = Choice::default();
        assert!(share_awake(10_000_000, 10_000_001, &mut choice) < 60);
    }
}
