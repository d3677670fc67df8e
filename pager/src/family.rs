//! The shared budget: one budget for all processes of a program.
//!
//! Each process says, in shared memory, how much memory it has resident and how often it
//! reads pages from servers. From what the others say, it computes its own share: all that
//! the others leave, or its fair share if that is more. Fair shares are weighted by need: a
//! process that reads many pages gets most, and one that only holds memory gives it up.
//! When one process grows into its fair share, the others see less left for them, and
//! shrink.
//!
//! There is no lock, and nothing has to be given back, so a process may end at any
//! instruction. Each process has an entry with a *robust futex*: a word that holds a
//! thread's number, and that the kernel marks when the thread ends for any reason. So no
//! process has to look up others by their process numbers, which differ between PID
//! namespaces, and no living process is ever taken for dead.

use crate::live::Live;
use crate::sys::thread;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use core::sync::atomic::{AtomicU32, AtomicU64};

/// The most processes that are counted. Further ones have [`LEAST`] pages each.
const MEMBERS: usize = 1024;

/// The fewest pages that a process may have: 8 MiB. With fewer it would do little but wait.
const LEAST: u64 = 2048;

/// Pages read per second that double the weight of a process.
const WANT: u64 = 64;

/// The bits of a robust futex that hold the thread's number. The kernel clears them when
/// the thread ends (`FUTEX_TID_MASK`).
const OWNER: u32 = 0x3fff_ffff;

/// The entry of one process.
#[repr(C, align(64))]
pub struct Member {
    /// The robust futex of the thread that updates this entry: see [`OWNER`].
    owner: AtomicU32,
    /// Pages read from servers per second.
    need: AtomicU32,
    /// Resident pages that count against the budget.
    held: AtomicU64,
    /// Pages whose only copy is on servers.
    remote: AtomicU64,
    /// Bytes of memory that its local tier has.
    tier: AtomicU64,
    /// The thread's list of robust futexes (`struct robust_list_head`), with addresses of
    /// its own process. It lies in shared memory, which the kernel does not take away from
    /// a process that it kills for lack of memory.
    list: [AtomicU64; 3],
    /// The only entry of that list: the address of the list again.
    entry: AtomicU64,
    /// Its control words.
    pub(crate) live: Live,
}

/// The shared budget. All zeros is its initial state, in which each process has a budget of
/// its own.
#[repr(C)]
pub struct Family {
    /// The budget in bytes, or 0.
    budget: AtomicU64,
    /// The most pages that all processes had together, resident and on servers.
    peak: AtomicU64,
    remote_peak: AtomicU64,
    /// Number of entries that were ever used.
    used: AtomicU32,
    members: [Member; MEMBERS],
}

/// What a process has, and needs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Use {
    /// Resident pages.
    pub(crate) held: u64,
    /// Pages read per second.
    pub(crate) need: u32,
    /// Pages on servers only.
    pub(crate) remote: u64,
}

impl Use {
    fn weight(self) -> u64 {
        WANT + u64::from(self.need)
    }
}

/// Computes how many of `total` pages a process may have, and what all processes have.
fn share(total: u64, me: Use, others: impl Iterator<Item = Use>) -> (u64, Use) {
    let (mut held, mut weight) = (0u64, me.weight());
    let mut remote = me.remote;
    for other in others {
        held = held.saturating_add(other.held);
        remote = remote.saturating_add(other.remote);
        weight = weight.saturating_add(other.weight());
    }
    let fair = (u128::from(total) * u128::from(me.weight()) / u128::from(weight)) as u64;
    let left = total.saturating_sub(held);
    let may = fair.max(left).max(LEAST).min(total.max(LEAST));
    let all = Use {
        held: held.saturating_add(me.held),
        remote,
        ..me
    };
    (may, all)
}

impl Family {
    /// Sets the budget, in bytes, for all processes together.
    pub fn limit(&self, bytes: u64) {
        self.budget.store(bytes, Relaxed);
    }

    /// Returns the budget in bytes; `None` if each process has a budget of its own.
    pub fn budget(&self) -> Option<u64> {
        Some(self.budget.load(Relaxed)).filter(|bytes| *bytes > 0)
    }

    /// Iterates over the control words of all living processes.
    pub fn living(&self) -> impl Iterator<Item = &Live> {
        let used = (self.used.load(Acquire) as usize).min(MEMBERS);
        let taken = self.members[..used].iter().filter(|m| m.is_taken());
        taken.map(|m| &m.live)
    }

    /// Returns the most memory, in bytes, that all processes had resident at one moment.
    /// Memory that several share counts once.
    pub fn peak(&self) -> u64 {
        let pages = self.peak.load(Relaxed);
        pages.saturating_mul(tmem_wire::PAGE_SIZE as u64)
    }

    /// Returns the most memory, in bytes, that all processes had on servers only at one
    /// moment.
    pub fn remote_peak(&self) -> u64 {
        let pages = self.remote_peak.load(Relaxed);
        pages.saturating_mul(tmem_wire::PAGE_SIZE as u64)
    }

    /// Takes an entry for the calling thread's process until that thread ends. Returns
    /// `None` when all are taken.
    pub(crate) fn join(&self) -> Option<&Member> {
        let me = thread::id() & OWNER;
        let at = self.members.iter().position(|m| m.take(me))?;
        self.used.fetch_max(at as u32 + 1, AcqRel);
        let member = &self.members[at];
        member.mark_at_end();
        Some(member)
    }

    /// Returns how many living processes have an entry.
    pub(crate) fn count(&self) -> usize {
        self.living().count()
    }

    /// Returns the bytes of memory that the local tiers of other processes have.
    pub(crate) fn tiers_beside(&self, me: &Member) -> u64 {
        let used = (self.used.load(Acquire) as usize).min(MEMBERS);
        let others = self.members[..used].iter();
        let others = others.filter(|m| !core::ptr::eq(*m, me) && m.is_taken());
        others.map(|m| m.tier.load(Relaxed)).sum()
    }

    /// Returns how many pages the member may have now, or `None` if there is no shared
    /// budget. A process without an entry has the least possible.
    pub(crate) fn share_of(&self, me: Option<&Member>) -> Option<u64> {
        let total = self.budget.load(Relaxed) / tmem_wire::PAGE_SIZE as u64;
        let may = match me {
            Some(me) => {
                let used = (self.used.load(Acquire) as usize).min(MEMBERS);
                let others = self.members[..used].iter();
                let others = others.filter(|m| !core::ptr::eq(*m, me) && m.is_taken());
                let (may, all) = share(total, me.use_now(), others.map(Member::use_now));
                self.peak.fetch_max(all.held, Relaxed);
                self.remote_peak.fetch_max(all.remote, Relaxed);
                may
            }
            None => LEAST,
        };
        (total != 0).then_some(may)
    }
}

impl Member {
    /// Takes the entry for a thread, if it is free. Returns whether it was.
    fn take(&self, thread: u32) -> bool {
        let now = self.owner.load(Acquire);
        if now & OWNER != 0
            || self
                .owner
                .compare_exchange(now, thread, AcqRel, Acquire)
                .is_err()
        {
            return false;
        }
        self.say(Use::default());
        self.say_tier(0);
        true
    }

    /// Has the kernel mark the entry when the calling thread, which has taken it, ends.
    fn mark_at_end(&self) {
        let address = |at: *const AtomicU64| at.addr() as u64;
        let (list, entry) = (address(self.list.as_ptr()), address(&raw const self.entry));
        let word = (&raw const self.owner).addr() as u64;
        self.entry.store(list, Relaxed);
        for (field, value) in self.list.iter().zip([entry, word.wrapping_sub(entry), 0]) {
            field.store(value, Relaxed);
        }
        // SAFETY: the list has one entry that leads back to it, and stays mapped while the
        // thread lives.
        unsafe { thread::set_robust_list(list as usize) };
    }

    /// Tells whether a living process has the entry.
    fn is_taken(&self) -> bool {
        self.owner.load(Relaxed) & OWNER != 0
    }

    /// Publishes what the process has, and needs.
    pub(crate) fn say(&self, now: Use) {
        self.held.store(now.held, Relaxed);
        self.need.store(now.need, Relaxed);
        self.remote.store(now.remote, Relaxed);
    }

    /// Publishes how many bytes of memory its local tier has.
    pub(crate) fn say_tier(&self, bytes: u64) {
        self.tier.store(bytes, Relaxed);
    }

    fn use_now(&self) -> Use {
        Use {
            held: self.held.load(Relaxed),
            need: self.need.load(Relaxed),
            remote: self.remote.load(Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::boxed::Box;
    use std::sync::mpsc;
    use std::vec::Vec;

    fn family(pages: u64) -> Box<Family> {
        // SAFETY: all zeros is a valid value of every field.
        let family: Box<Family> = unsafe { Box::new_zeroed().assume_init() };
        family.limit(pages * tmem_wire::PAGE_SIZE as u64);
        family
    }

    /// An entry whose thread never ends.
    fn member(family: &Family, id: u32) -> &Member {
        let at = family.members.iter().position(|m| m.take(id)).unwrap();
        family.used.fetch_max(at as u32 + 1, AcqRel);
        &family.members[at]
    }

    fn using(held: u64, need: u32) -> Use {
        Use {
            held,
            need,
            remote: 0,
        }
    }

    /// Moves each member halfway to its share, `rounds` times. Each wants as much as its
    /// wish.
    fn settle(family: &Family, members: &[(&Member, u64, u32)], rounds: usize) -> Vec<u64> {
        for _ in 0..rounds {
            for (member, wish, need) in members {
                let may = family.share_of(Some(member)).unwrap().min(*wish);
                let held = member.use_now().held;
                member.say(using((held + may).div_ceil(2), *need));
            }
        }
        members.iter().map(|m| m.0.use_now().held).collect()
    }

    #[test]
    fn one_process_may_have_everything_and_two_that_want_the_same_have_half_each() {
        let family = family(100_000);
        let first = member(&family, 1);
        assert_eq!(settle(&family, &[(first, u64::MAX, 9)], 60), [100_000]);
        let second = member(&family, 2);
        let both = [(first, u64::MAX, 9), (second, u64::MAX, 9)];
        let held = settle(&family, &both, 60);
        assert!(held.iter().all(|h| h.abs_diff(50_000) <= 1), "{held:?}");
        // A process that wants less leaves the rest to others.
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
        let (idle, busy) = (member(&family, 1), member(&family, 2));
        settle(&family, &[(idle, 90_000, 0)], 60);
        let both = [(idle, 90_000, 0), (busy, 90_000, 20_000)];
        let [a, b] = settle(&family, &both, 60)[..] else {
            unreachable!()
        };
        assert!(b >= 89_000 && a + b <= 100_002, "{a} {b}");
    }

    #[test]
    fn processes_of_the_same_number_in_other_namespaces_are_counted_each() {
        let family = family(100_000);
        let (one, other) = (member(&family, 1), member(&family, 1));
        assert!(!core::ptr::eq(one, other));
        other.say(using(70_000, 0));
        one.say(using(20_000, 0));
        assert_eq!(family.share_of(Some(one)), Some(50_000));
        assert_eq!(family.peak(), 90_000 * 4096);
    }

    #[test]
    fn who_has_ended_is_not_counted_and_its_place_is_taken_again() {
        let family: &'static Family = Box::leak(family(100_000));
        let (joined, here) = mpsc::channel();
        let (end, ends) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let member = family.join().unwrap();
            member.say(Use {
                held: 70_000,
                need: 9000,
                remote: 500,
            });
            joined.send(()).unwrap();
            // The thread ends when the channel is closed.
            let _ = ends.recv();
        });
        here.recv().unwrap();
        let me = member(family, 77);
        assert!(family.share_of(Some(me)).unwrap() < 40_000);
        assert_eq!(family.remote_peak(), 500 * 4096);
        drop(end);
        thread.join().unwrap();
        // The kernel marks the entry at the very end of the thread, after `join` has
        // returned.
        while family.members[0].is_taken() {
            std::thread::yield_now();
        }
        assert_eq!(family.share_of(Some(me)), Some(100_000));
        assert!(core::ptr::eq(
            member(family, 3),
            &raw const family.members[0]
        ));
        assert_eq!(family.members[0].use_now().held, 0);
    }

    #[test]
    fn without_a_common_budget_all_are_counted_and_beyond_the_last_place_the_least_is_left() {
        let alone = family(0);
        let me = member(&alone, 1);
        me.say(using(5, 0));
        assert_eq!(alone.share_of(Some(me)), None);
        assert_eq!(alone.peak(), 5 * 4096);
        let family = family(100_000);
        for id in 1..=MEMBERS as u32 {
            member(&family, id);
        }
        assert!(family.members.iter().all(|m| !m.take(77)));
        assert_eq!(family.share_of(None), Some(LEAST));
    }

    proptest! {
        #[test]
        fn members_that_want_everything_end_within_the_budget(
            total in 600_000u64..1 << 40, needs in proptest::collection::vec(0u32..100_000, 1..40),
        ) {
            let family = family(total);
            let members: Vec<_> = (1..).zip(&needs)
                .map(|(id, need)| (member(&family, id), u64::MAX, *need)).collect();
            let held: u64 = settle(&family, &members, 80).iter().sum();
            let least = LEAST * members.len() as u64;
            prop_assert!(held <= total + least + members.len() as u64);
            prop_assert!(held >= total - total / 100);
        }
    }
}
