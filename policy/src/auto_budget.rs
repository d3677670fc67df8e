//! Auto budget: says how much memory a program may keep where the budget is to follow the
//! machine (`--local auto`).
//!
//! The program takes memory while there is some to spare and it waits for pages, and gives
//! memory back at once when others need it. As in Transparent Memory Offloading (Weiner et al.,
//! "TMO", ASPLOS 2022) the measure of need is the share of time in which threads wait.
//!
//! Invariants, tested below:
//! - the budget stays between its bounds;
//! - what others need is given back in one step, as far as the bounds allow;
//! - a program that does not wait takes nothing more than it grows by;
//! - programs that follow this rule side by side never use up what is kept free.

/// The share of time that a program may wait before it takes more memory.
pub const TARGET: f64 = 0.01;

/// What is seen of the machine and of the program, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// What the machine, or the cgroup, has left for everybody.
    pub free: u64,
    /// What is to be left.
    pub reserve: u64,
    /// What the program has resident.
    pub resident: u64,
    /// What it has on servers only.
    pub remote: u64,
    /// The share of time in which it waited of late, 0 to 1.
    pub waited: f64,
}

/// The smallest and the largest budget, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// At least this.
    pub least: u64,
    /// At most this.
    pub most: u64,
}

/// The budget from now on, in bytes.
pub fn next(budget: u64, seen: &Seen, bounds: &Bounds) -> u64 {
    let spare = seen.free.saturating_sub(seen.reserve);
    let missing = seen.reserve.saturating_sub(seen.free);
    // Several programs may see the same memory at once, and each take a part of it.
    let step = spare / 4;
    // A budget promises nothing that is not there.
    let covered = budget.min(seen.resident.saturating_add(step));
    let wanted = if missing > 0 {
        // Pages on their way out count as resident until a server has them.
        budget.min(seen.resident).saturating_sub(missing)
    } else if seen.remote > 0 && seen.waited > TARGET {
        covered
            .max(seen.resident)
            .saturating_add(step.min(seen.remote))
    } else if seen.remote == 0 {
        // It has all that it ever had, and may grow.
        covered.max(seen.resident.saturating_add(step))
    } else {
        covered
    };
    wanted.min(bounds.most).max(bounds.least)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    const MIB: u64 = 1 << 20;

    /// A program that would like to have `wants` bytes, and waits as long as it has less.
    #[derive(Clone, Copy, Debug)]
    struct Program {
        wants: u64,
        budget: u64,
        resident: u64,
    }

    impl Program {
        fn new(wants: u64) -> Program {
            Program {
                wants,
                budget: 16 * MIB,
                resident: 0,
            }
        }

        fn run(&mut self, total: u64, used: u64, reserve: u64) {
            let remote = self.wants - self.resident;
            let seen = Seen {
                free: total.saturating_sub(used),
                reserve,
                resident: self.resident,
                remote,
                waited: if remote > 0 { 0.5 } else { 0.0 },
            };
            let bounds = Bounds {
                least: 16 * MIB,
                most: total,
            };
            self.budget = next(self.budget, &seen, &bounds);
            self.resident = self.wants.min(self.budget);
        }
    }

    fn used(programs: &[Program], other: u64) -> u64 {
        programs.iter().map(|p| p.resident).sum::<u64>() + other
    }

    proptest! {
        #[test]
        fn programs_side_by_side_leave_what_is_to_be_left(
            wants in proptest::collection::vec(64u64..4000, 1..4),
            others in proptest::collection::vec(0u64..800, 1..6),
        ) {
            let (total, reserve) = (2000 * MIB, 100 * MIB);
            let mut programs: Vec<_> = wants.iter().map(|w| Program::new(w * MIB)).collect();
            let mut taken = 0;
            for other in others.iter().map(|other| other * MIB) {
                for round in 0..200 {
                    for at in 0..programs.len() {
                        let now = used(&programs, taken);
                        programs[at].run(total, now, reserve);
                    }
                    let now = used(&programs, taken);
                    // Somebody who comes takes what is there; from then on it is given back.
                    prop_assert!(round < 20 || now <= total - reserve + MIB, "{now}");
                    taken = other.min(taken + total.saturating_sub(now));
                }
                prop_assert_eq!(taken, other);
                let want: u64 = programs.iter().map(|p| p.wants).sum();
                let most = (total - reserve).min(want + other);
                // Nearly all of it is used where it is wanted.
                let now = used(&programs, other);
                prop_assert!(now + total / 20 >= most, "{now} of {most}");
            }
        }

        #[test]
        fn it_stays_between_its_bounds(
            budget: u32, free: u32, reserve: u32, resident: u32, remote: u32, waited in 0.0..1.0,
            least in 0u64..1 << 30, more in 0u64..1 << 33,
        ) {
            let of = u64::from;
            let seen = Seen {
                free: of(free),
                reserve: of(reserve),
                resident: of(resident),
                remote: of(remote),
                waited,
            };
            let bounds = Bounds { least, most: least + more };
            let next = next(of(budget), &seen, &bounds);
            prop_assert!((bounds.least..=bounds.most).contains(&next));
        }
    }

    #[test]
    fn what_others_need_is_given_back_at_once() {
        let seen = Seen {
            free: 0,
            reserve: 100,
            resident: 1000,
            remote: 500,
            waited: 0.9,
        };
        let bounds = Bounds {
            least: 10,
            most: 5000,
        };
        assert_eq!(next(1200, &seen, &bounds), 900);
    }

    #[test]
    fn who_hardly_waits_takes_no_more() {
        let seen = Seen {
            free: 1000,
            reserve: 100,
            resident: 500,
            remote: 500,
            waited: 0.005,
        };
        let bounds = Bounds {
            least: 10,
            most: 5000,
        };
        assert_eq!(next(500, &seen, &bounds), 500);
    }
}
