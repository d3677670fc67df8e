//! One budget for all processes of a program.
//!
//! Each process says, in memory that they share, how much it has resident and
//! how often it has to ask a server for a page. From what the others say it
//! finds by itself how much it may have: all that the others leave, and if they
//! leave too little, its share. Shares go by how much each wants: a process that
//! asks for many pages gets most, and one that only holds memory gives it up.
//! As soon as one grows into its share, those that are beyond theirs see less
//! left for them.
//!
//! There is no lock and nothing to give back: a process may end at any
//! instruction, and is then no longer counted once one that wants more has seen
//! that it is gone.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Processes that are counted; those beyond have each the whole budget.
const MEMBERS: usize = 256;

/// The fewest pages that a process may have, 8 MiB: with fewer it would do
/// little but wait.
const LEAST: u64 = 2048;

/// A process that asks servers for this many pages a second wants twice as much
/// as one that asks for none.
const WANT: u64 = 64;

/// One process.
#[repr(C)]
pub struct Member {
    /// Its number, 0 while nobody is here.
    pid: AtomicU32,
    /// Pages it asks servers for in a second.
    need: AtomicU32,
    /// Pages it has resident.
    held: AtomicU64,
}

/// What the processes of a program share. All zeros is its start, and says that
/// each process has a budget of its own.
#[repr(C)]
pub struct Family {
    /// Bytes that all may have together, or 0.
    budget: AtomicU64,
    /// The most bytes that they were seen to have together.
    peak: AtomicU64,
    members: [Member; MEMBERS],
}

/// What a process has, and wants.
#[derive(Clone, Copy, Debug, Default)]
struct Use {
    /// Pages.
    held: u64,
    /// Pages a second.
    need: u64,
}

impl Use {
    fn weight(self) -> u64 {
        WANT + self.need
    }
}

/// Pages that a process may have of `total`, and pages that all have.
fn share(total: u64, me: Use, others: impl Iterator<Item = Use>) -> (u64, u64) {
    let (mut held, mut weight) = (0u64, me.weight());
    for other in others {
        held = held.saturating_add(other.held);
        weight = weight.saturating_add(other.weight());
    }
    let fair = (u128::from(total) * u128::from(me.weight()) / u128::from(weight)) as u64;
    let left = total.saturating_sub(held);
    let may = fair.max(left).max(LEAST).min(total.max(LEAST));
    (may, held.saturating_add(me.held))
}

impl Family {
    /// Has all processes share `bytes`.
    pub fn limit(&self, bytes: u64) {
        self.budget.store(bytes, Relaxed);
    }

    /// The most bytes that they were seen to have together; 0 when each has a
    /// budget of its own.
    pub fn peak(&self) -> u64 {
        self.peak.load(Relaxed)
    }

    /// Counts process `pid` from now on; `None` when it is on its own.
    pub(crate) fn join(&self, pid: u32) -> Option<&Member> {
        if self.budget.load(Relaxed) == 0 {
            return None;
        }
        // What it was before it became another program.
        self.leave(pid);
        let is_free = |m: &&Member| m.pid.compare_exchange(0, pid, Relaxed, Relaxed).is_ok();
        let member = self.members.iter().find(is_free)?;
        member.say(0, 0);
        Some(member)
    }

    fn leave(&self, pid: u32) {
        for member in &self.members {
            let _ = member.pid.compare_exchange(pid, 0, Relaxed, Relaxed);
        }
    }

    /// Pages that the member may have now.
    pub(crate) fn share_of(&self, me: &Member) -> u64 {
        let total = self.budget.load(Relaxed) / tmem_wire::PAGE_SIZE as u64;
        let others = self.members.iter().filter(|m| !core::ptr::eq(*m, me));
        let counted = others.filter(|m| m.pid.load(Relaxed) != 0);
        let (may, held) = share(total, me.use_now(), counted.map(Member::use_now));
        let bytes = held.saturating_mul(tmem_wire::PAGE_SIZE as u64);
        self.peak.fetch_max(bytes, Relaxed);
        may
    }

    /// Looks at one member after another, beginning behind `from`, whether it is
    /// gone; where to go on.
    pub(crate) fn sweep(&self, from: usize, is_gone: impl Fn(u32) -> bool) -> usize {
        /// So many at a time.
        const LOOKS: usize = 16;
        let mut looks = 0;
        for step in 1..=MEMBERS {
            let at = (from + step) % MEMBERS;
            let pid = self.members[at].pid.load(Relaxed);
            if pid == 0 {
                continue;
            }
            if is_gone(pid) {
                self.leave(pid);
            }
            looks += 1;
            if looks == LOOKS {
                return at;
            }
        }
        from
    }
}

impl Member {
    /// Says what it has and wants: pages, and pages a second.
    pub(crate) fn say(&self, held: u64, need: u32) {
        self.held.store(held, Relaxed);
        self.need.store(need, Relaxed);
    }

    fn use_now(&self) -> Use {
        Use {
            held: self.held.load(Relaxed),
            need: u64::from(self.need.load(Relaxed)),
        }
    }

    /// Whether it counts for `pid`: who is taken for gone by mistake, is not.
    pub(crate) fn is(&self, pid: u32) -> bool {
        self.pid.load(Relaxed) == pid
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::boxed::Box;
    use std::vec::Vec;

    fn family(pages: u64) -> Box<Family> {
        // SAFETY: all zeros is a valid value of every field, and is its start.
        let family: Box<Family> = unsafe { Box::new_zeroed().assume_init() };
        family.limit(pages * tmem_wire::PAGE_SIZE as u64);
        family
    }

    /// Each goes half of the way to what it may have, as often as asked; what
    /// each wants is `wish`.
    fn settle(family: &Family, members: &[(&Member, u64, u32)], rounds: usize) -> Vec<u64> {
        for _ in 0..rounds {
            for (member, wish, need) in members {
                let (held, may) = (member.use_now().held, family.share_of(member).min(*wish));
                member.say((held + may).div_ceil(2), *need);
            }
        }
        members.iter().map(|m| m.0.use_now().held).collect()
    }

    #[test]
    fn one_process_may_have_everything_and_two_that_want_the_same_have_half_each() {
        let family = family(100_000);
        let first = family.join(1).unwrap();
        assert_eq!(settle(&family, &[(first, u64::MAX, 9)], 60), [100_000]);
        let second = family.join(2).unwrap();
        let both = [(first, u64::MAX, 9), (second, u64::MAX, 9)];
        let held = settle(&family, &both, 60);
        assert!(held.iter().all(|h| h.abs_diff(50_000) <= 1), "{held:?}");
        // One that wants less leaves the rest.
        let both = [(first, u64::MAX, 9), (second, 20_000, 0)];
        let [a, b] = settle(&family, &both, 60)[..] else {
            unreachable!()
        };
        assert!(b >= 19_999 && a + b <= 100_001, "{a} {b}");
        assert!(family.peak() > 100_000 * 4096);
    }

    #[test]
    fn who_asks_for_pages_gets_the_memory_of_who_does_not() {
        let family = family(100_000);
        let (idle, busy) = (family.join(1).unwrap(), family.join(2).unwrap());
        settle(&family, &[(idle, 90_000, 0)], 60);
        let both = [(idle, 90_000, 0), (busy, 90_000, 20_000)];
        let [a, b] = settle(&family, &both, 60)[..] else {
            unreachable!()
        };
        assert!(b >= 89_000 && a + b <= 100_002, "{a} {b}");
    }

    #[test]
    fn who_is_gone_or_became_another_program_is_not_counted() {
        let family = family(100_000);
        let me = family.join(1).unwrap();
        family.join(2).unwrap().say(70_000, 9000);
        assert!(family.share_of(me) < 40_000);
        let at = family.sweep(0, |pid| pid == 2);
        assert_eq!(family.share_of(me), 100_000);
        assert!(me.is(1));
        family.sweep(at, |pid| pid == 1);
        assert!(!me.is(1));
        family.join(3).unwrap().say(70_000, 0);
        assert!(family.join(3).is_some());
        let me = family.join(1).unwrap();
        assert_eq!(family.share_of(me), 100_000);
    }

    #[test]
    fn without_a_common_budget_nobody_is_a_member_and_beyond_the_last_place_neither() {
        assert!(family(0).join(1).is_none());
        let family = family(100_000);
        assert!((1..=MEMBERS as u32).all(|pid| family.join(pid).is_some()));
        assert!(family.join(MEMBERS as u32 + 1).is_none());
    }

    proptest! {
        #[test]
        fn members_that_want_everything_end_within_the_budget(
            total in 600_000u64..1 << 40, needs in proptest::collection::vec(0u32..100_000, 1..40),
        ) {
            let family = family(total);
            let members: Vec<_> = (1..).zip(&needs)
                .map(|(pid, need)| (family.join(pid).unwrap(), u64::MAX, *need)).collect();
            let held: u64 = settle(&family, &members, 80).iter().sum();
            let least = LEAST * members.len() as u64;
            prop_assert!(held <= total + least + members.len() as u64);
            prop_assert!(held >= total - total / 100);
        }
    }
}
