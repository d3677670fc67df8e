//! Compressed cache sizer: decides how much of the local budget holds compressed copies of
//! evicted pages.
//!
//! Memory that is taken from the program costs it faults. Filled with compressed copies,
//! the same memory saves several times as many requests to servers, each of which takes
//! longer than decompressing a copy. Whether that is a gain depends on the program, on its
//! data and on the network. So the gain is first estimated and then measured. (This trade
//! of size against faults is that of Wilson, Kaplan and Smaragdakis, "The case for
//! compressed caching in virtual memory systems", USENIX 1999.)
//!
//! - While there are no copies, a model estimates the gain. It assumes that all evicted
//!   pages are equally likely to be used next, and that pages which have to leave to make
//!   room for copies are as likely as these.
//! - While there are copies, the gain is measured. Without copies, each page that a thread
//!   waited for would have taken as long as such pages took before there were copies,
//!   except pages that returned so soon that they would not have left. The gain is the
//!   difference to the time that the process really used and waited.
//!
//! Time is divided into periods. A period ends when an eighth of the budget was evicted.
//!
//! Invariants, tested in `tests.rs`:
//! - the size never exceeds [`largest`];
//! - without measurements there are no copies;
//! - a size that was no gain is tried again only after a pause, which doubles each time.

/// Time of a fault without the request to the server, in nanoseconds.
const ASKED_NS: u64 = 5_000;
/// Time of a fault without decompressing a copy, as a multiple of decompression: both are
/// work of the same CPU, fast or slow. It is longer than for a fault with a request, since
/// the page that has to leave in exchange cannot leave while an answer is awaited.
const FOUND: u64 = 6;
/// Time to decompress a page, and to compress one, before they were measured, in
/// nanoseconds.
const HIT_NS: u64 = 4_000;
const MAKE_NS: u64 = 5_000;
/// The longest time that counts, in nanoseconds. A longer one means that another process
/// had the CPU.
const LONGEST_NS: u64 = 200_000;
/// The most memory of the copies, in eighths of what the program and the copies have
/// together.
const MOST: usize = 6;
/// Copies with less than 1/`LEAST` of that memory are not worth the trouble.
const LEAST: usize = 32;
/// The fewest requests in a period that allow a conclusion.
const FEW: u64 = 64;
/// Copies are introduced if the model promises a cost below `PROMISE`/8 of the cost
/// without.
const PROMISE: u64 = 5;
/// The first and the longest pause, in periods, after copies were no gain. Pauses double. A
/// trial takes about twenty periods.
const PAUSE: u32 = 64;
const LONGEST_PAUSE: u32 = 1024;
/// While there are copies, the average time of a request falls by 1/`SLOWLY` of the
/// difference.
const SLOWLY: u64 = 8;
/// Periods in a row with the same observation before it counts.
const PATIENCE: u32 = 3;

/// Returns the most pages of memory that copies may have, if they and the program may have
/// `target` together.
pub fn largest(target: usize) -> usize {
    target / 8 * MOST
}

/// Fraction bits of a fixed-point number.
const SHIFT: u32 = 16;

/// Returns how many evictions it takes until `room` different pages of `elsewhere` were
/// evicted, all of them equally likely. A page that returns and is evicted again counts
/// each time.
pub fn evictions_until(room: usize, elsewhere: usize) -> usize {
    let (room, elsewhere) = (room as u64, elsewhere.max(2 * room).max(1) as u64);
    // elsewhere * -ln(1 - room / elsewhere), as a series that is exact enough up to one
    // half. It needs only one division, since a fault waits for the result.
    let share = (room << SHIFT) / elsewhere;
    let mut power = room;
    let mut sum = 0;
    for n in 1..=6 {
        sum += power / n;
        power = (power * share) >> SHIFT;
    }
    sum as usize
}

/// A number of events, and their total time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// Number of events.
    pub n: u64,
    /// Total time in nanoseconds.
    pub ns: u64,
}

impl Times {
    /// Adds an event that took `ns` nanoseconds.
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
    /// Pages evicted.
    pub left: u64,
    /// Requests to servers for which a thread waited.
    pub asked: Times,
    /// Pages restored from copies for which a thread waited.
    pub hits: Times,
    /// Of these, pages that had left so recently that they would still be in the program if
    /// it had the memory of the copies.
    pub young: u64,
    /// Pages compressed, with or without success.
    pub made: Times,
    /// Bytes of the copies with their headers. A page that did not compress well counts
    /// whole.
    pub bytes: u64,
    /// CPU time of program and engine plus their time asleep waiting for servers, in
    /// nanoseconds. 0 if unknown.
    pub busy_ns: u64,
}

impl CacheSample {
    /// Pages that a thread waited for.
    fn waited(&self) -> u64 {
        self.asked.n + self.hits.n
    }

    /// Tells whether the program waits for most of the pages that it gets.
    fn waits(&self) -> bool {
        self.waited() >= FEW && self.waited() * 2 >= self.left
    }
}

/// Memory in use at the end of a period, in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheState {
    /// What the program and the copies may have together.
    pub target: usize,
    /// Pages on servers only.
    pub remote: usize,
    /// Memory in use by copies.
    pub has: usize,
    /// Memory that the copies may use.
    pub may_have: usize,
}

/// The sizer: averages, and the state of trials and pauses.
#[derive(Debug)]
pub struct CacheSizer {
    /// Average time of a request, of decompressing and of compressing a page, in
    /// nanoseconds.
    asked_ns: u64,
    hit_ns: u64,
    make_ns: u64,
    /// CPU and waiting time per page that a thread waited for, while there were no copies.
    without_ns: u64,
    /// Bytes of a compressed page; 0 if unknown.
    packed: u64,
    /// Periods left of the current pause, and the length of the next pause.
    wait: u32,
    pause: u32,
    /// Consecutive periods without a gain.
    losses: u32,
    /// Consecutive periods in which the program waited for most pages; while there are
    /// copies, in which it did not.
    waits: u32,
    /// The most memory for copies until the pause is over, since more was no gain.
    cap: usize,
    /// Pages evicted since the size last changed.
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
    /// Evaluates a period that has ended. Returns how many pages of memory the copies may
    /// have from here on.
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
            // Pages that are read ahead need no copies, but need the memory.
            self.waits = 0;
            return 0;
        }
        self.since += seen.left;
        let may_have = now.may_have.min(most);
        // There are few copies until the cache is full, or every page was evicted once.
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

    /// Halves the size, or gives up: a smaller cache may be a gain.
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
                // The few requests that are left take longer each than many would, since
                // they find every task asleep.
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

    /// Returns the gain of a period, in nanoseconds.
    fn gain(&self, seen: &CacheSample) -> i64 {
        let would = seen.waited().saturating_sub(seen.young);
        (self.without_ns * would) as i64 - seen.busy_ns as i64
    }

    /// Returns the cost in the model: the average time of a use times the number of evicted
    /// pages, with copies in `copies` pages of memory.
    fn cost(&self, target: usize, remote: usize, copies: usize) -> u64 {
        let elsewhere = (remote + copies) as u64;
        let copied = (copies * tmem_wire::PAGE_SIZE) as u64 / self.packed.max(1);
        // Pages that have returned to the program have a copy, too.
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

    /// Returns the best size in the model, and its cost.
    fn best(&self, target: usize, remote: usize, most: usize) -> (usize, u64) {
        let sizes = (0..=8).map(|n| most / 8 * n);
        let costs = sizes.map(|copies| (copies, self.cost(target, remote, copies)));
        costs.min_by_key(|(_, cost)| *cost).unwrap_or((0, 0))
    }

    /// Changes the size for a program that needs more copies than before, or fewer.
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
