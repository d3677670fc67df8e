//! How much memory packed copies may have.
//!
//! A page of memory that the program does not have costs it faults; filled with packed
//! copies it saves it several times as many questions to a server, each of which takes
//! longer than to unpack a copy. Whether that is a gain depends on the program, on what
//! is in its pages and on the network; so it is worked out from what has just been seen,
//! and found out by what then happens:
//!
//! - Before there are copies, by a model: that pages which are elsewhere are equally
//!   likely to be asked for next, and those that have to leave for the copies' sake as
//!   likely as any of them.
//! - While there are, by what everything takes: the pages that were waited for, less
//!   those that came back so soon after they left that they would have stayed, had there
//!   been no copies, would each have taken as long as when there were none. If all that
//!   the process did and waited for took less, that is the gain.

/// Nanoseconds that a fault takes beyond the question.
const ASKED_NS: u64 = 5_000;
/// Times as long as to unpack a copy takes the fault beyond it, which is the work of the
/// same processor, be it quick or slow. It is more than beyond a question, for what has to
/// leave does not leave while an answer is waited for.
const FOUND: u64 = 6;
/// What it takes to unpack a copy, and to make one, before that was measured.
const HIT_NS: u64 = 4_000;
const MAKE_NS: u64 = 5_000;
/// One time that is longer says nothing: somebody else had the processor.
const LONGEST_NS: u64 = 200_000;
/// In eighths of what there is for the program and the copies: the most that the copies
/// may have.
const MOST: usize = 6;
/// Less than one in so many of it is not worth the trouble.
const LEAST: usize = 32;
/// Fewer questions than this in a period say nothing.
const FEW: u64 = 64;
/// What is promised has to be less than so many eighths of what it costs without.
const PROMISE: u64 = 5;
/// Periods before it is tried again once it was no gain, which takes some twenty to find
/// out: twice as many each time.
const PAUSE: u32 = 64;
const LONGEST_PAUSE: u32 = 1024;
/// While there are copies, a question that took less than expected counts for one in so
/// many.
const SLOWLY: u64 = 8;
/// Periods in a row in which something has to be so before it is believed.
const PATIENCE: u32 = 3;

/// The most pages of memory that copies may have, of so many for them and the program.
pub fn largest(target: usize) -> usize {
    target / 8 * MOST
}

/// Shares are told in so many bits.
const SHIFT: u32 = 16;

/// How many pages leave, of `elsewhere` of which each is as likely to, until `room`
/// different ones have: a page that comes back and leaves again is counted each time.
pub fn evictions_until(room: usize, elsewhere: usize) -> usize {
    let (room, elsewhere) = (room as u64, elsewhere.max(2 * room).max(1) as u64);
    // Of the series of -ln(1 - room / elsewhere), what counts where that is up to a half;
    // of which a fault waits for one division.
    let share = (room << SHIFT) / elsewhere;
    let mut power = room;
    let mut sum = 0;
    for n in 1..=6 {
        sum += power / n;
        power = (power * share) >> SHIFT;
    }
    sum as usize
}

/// A number of times, and what they took together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// How often.
    pub n: u64,
    /// Nanoseconds in all.
    pub ns: u64,
}

impl Times {
    /// Adds one.
    pub fn add(&mut self, ns: u64) {
        self.n += 1;
        self.ns += ns.min(LONGEST_NS);
    }

    fn mean(&self, before: u64) -> u64 {
        self.ns.checked_div(self.n).unwrap_or(before)
    }
}

/// What was seen in one period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheSample {
    /// Pages that left the program.
    pub left: u64,
    /// Pages that a server was asked for while a thread waited.
    pub asked: Times,
    /// Those of which there was a copy.
    pub hits: Times,
    /// Of these, those that had left so lately that the copies' memory would have kept
    /// them in the program.
    pub young: u64,
    /// Pages that were packed, or tried.
    pub made: Times,
    /// Bytes that they took, headers included; a page where it was not worth it.
    pub bytes: u64,
    /// Nanoseconds of processor time of the whole process, and of waiting asleep for a
    /// server; 0 is not known.
    pub busy_ns: u64,
}

impl CacheSample {
    /// Pages that were waited for.
    fn waited(&self) -> u64 {
        self.asked.n + self.hits.n
    }

    /// Whether the program waits for most of what it gets, page by page.
    fn waits(&self) -> bool {
        self.waited() >= FEW && self.waited() * 2 >= self.left
    }
}

/// What there is at the end of a period, in pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheState {
    /// What the program and the copies may have.
    pub target: usize,
    /// Pages on servers only.
    pub remote: usize,
    /// Memory of the copies.
    pub has: usize,
    /// What they may have.
    pub may_have: usize,
}

/// Works out how much.
#[derive(Debug)]
pub struct CacheSizer {
    /// Means of times in nanoseconds.
    asked_ns: u64,
    hit_ns: u64,
    make_ns: u64,
    /// All that it took for each page that was waited for, while there were no copies.
    without_ns: u64,
    /// Of a packed page, in bytes; 0 is not known.
    packed: u64,
    /// Periods to wait, and to wait the next time.
    wait: u32,
    pause: u32,
    /// Periods without a gain in a row.
    losses: u32,
    /// Periods in a row in which the program waited for pages, while there are no
    /// copies; while there are, in which it did not.
    waits: u32,
    /// What was found to be too much: no more than this until it is tried again.
    cap: usize,
    /// Pages that left since the copies got what they may have.
    since: u64,
}

impl Default for CacheSizer {
    /// Nothing was measured yet.
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
    /// A period has ended; how many pages of memory the copies may have from here on.
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
            // What comes ahead of its use needs none, and the room.
            self.waits = 0;
            return 0;
        }
        self.since += seen.left;
        let may_have = now.may_have.min(most);
        // Before they are full, or everything has left once, there is little to be found.
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

    /// Less may be a gain where so much is none.
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
                // The few that are left to ask for take longer each than all would, for
                // they find everybody asleep.
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

    /// What was gained in a period, in nanoseconds.
    fn gain(&self, seen: &CacheSample) -> i64 {
        let would = seen.waited().saturating_sub(seen.young);
        (self.without_ns * would) as i64 - seen.busy_ns as i64
    }

    /// By the model, what a page that is asked for costs on the average, with copies in
    /// so many pages of memory, times the number of pages that are elsewhere.
    fn cost(&self, target: usize, remote: usize, copies: usize) -> u64 {
        let elsewhere = (remote + copies) as u64;
        let copied = (copies * tmem_wire::PAGE_SIZE) as u64 / self.packed.max(1);
        // Pages that have come back have a copy, too.
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

    /// How much would be best, by the model, and what it would cost.
    fn best(&self, target: usize, remote: usize, most: usize) -> (usize, u64) {
        let sizes = (0..=8).map(|n| most / 8 * n);
        let costs = sizes.map(|copies| (copies, self.cost(target, remote, copies)));
        costs.min_by_key(|(_, cost)| *cost).unwrap_or((0, 0))
    }

    /// The program may have come to need more of them, or fewer.
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
