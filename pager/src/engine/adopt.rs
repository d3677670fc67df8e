//! Finds memory of the program to page, and registers it.

use crate::engine::calls::relinquish;
use crate::engine::exclusion;
use crate::engine::exclusion::ChangesBlocked;
use crate::engine::fork;
use crate::engine::map_throttle;
use crate::engine::map_throttle::SMALLEST;
use crate::engine::memory::Memory;
use crate::engine::memory::report::DEBUG;
use crate::engine::threads::THREADS;
use crate::engine::unpaged::Unpaged;
use crate::maps;
use crate::sys::{now_ns, thread, uffd};
use alloc::format;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use rustix::io::Errno;
use tmem_wire::PAGE_SIZE;

/// Pages that must appear outside the adopted ranges before the engine searches for new
/// memory: a share of 1/`GROWTH_SHARE` of the budget, within bounds. A program gives much
/// of its new memory back a moment later, and adopting that would be waste.
const GROWTH_SHARE: usize = 32;
const LEAST_GROWTH: usize = 128;
const MOST_GROWTH: usize = 2048;
/// Pause after a search, in multiples of the time that it took. With resident memory above
/// the throttle watermark the pause is as long as the search.
const PAUSE_PER_SEARCH: u64 = 8;
/// The shortest pause between two searches, when memory has grown and when it has not.
const LEAST_NS: u64 = 1_000_000;
const IDLE_NS: u64 = 20_000_000;
/// Mappings below [`SMALLEST`] are adopted only once all of them together exceed
/// 1/`SMALL_SHARE` of the budget, within bounds. Each costs several system calls, and most
/// programs have a few that are not worth it.
const SMALL_SHARE: usize = 64;
const LEAST_SMALL: usize = 1 << 20;
const MOST_SMALL: usize = 16 << 20;
/// A mapping directly above a guard of at most `GUARD` bytes that is itself at most `STACK`
/// bytes long is taken for a thread's stack.
const GUARD: usize = 64 << 10;
const STACK: usize = 8 << 20;
/// Size and alignment of the C library's reservation for an arena. It makes the reservation
/// accessible bit by bit, without a report to the engine. So the inaccessible rest is
/// registered too, or threads that fill their arenas would outrun the engine.
const ARENA: usize = 64 << 20;

/// The search for memory to page.
#[derive(Debug, Default)]
pub(crate) struct Adoption {
    growth: Growth,
    pub(crate) unpaged: Unpaged,
}

/// Memory that has appeared outside the adopted ranges.
#[derive(Debug, Default)]
pub(crate) struct Growth {
    /// The lowest number of unadopted resident pages since the last search.
    least: i64,
    /// Enough memory has appeared since the last search to make another worthwhile.
    is_unseen: bool,
    /// When the last search ended, and the CPU time that it took.
    looked_ns: u64,
    cost_ns: u64,
}

impl Growth {
    /// Returns when to search again. Only the memory that is resident by then counts.
    fn next_ns(&self, grown: bool, over: bool) -> u64 {
        let share = if over { 1 } else { PAUSE_PER_SEARCH };
        // A search that finds nothing is not repeated at once.
        let least = if grown { LEAST_NS } else { IDLE_NS };
        self.looked_ns + (self.cost_ns * share).max(least)
    }
}

/// How many naps a thread takes while it waits for adoption, and their length.
const PATIENCE: u32 = 50_000;
const NAP_US: u64 = 200;

/// Has the engine adopt all memory that can be paged, if any is adopted already. Returns
/// whether that was done. Called by threads of the program, which wait.
///
/// The kernel does not merge a registered mapping with an unregistered one, and some system
/// calls need a single mapping.
pub fn adopt_all() -> bool {
    crate::engine::exclusion::are_reported() && adopt_now()
}

/// Has the engine adopt all memory that can be paged, even if none is adopted yet. Returns
/// whether that was done. Called by threads of a program that is paged, which wait.
pub fn adopt_now() -> bool {
    let ticket = THREADS.adoption.asked.fetch_add(1, AcqRel).wrapping_add(1);
    // The engine runs about every millisecond, unless the machine is busy.
    let answered = || THREADS.adoption.answered.load(Acquire).wrapping_sub(ticket) < u32::MAX / 2;
    thread::sleep_until(answered, PATIENCE, NAP_US)
}

impl Adoption {
    /// Notes how much is resident, and tells whether to search for new memory now. With
    /// `every`, the least growth is enough.
    pub(crate) fn is_due(
        &mut self,
        m: &mut Memory,
        every: bool,
        resident: usize,
        now: u64,
    ) -> bool {
        let outside = resident as i64 - m.held();
        let growth = &mut self.growth;
        growth.least = growth.least.min(outside);
        let grown = outside - growth.least >= growth_to_look_for(m, every);
        growth.is_unseen = grown;
        // A fault on unknown memory means that the memory is registered already. It can be
        // evicted once it is adopted.
        let wanted = grown || m.space.is_stale();
        let next = growth.next_ns(wanted, resident > m.residency.marks().throttle);
        if resident < m.residency.marks().adopt || now < next {
            return false;
        }
        let hungry = resident > m.residency.marks().evict && m.queue.pages() < 2048;
        let is_due = wanted || hungry;
        if is_due {
            m.space.set_stale(false);
            growth.is_unseen = false;
            growth.least = outside;
        }
        is_due
    }

    /// Notes that a search was made, and that it took `cost_ns` of CPU time.
    pub(crate) fn looked(&mut self, cost_ns: u64) {
        self.growth.cost_ns = cost_ns;
        self.growth.looked_ns = now_ns();
    }

    /// Tells whether memory has appeared that was not searched for yet.
    pub(crate) fn is_unseen(&self) -> bool {
        self.growth.is_unseen
    }
}

/// Returns how many pages have to appear before a search is worthwhile. With `every`, the
/// least possible.
fn growth_to_look_for(m: &Memory, every: bool) -> i64 {
    let share = match every {
        true => 0,
        false => m.residency.marks().evict / GROWTH_SHARE,
    };
    share.clamp(LEAST_GROWTH, MOST_GROWTH) as i64
}

/// Answers threads that asked for adoption by calling `adopt`.
pub(crate) fn answer(adopt: impl FnOnce()) {
    let asked = THREADS.adoption.asked.load(Acquire);
    if asked != THREADS.adoption.answered.load(Relaxed) {
        adopt();
        THREADS.adoption.answered.store(asked, Release);
    }
}

/// Registers all memory that can be paged, is not adopted yet and is not in `kept`. With
/// `every`, includes memory that would not be worth it. `unseen` says that the program may
/// have given advice on memory that the engine did not see. Returns whether anything was
/// registered.
pub(crate) fn adopt(m: &mut Memory, kept: &[Range<usize>], every: bool, unseen: bool) -> bool {
    let mut text = Vec::new();
    if m.mover.kernel().maps(&mut text).is_err() {
        return false;
    }
    let Candidates {
        ranges: mut found,
        executable,
    } = candidates(&text, every);
    let adopted: Vec<_> = m.space.adopted().iter().collect();
    maps::subtract(&mut found, &adopted);
    maps::subtract(&mut found, kept);
    maps::subtract(&mut found, relinquish::under_way().as_slice());
    leave_small(m, &mut found, every);
    exclusion::reports();
    let mode = uffd::REGISTER_MISSING | uffd::REGISTER_WP;
    // The list may be out of date. Memory that was unmapped before it is registered leaves
    // a hole that the kernel does not report, and a new mapping there is not registered. To
    // evict from it would lose pages. So changes are blocked until the list was checked.
    let _still = ChangesBlocked::begin();
    // Advice given so far is about older mappings, not about those adopted from here on.
    m.follow_advice();
    // Mappings that are registered may be merged with their neighbours, and then nothing tells
    // who has set the flag that the engine uses as well.
    let every_small = map_throttle::takes_small() || fork::state::is_child();
    let asks = unseen && !found.is_empty();
    let Ok(withheld) = m.find_withheld(every_small, asks) else {
        return false;
    };
    found.retain(|range| {
        m.mover
            .kernel()
            .register(range.start, range.len(), mode)
            .is_ok()
    });
    // Ranges that failed the check are found again by the next search.
    found.retain(|range| m.is_registered(range));
    // Memory that was moved may have arrived in these ranges just now.
    let adopted: Vec<_> = m.space.adopted().iter().collect();
    maps::subtract(&mut found, &adopted);
    m.note_withheld(&withheld, &found);
    found.iter().for_each(|range| m.space.adopt(range.clone()));
    // A hint that may be out of date: see `memory::transit`.
    for range in executable {
        m.mover.note_executable(range, true);
    }
    let mut bytes = 0;
    for range in found {
        bytes += range.len();
        m.withhold_from_forks(&range);
        m.enqueue_present(range);
    }
    m.report
        .stats
        .adopted_bytes
        .fetch_add(bytes as u64, Relaxed);
    if bytes > 0 {
        m.report.say(DEBUG, &format!("adopted {} KiB", bytes >> 10));
    }
    bytes > 0
}

/// Removes mappings from `found` that are too small to be worth it, unless together they
/// are large.
fn leave_small(m: &Memory, found: &mut Vec<Range<usize>>, every: bool) {
    let small = found.iter().filter(|range| range.len() < SMALLEST);
    let bytes: usize = small.map(ExactSizeIterator::len).sum();
    let budget = m.residency.marks().evict * PAGE_SIZE;
    let much = (budget / SMALL_SHARE).clamp(LEAST_SMALL, MOST_SMALL);
    if every || bytes >= much {
        map_throttle::small_too();
    } else {
        found.retain(|range| range.len() >= SMALLEST);
    }
}

/// Adopts memory by which adopted mappings have grown in place, which the kernel does not
/// report. Such memory is registered, and withheld from forks, like the mapping that it
/// belongs to.
pub(crate) fn notice_growth(m: &mut Memory, kept: &[Range<usize>]) -> Result<(), Errno> {
    let mut text = Vec::new();
    m.mover.kernel().maps(&mut text)?;
    let mut grown = Vec::new();
    for mapping in maps::parse(&text).filter_map(Result::ok) {
        let range = mapping.start..mapping.end;
        let adopted = m.space.adopted().within(&range);
        let Some(last) = adopted.last().filter(|_| maps::eligible(&mapping)) else {
            continue;
        };
        if last.end < range.end && m.space.dontfork().around(last.end - 1).is_some() {
            m.space.withhold(last.end..range.end);
        }
        grown.push(range);
    }
    maps::subtract(&mut grown, kept);
    for range in grown {
        // A range that fails the check is another mapping by now.
        if m.is_registered(&range) {
            m.space.adopt(range);
        }
    }
    Ok(())
}

/// The parts of a list of mappings that may be paged.
struct Candidates {
    ranges: Vec<Range<usize>>,
    /// The executable ones among them.
    executable: Vec<Range<usize>>,
}

/// Finds the ranges that may be paged in a list of mappings. With `every`, includes those
/// that look like a thread's stack.
fn candidates(text: &[u8], every: bool) -> Candidates {
    let (mut found, mut executable) = (Vec::new(), Vec::new());
    // End and size of the mapping before, if it is inaccessible.
    let mut guard = (0, 0);
    for mapping in maps::parse(text) {
        // A line that cannot be parsed is left out, with the mapping that it names.
        let Ok(m) = mapping else { continue };
        let len = m.end - m.start;
        if maps::eligible(&m) && (m.perms.r || m.perms.w) {
            let stack = guard.0 == m.start && guard.1 <= GUARD && len <= STACK;
            if every || !stack {
                found.push(m.start..m.end);
                if m.perms.x {
                    executable.push(m.start..m.end);
                }
            }
        }
        let unusable = !m.perms.r && !m.perms.w && !m.perms.x && m.inode == 0;
        let follows = found.last().is_some_and(|f| f.end == m.start);
        if unusable && maps::eligible(&m) && follows && m.end % ARENA == 0 && len < ARENA {
            found.push(m.start..m.end);
        }
        guard = if unusable { (m.end, len) } else { (0, 0) };
    }
    Candidates {
        ranges: found,
        executable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grew_over_the_budget_is_looked_for_soon_whatever_was_thought_before() {
        let growth = Growth {
            looked_ns: 100_000_000,
            cost_ns: 7_000_000,
            ..Growth::default()
        };
        assert_eq!(growth.next_ns(true, true), 107_000_000);
        assert_eq!(growth.next_ns(true, false), 156_000_000);
        assert_eq!(growth.next_ns(false, true), 120_000_000);
    }

    #[test]
    fn heaps_and_mappings_are_found_and_stacks_and_code_are_not() {
        let text = b"\
55d0c0a00000-55d0c0a21000 rw-p 00000000 fe:01 1311 /usr/bin/program
55d0c0a21000-55d0c0b21000 rw-p 00000000 00:00 0 
55d0c1000000-55d0c1021000 rw-p 00000000 00:00 0                          [heap]
7f0000000000-7f0040000000 rw-p 00000000 00:00 0 
7f0040000000-7f0040001000 ---p 00000000 00:00 0 
7f0040001000-7f0040801000 rw-p 00000000 00:00 0 
7f0050000000-7f0050001000 r--p 00000000 00:00 0 
7f0060000000-7f0064000000 ---p 00000000 00:00 0 
7f0064000000-7f0064100000 rw-p 00000000 00:00 0 
7f0070000000-7f0070100000 rw-p 00000000 00:00 0 
7f0070100000-7f0074000000 ---p 00000000 00:00 0 
7f0080000000-7f0080100000 rw-p 00000000 00:00 0 
7f0080100000-7f0083000000 ---p 00000000 00:00 0 
7f0090000000-7f0090100000 rwxp 00000000 00:00 0 
7f0098000000-7f0098100000 r-xp 00000000 00:00 0 
7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0                          [stack]
";
        let found = candidates(text, false);
        let executable = 0x7f0090000000..0x7f0090100000;
        assert_eq!(found.executable, core::slice::from_ref(&executable));
        assert_eq!(
            found.ranges,
            [
                0x55d0c0a21000..0x55d0c0b21000,
                0x55d0c1000000..0x55d0c1021000,
                0x7f0000000000..0x7f0040000000,
                // Filled first, and made read-only later.
                0x7f0050000000..0x7f0050001000,
                0x7f0064000000..0x7f0064100000,
                // An arena, with its reserve.
                0x7f0070000000..0x7f0070100000,
                0x7f0070100000..0x7f0074000000,
                0x7f0080000000..0x7f0080100000,
                0x7f0090000000..0x7f0090100000,
            ]
        );
    }
}
