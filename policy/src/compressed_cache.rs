//! Compressed cache sizer: decides how much of the local budget holds compressed copies of
//! evicted pages.
//!
//! A page of memory that the program does not have costs it faults. Filled with compressed
//! copies it saves several times as many requests to a server, each of which takes longer
//! than to decompress a copy. Whether that is a gain depends on the program, on its data and on
//! the network. So it is first estimated and then measured. (The trade of size against
//! faults is that of Wilson, Kaplan and Smaragdakis, "The case for compressed caching in
//! virtual memory systems", USENIX 1999.)
//!
//! - While there are no copies, a model estimates the gain: pages that are elsewhere are
//!   equally likely to be asked for next, and those that have to leave for the copies' sake as
//!   likely as any of them.
//! - While there are copies, the gain is measured. Without copies each page that was waited
//!   for would have taken as long as it did when there were none, less those that came back so
//!   soon after they left that they would have stayed. If all that the process did and waited
//!   for took less, the difference is the gain.
//!
//! Time is divided into periods: the time in which an eighth of the budget is evicted.
//!
//! Invariants, tested in `tests.rs`:
//! - the size never exceeds [`largest`];
//! - without measurements there are no copies;
//! - a size that was no gain is not tried again before a pause, which doubles.

/// Nanoseconds that a fault takes besides the request to the server.
const ASKED_NS: u64 = 5_000;
/// What a fault takes besides decompressing a copy, as a multiple of that: both are work of
/// the same CPU, be it quick or slow. It is more than besides a request, because the page that
/// has to leave in exchange does not leave while an answer is awaited.
const FOUND: u64 = 6;
/// Nanoseconds to decompress a page, and to compress one, before they were measured.
const HIT_NS: u64 = 4_000;
const MAKE_NS: u64 = 5_000;
/// A longer time counts as this long: another process had the CPU.
const LONGEST_NS: u64 = 200_000;
/// The most that the copies may have, in eighths of what the program and they have together.
const MOST: usize = 6;
/// Less than one in this many of that is not worth the trouble.
const LEAST: usize = 32;
/// Fewer requests than this in a period say nothing.
const FEW: u64 = 64;
/// Copies are begun if the model promises a cost below this many eighths of that without.
const PROMISE: u64 = 5;
/// Periods before copies are tried again after they were no gain: twice as many each time. A
/// trial takes about twenty.
const PAUSE: u32 = 64;
const LONGEST_PAUSE: u32 = 1024;
/// While there are copies, the average time of a request falls by one in this many of the
/// difference.
const SLOWLY: u64 = 8;
/// An observation counts once it was the same in this many periods in a row.
const PATIENCE: u32 = 3;

/// The most pages of memory that copies may have, where they and the program may have
/// `target`.
pub fn largest(target: usize) -> usize {
    target / 8 * MOST
}

/// Bits behind the point of a fixed-point number.
const SHIFT: u32 = 16;

/// How many evictions there are until `room` different pages have left, of `elsewhere` of
/// which each is as likely to leave: a page that comes back and leaves again counts each time.
pub fn evictions_until(room: usize, elsewhere: usize) -> usize {
    let (room, elsewhere) = (room as u64, elsewhere.max(2 * room).max(1) as u64);
    // elsewhere * -ln(1 - room / elsewhere), as a series that is exact enough up to one half:
    // a fault waits for one division.
    let share = (room << SHIFT) / elsewhere;
    let mut power = room;
    let mut sum = 0;
    for n in 1..=6 {
        sum += power / n;
        power = (power * share) >> SHIFT;
    }
    sum as usize
}

/// A number of events, and how long they took together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// How often.
    pub n: u64,
    /// Nanoseconds in all.
    pub ns: u64,
}

impl Times {
    /// Adds one that took `ns` nanoseconds.
    pub fn add(&mut self, ns: u64) {
        self.n += 1;
        self.ns += ns.min(LONGEST_NS);
    }

    fn mean(&self, before: u64) -> u64 {
        self.ns.checked_div(self.n).unwrap_or(before)
    }
}

/// What happened in one period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheSample {
    /// Pages that left the program.
    pub left: u64,
    /// Requests to servers for which a thread waited.
    pub asked: Times,
    /// Pages that were waited for and of which there was a copy.
    pub hits: Times,
    /// Of these, those that had left so recently that they would still be in the program if it
    /// had the memory of the copies.
    pub young: u64,
    /// Pages that were compressed, with or without success.
    pub made: Times,
    /// Bytes that they took, headers included; a whole page for each one that was not worth it.
    pub bytes: u64,
    /// Nanoseconds of CPU time of the whole process, and of waiting asleep for a server; 0 if
    /// unknown.
    pub busy_ns: u64,
}

impl CacheSample {
    /// Pages that were waited for.
    fn waited(&self) -> u64 {
        self.asked.n + self.hits.n
    }

    /// Whether the program waits for most of the pages that it gets.
    fn waits(&self) -> bool {
        self.waited() >= FEW && self.waited() * 2 >= self.left
    }
}

/// How memory is used at the end of a period, in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheState {
    /// What the program and the copies may have together.
    pub target: usize,
    /// Pages on servers only.
    pub remote: usize,
    /// Memory that the copies have.
    pub has: usize,
    /// Memory that they may have.
    pub may_have: usize,
}

/// What was learnt.
#[derive(Debug)]
pub struct CacheSizer {
    /// Average nanoseconds of a request, of decompressing and of compressing a page.
    asked_ns: u64,
    hit_ns: u64,
    make_ns: u64,
    /// CPU and waiting time for each page that was waited for while there were no copies.
    without_ns: u64,
    /// Bytes of a compressed page; 0 if unknown.
    packed: u64,
    /// Periods of the pause that are left, and of the next pause.
    wait: u32,
    pause: u32,
    /// Periods in a row without a gain.
    losses: u32,
    /// Periods in a row in which the program waited for most pages; while there are copies,
    /// in which it did not.
    waits: u32,
    /// The most that copies may have until the pause is over: more was no gain.
    cap: usize,
    /// Pages that left since the size was changed last.
    since: u64,
}

impl Default for CacheSizer {
    fn default() -> CacheSizer {
        CacheSizer {
            asked_ns: 0,
            hit_ns: HIT_NS,
            make_ns: MAKE_NS,
            without_ns: 0,
            packed: 0,
            wait: 0,
            pause: PAUSE,
            losses: 0,
            waits: 0,
            cap: usize::MAX,
            since: 0,
        }
    }
}

impl CacheSizer {
    /// Takes in a period that has ended. Returns how many pages of memory the copies may have
    /// from here on.
    pub fn update(&mut self, seen: &CacheSample, now: &CacheState) -> usize {
        self.learn(seen, now.may_have > 0);
        let most = largest(now.target).min(self.cap);
        if self.wait > 0 {
            self.wait -= 1;
            if self.wait == 0 {
                self.cap = usize::MAX;
            }
        }
        if now.may_have == 0 {
            self.waits = if seen.waits() { self.waits + 1 } else { 0 };
            return match self.waits >= PATIENCE && most > 0 {
                true => self.begin(now, most),
                false => 0,
            };
        }
        self.waits = if seen.waits() { 0 } else { self.waits + 1 };
        if self.waits >= PATIENCE {
            // Pages that are read ahead need no copies, and need the memory.
            self.waits = 0;
            return 0;
        }
        self.since += seen.left;
        let may_have = now.may_have.min(most);
        // Copies are few until the cache is full, or every page has left once.
        let full = now.has >= now.may_have;
        if !full && self.since < (now.target + now.remote) as u64 {
            return may_have;
        }
        if self.gain(seen) > 0 {
            self.losses = 0;
            if self.wait == 0 {
                self.pause = PAUSE;
            }
            return self.adjust(now, may_have, most);
        }
        self.losses += 1;
        match self.losses < PATIENCE {
            true => may_have,
            false => self.give_way(now),
        }
    }

    /// Halves the size, or gives it up: less may be a gain where this much is none.
    fn give_way(&mut self, now: &CacheState) -> usize {
        let half = now.may_have / 2;
        self.cap = match half < now.target / LEAST {
            true => 0,
            false => half,
        };
        self.losses = 0;
        self.since = 0;
        self.wait = self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        self.cap
    }

    fn learn(&mut self, seen: &CacheSample, has_copies: bool) {
        if seen.asked.n >= FEW {
            let asked = seen.asked.mean(0);
            self.asked_ns = match has_copies {
                false => asked,
                // The few requests that are left take longer each than all would: they find
                // everybody asleep.
                true => self.asked_ns - self.asked_ns.saturating_sub(asked) / SLOWLY,
            };
        }
        if !has_copies && seen.waits() && seen.busy_ns > 0 {
            let each = seen.busy_ns / seen.waited();
            self.without_ns = match self.without_ns {
                0 => each,
                before => (before * 3 + each) / 4,
            };
        }
        self.hit_ns = seen.hits.mean(self.hit_ns);
        self.make_ns = seen.made.mean(self.make_ns);
        if let Some(bytes) = seen.bytes.checked_div(seen.made.n) {
            self.packed = bytes.max(1);
        }
    }

    /// The gain of a period, in nanoseconds.
    fn gain(&self, seen: &CacheSample) -> i64 {
        let would = seen.waited().saturating_sub(seen.young);
        (self.without_ns * would) as i64 - seen.busy_ns as i64
    }

    /// The cost in the model: that of an average page that is asked for, times the number of
    /// pages that are elsewhere, with copies in `copies` pages of memory.
    fn cost(&self, target: usize, remote: usize, copies: usize) -> u64 {
        let elsewhere = (remote + copies) as u64;
        let copied = (copies * tmem_wire::PAGE_SIZE) as u64 / self.packed.max(1);
        // Pages that came back have a copy, too.
        let all = (target + remote) as u64;
        let held = elsewhere * copied.min(all) / all.max(1);
        let missed = elsewhere - held;
        let make = if missed > 0 { self.make_ns } else { 0 };
        held * self.hit_ns * (1 + FOUND) + missed * (ASKED_NS + self.asked_ns + make)
    }

    fn begin(&mut self, now: &CacheState, most: usize) -> usize {
        if self.packed == 0 || self.asked_ns == 0 || self.without_ns == 0 {
            return 0;
        }
        let without = self.cost(now.target, now.remote, 0);
        let (copies, cost) = self.best(now.target, now.remote, most);
        self.since = 0;
        match cost < without / 8 * PROMISE {
            true => copies,
            false => 0,
        }
    }

    /// The best size in the model, and its cost.
    fn best(&self, target: usize, remote: usize, most: usize) -> (usize, u64) {
        let sizes = (0..=8).map(|n| most / 8 * n);
        let costs = sizes.map(|copies| (copies, self.cost(target, remote, copies)));
        costs.min_by_key(|(_, cost)| *cost).unwrap_or((0, 0))
    }

    /// Follows a program that needs more copies than before, or fewer.
    fn adjust(&mut self, now: &CacheState, may_have: usize, most: usize) -> usize {
        let without = now.remote.saturating_sub(now.has);
        let (copies, cost) = self.best(now.target, without, most);
        if copies > 0 && cost < self.cost(now.target, without, may_have) / 16 * 15 {
            self.since = 0;
            return copies;
        }
        may_have
    }
}

#[cfg(test)]
mod tests;
