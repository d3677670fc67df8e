//! Forks: what a child is told of the pages that are not in its memory.
//!
//! The kernel gives a child the parent's memory as it is, without the
//! userfaultfd, the engine and the connections: evicted pages would read as
//! zeros. So a thread that forks first asks the engine to *hold*: nothing
//! leaves the program any more, all that has left is written to servers, each
//! server makes a child of the session that shares all slabs ([`Op::Share`]),
//! and the engine writes a [`Will`] into memory that the child inherits. The
//! child's engine begins with it (`inherit`) before the program goes on.
//!
//! The engine goes on serving faults until the kernel has copied the address
//! space: the C library takes its locks between the two, which may be in
//! evicted memory, or held by threads that wait for pages. What it does
//! meanwhile leaves the will true:
//!
//! - A page that it puts into the program is in the child, or was copied before:
//!   the kernel lets nothing into memory that it is copying. What is in
//!   the child's memory counts; the will does for the rest.
//! - What the program gives up is struck from the will. Its thread goes on as
//!   soon as the report is read, and may be what the fork waits for: so the
//!   child sees from [`Will::batch`] whether a report was read and not yet
//!   struck, and gets it from the will's log, which parent and
//!   child share.
//! - An `munmap` that nobody had read of when the address space was copied may
//!   have made room for another mapping there, or have come after. Which of it
//!   cannot be told: the pages concerned are lost to the child, and touching
//!   one is no zero but SIGBUS.
//!
//! A process that is forked without the engine's knowledge, by a system call of
//! the program's own, is to read no zeros either: what is adopted is not copied
//! but while the engine holds. Such a process ends by SIGSEGV when it touches
//! memory that it does not have.
//!
//! From the fork on nobody writes to the shared slabs: what changes goes to
//! others, and slabs in which nothing is left are given back.
//!
//! [`Op::Share`]: tmem_wire::Op::Share

pub(crate) mod child;
pub(crate) mod detector;
pub(crate) mod handover;
pub(crate) mod manifest;

use crate::engine::fork::handover::Child;
pub use crate::engine::fork::handover::taken_over;
pub use crate::engine::fork::manifest::Will;
use crate::engine::fork::manifest::{Change, Entry, EntryKind};
use crate::engine::{DEBUG, Engine};
use crate::maps;
use crate::net::{Lane, RequestError};
use crate::pages::State;
use crate::ranges::Ranges;
use crate::sys::channel::End;
use crate::sys::errno::Words;
use crate::sys::helper;
use crate::sys::mem::{self, Region};
use crate::sys::uffd::{Msg, REGISTER_MISSING, feature};
use crate::sys::{now_ns, say, thread};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;
use core::ptr::null_mut;
use core::sync::atomic::Ordering::{Relaxed, SeqCst};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize};
use tmem_wire::{HelloReply, PAGE_SIZE, SessionId, Status};

/// Forks asked for, times two; odd while one is under way.
static FORKING: AtomicU32 = AtomicU32::new(0);
/// The value of [`FORKING`] that the engine holds for.
static HELD: AtomicU32 = AtomicU32::new(0);
/// Pages that are not there: to touch one of the first two asks the engine to
/// hold, of the next two to go on, of others to say what there is ([`LOOK`]), to
/// relinquish memory ([`RELINQUISH`]), to read what was asked of it ([`ASKS`]), to become what the
/// program is ([`CREDENTIALS`]), to end what would outlive the program ([`LEAVE`]) and to
/// have a page in memory ([`POPULATE`]).
/// They are rung by turns: the one that was rung before is taken away when the
/// other is answered. Were it taken away when it is answered itself, then before
/// its thread has gone on, which would have the kernel put a page there for good.
/// 0 without an engine.
static DOORBELL: AtomicUsize = AtomicUsize::new(0);
/// What can be asked for, and the pages for it.
const HOLD: usize = 0;
const GO_ON: usize = 1;
pub(crate) const LOOK: usize = 2;
pub(crate) const RELINQUISH: usize = 3;
pub(crate) const ASKS: usize = 4;
pub(crate) const CREDENTIALS: usize = 5;
pub(crate) const LEAVE: usize = 6;
pub(crate) const POPULATE: usize = 7;
const BELLS: usize = 16;
/// What a child inherits, while the engine holds.
static WILL: AtomicPtr<Will> = AtomicPtr::new(null_mut());

/// This process was forked from another that has an engine.
static IS_CHILD: AtomicBool = AtomicBool::new(false);

/// Memory that is on its way to another address has its own beyond this one in
/// a will: higher than any of a program's.
pub(crate) const LIMBO: usize = 1 << 60;

/// Between two looks, in microseconds.
const NAP_US: u64 = 50;

/// How long a fork waits where a server has no room for one more child, and between two
/// attempts. Those forked before make room as they join their sessions.
const LIMIT_PATIENCE_NS: u64 = 60_000_000_000;
const LIMIT_PAUSE_NS: u64 = 2_000_000;

/// Asks the engine to hold, and returns when it does. Called by the thread that
/// forks, with signals blocked; only one thread may do so at a time. `shares_files` says
/// that the child is to have its very file table, and not a copy.
pub fn prepare(shares_files: bool) {
    if !shares_files {
        crate::engine::fork::handover::offer();
    }
    let number = FORKING.fetch_add(1, SeqCst) + 1;
    ring(HOLD, number / 2, || HELD.load(SeqCst) == number);
}

/// Has the engine go on, after a fork, in the parent.
pub fn parent() {
    let number = FORKING.fetch_add(1, SeqCst);
    ring(GO_ON, number / 2, || HELD.load(SeqCst) != number);
    crate::engine::fork::handover::withdraw();
}

/// What a process that was just forked finds.
#[derive(Clone, Copy, Debug)]
pub enum Found {
    /// Some of its memory is on servers.
    Will(&'static Will),
    /// All of its memory.
    Everything,
    /// Not all of it, and nobody has told where the rest is.
    Something,
}

/// What the process that was just forked finds, and the end of the connection to its
/// parent's engine that its own is to have. Called once, by its only thread, before
/// anything else of this crate.
pub fn child() -> (Found, Option<End>) {
    let number = FORKING.load(SeqCst);
    let was_held = number % 2 == 1 && HELD.load(SeqCst) == number;
    IS_CHILD.store(true, Relaxed);
    mem::new_is_locked(false);
    let will = WILL.swap(null_mut(), SeqCst);
    crate::engine::begin_anew();
    let end = crate::engine::fork::handover::inherited();
    // SAFETY: null, or what the parent's engine made and leaves alone until its
    // fork has returned. This process has a copy of its own, which stays.
    if let Some(will) = unsafe { will.as_ref() } {
        return (Found::Will(will), end);
    }
    if !was_held && crate::engine::has_evicted() {
        return (Found::Something, end);
    }
    // What the parent has elsewhere is not for the child.
    crate::engine::none_evicted();
    (Found::Everything, end)
}

/// In a process that was just forked: no fork is under way.
pub(crate) fn begin_anew() {
    FORKING.store(0, SeqCst);
    HELD.store(0, SeqCst);
    DOORBELL.store(0, SeqCst);
}

/// Touches a page of the doorbell until it is heard; `turn` counts how often.
pub(crate) fn ring(what: usize, turn: u32, heard: impl Fn() -> bool) {
    let page = what * 2 + turn as usize % 2;
    loop {
        let bell = DOORBELL.load(SeqCst);
        if bell == 0 || heard() {
            return;
        }
        // SAFETY: memory of the engine's own that is mapped for good.
        unsafe { core::ptr::read_volatile((bell + page * PAGE_SIZE) as *const u8) };
        if heard() {
            return;
        }
        // It was not quite ready to be rung.
        thread::rest_us(NAP_US);
    }
}

/// Where the engine is with a fork.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Idle,
    /// What has left is being written.
    Draining,
    /// Servers are asked for children.
    Sharing,
    /// The will is made.
    Holding,
}

/// What the engine knows of a fork.
#[derive(Debug, Default)]
pub(crate) struct Fork {
    stage: Stage,
    number: u32,
    bell: Option<Region>,
    /// The stack of helpers of threads that fork.
    pub(crate) helpers: Option<Region>,
    pub(crate) alarm: crate::engine::fork::detector::Alarm,
    /// A thread waits for these pages of the doorbell.
    rung: [bool; BELLS],
    /// The thread that has asked to hold.
    tid: u32,
    /// Children that have not begun yet, and how many there were.
    pub(crate) children: Vec<Child>,
    pub(crate) serial: u64,
    asked: usize,
    /// Servers that are asked again, and when.
    limited: Vec<u16>,
    again_ns: u64,
    /// When it was asked to hold, when all was written, and when shared.
    times: [u64; 3],
    sessions: Vec<Option<HelloReply>>,
    refused: Option<String>,
}

/// Whether pages may be shared with another process, from which the kernel
/// does not move them.
pub(crate) fn has_been() -> bool {
    FORKING.load(Relaxed) > 0 || IS_CHILD.load(Relaxed)
}

/// Whether some thread is forking.
pub(crate) fn is_under_way() -> bool {
    FORKING.load(SeqCst) % 2 == 1
}

/// Whether there is an engine that can be asked.
pub(crate) fn has_engine() -> bool {
    DOORBELL.load(SeqCst) != 0
}

/// There is no engine any more.
pub(crate) fn no_engine() {
    DOORBELL.store(0, SeqCst);
}

impl Engine {
    /// Lets threads ring from now on.
    pub(crate) fn hang_doorbell(&mut self) -> Result<(), rustix::io::Errno> {
        let bell = Region::new(BELLS * PAGE_SIZE)?;
        self.kernel
            .register(bell.start, bell.len, REGISTER_MISSING)?;
        if self.kernel.features() & feature::MOVE != 0 {
            // Before Linux 6 a filter that ended a helper would end the program, too.
            self.fork.helpers = helper::prepare().ok();
        }
        self.fork.bell = Some(bell);
        DOORBELL.store(bell.start, SeqCst);
        Ok(())
    }

    /// The doorbell's memory.
    pub(crate) fn doorbell(&self) -> Option<Region> {
        self.fork.bell
    }

    /// Whether a fault is somebody who rings.
    pub(crate) fn is_ring(&mut self, addr: usize, tid: u32) -> bool {
        let Some(bell) = self.fork.bell.filter(|b| b.contains(addr)) else {
            return false;
        };
        let which = (addr - bell.start) / PAGE_SIZE;
        self.fork.rung[which] = true;
        if which / 2 == HOLD {
            self.fork.tid = tid;
        }
        true
    }

    /// Whether nothing may leave the program, and nothing is asked of servers
    /// but what the fork needs.
    pub(crate) fn is_forking(&self) -> bool {
        self.fork.stage != Stage::Idle || is_under_way()
    }

    /// Whether servers share, or are about to, what they hold now.
    pub(crate) fn has_asked_for_children(&self) -> bool {
        matches!(self.fork.stage, Stage::Sharing | Stage::Holding)
    }

    /// Goes on with a fork as far as that can be done now.
    pub(crate) fn follow_fork(&mut self) {
        let number = FORKING.load(SeqCst);
        if self.fork.stage == Stage::Holding && number != self.fork.number {
            self.go_on();
        }
        if self.fork.stage == Stage::Idle {
            if number.is_multiple_of(2) {
                return self.answer_bell();
            }
            self.fork.number = number;
            self.fork.stage = Stage::Draining;
            self.fork.times[0] = now_ns();
        }
        if self.fork.stage == Stage::Draining && self.is_drained() {
            self.fork.times[1] = now_ns();
            self.ask_for_children();
            self.fork.stage = Stage::Sharing;
        }
        if self.fork.stage == Stage::Sharing && self.fork.asked == 0 && !self.ask_again() {
            self.hold();
        }
        self.answer_bell();
    }

    /// Whether servers have, and have been told, everything.
    fn is_drained(&self) -> bool {
        self.unplaced.is_empty()
            && !self.copies.are_needed()
            && self.net.outstanding(Lane::Bulk) == 0
    }

    fn ask_for_children(&mut self) {
        let servers = self.settings.endpoints.len() as u16;
        self.fork.sessions = (0..servers).map(|_| None).collect();
        self.fork.refused = None;
        self.fork.limited.clear();
        // With everything in its memory a child needs nothing of servers.
        for server in (0..servers).filter(|_| crate::engine::has_evicted()) {
            if self.slots.has_slabs(server) && self.net.session(server).is_some() {
                self.ask_for_child(server);
            }
        }
    }

    fn ask_for_child(&mut self, server: u16) {
        self.fork.asked += 1;
        self.net.share(server);
    }

    /// Asks servers again that had no room for a child, once earlier ones may have
    /// joined theirs; whether that is still to be done.
    fn ask_again(&mut self) -> bool {
        if self.fork.limited.is_empty() {
            return false;
        }
        if now_ns() >= self.fork.again_ns {
            for server in core::mem::take(&mut self.fork.limited) {
                self.ask_for_child(server);
            }
        }
        true
    }

    /// A server has made a child, or not.
    pub(crate) fn shared(&mut self, server: u16, result: Result<SessionId, RequestError>) {
        self.fork.asked = self.fork.asked.saturating_sub(1);
        let session = self.net.session(server).cloned();
        match (result, session) {
            (Ok(id), Some(session)) => {
                self.fork.sessions[usize::from(server)] = Some(HelloReply {
                    session: id,
                    ..session
                });
            }
            (Ok(_), None) => {}
            (Err(RequestError::Status(Status::Limit)), Some(_))
                if now_ns() < self.fork.times[1] + LIMIT_PATIENCE_NS =>
            {
                self.fork.limited.push(server);
                self.fork.again_ns = now_ns() + LIMIT_PAUSE_NS;
            }
            (Err(error), _) => {
                let name = self.net.name(server);
                self.fork.refused = Some(format!(
                    "server {name} does not share the memory with a child: {error}"
                ));
            }
        }
    }

    /// A process that is forked without asking does not get what is adopted.
    pub(crate) fn hide_from_forks(&self, range: &Range<usize>) {
        if self.fork.stage != Stage::Holding {
            // What is not mapped any more cannot be copied either.
            let _ = self.kernel.copied_by_forks(range.start, range.len(), false);
        }
    }

    /// What is adopted is copied by the fork to come.
    fn show_to_fork(&mut self) {
        let mut shown: Vec<_> = self.adopted.iter().collect();
        maps::subtract(&mut shown, &self.withheld.iter().collect::<Vec<_>>());
        for range in shown {
            // What is not mapped any more cannot be copied either.
            let _ = self.kernel.copied_by_forks(range.start, range.len(), true);
        }
        self.fork.alarm.set(false);
    }

    /// Makes the will; from here on the address space may be copied.
    fn hold(&mut self) {
        self.fork.times[2] = now_ns();
        if self.fork.sessions.iter().any(Option::is_some) {
            self.slots.freeze();
        }
        if let Err(e) = self.notice_growth() {
            self.fork.refused = Some(format!("/proc cannot be read: {}", Words(e)));
        }
        self.follow_asks();
        let wiped = self.find_wiped().unwrap_or_else(|e| {
            self.fork.refused = Some(format!("/proc cannot be read: {}", Words(e)));
            Ranges::default()
        });
        let all_for_it = wiped.is_empty() && self.withheld.is_empty();
        let not_for_it = |page| {
            if all_for_it {
                return false;
            }
            let at = crate::engine::fault::addr(page);
            wiped.around(at).or(self.withheld.around(at)).is_some()
        };
        // Those that are here and on servers as well are counted nowhere.
        let most = self.remote as usize + self.queue.pages() as usize;
        let mut entries: Vec<Entry> = Vec::with_capacity(most);
        // One call, and not a fault for each page of what a child before shares. Where
        // it is refused there are faults.
        let start = entries.as_ptr().addr() / PAGE_SIZE * PAGE_SIZE;
        let len = (most * size_of::<Entry>()).next_multiple_of(PAGE_SIZE);
        let _ = mem::unshare(start, len);
        self.pages.each(|page, entry| {
            if not_for_it(page) {
                return;
            }
            let kind = match entry.state {
                State::Lost => EntryKind::Lost,
                State::Local if entry.unsure || entry.slot.is_none() => return,
                State::Local => EntryKind::Local,
                State::Pooled(_) | State::Fetching(_) | State::Remote => EntryKind::Remote,
            };
            entries.push(Entry::new(page, entry.slot, entry.hash, kind));
        });
        // A page without a slot is in the pool only: servers are full, and it
        // could not be put back.
        let homeless = |e: &Entry| e.kind() == EntryKind::Remote && e.slot().is_none();
        if entries.iter().any(homeless) {
            self.fork.refused = Some(String::from("the memory servers are full"));
        }
        let evicted = entries.iter().any(|e| e.kind() != EntryKind::Local);
        let sessions = core::mem::take(&mut self.fork.sessions);
        self.hand_over(self.fork.tid, if evicted { &sessions } else { &[] });
        if evicted {
            let will = Will::new(
                entries,
                self.adopted.iter().collect(),
                sessions,
                self.slots.clone(),
                self.digester,
                self.fork.refused.take(),
            );
            let will = Box::new(will.unwrap_or_else(|_| say::die("no memory for a fork")));
            WILL.store(Box::into_raw(will), SeqCst);
        }
        self.show_to_fork();
        let [asked, drained, shared] = self.fork.times;
        let us = |from: u64, to: u64| (to - from) / 1000;
        self.say(
            DEBUG,
            &format!(
                "ready to fork: written after {} us, shared after {}, noted after {}",
                us(asked, drained),
                us(drained, shared),
                us(shared, now_ns())
            ),
        );
        self.fork.stage = Stage::Holding;
        HELD.store(self.fork.number, SeqCst);
    }

    /// The fork is done.
    fn go_on(&mut self) {
        // Whatever is still to be read is to be in the log.
        self.read_messages();
        let will = WILL.swap(null_mut(), SeqCst);
        if !will.is_null() {
            // SAFETY: what `hold` made; nobody else in this process uses it.
            let will = unsafe { Box::from_raw(will) };
            will.close();
        }
        self.fork.stage = Stage::Idle;
        for range in self.adopted.iter() {
            self.hide_from_forks(&range);
        }
        self.fork.alarm.set(true);
        self.has_a_child();
        HELD.store(0, SeqCst);
    }

    /// Lets those go on that have rung and been heard.
    fn answer_bell(&mut self) {
        let Some(bell) = self.fork.bell else { return };
        let holding = self.fork.stage == Stage::Holding;
        self.answer_asks();
        self.answer_looks();
        self.answer_relinquish();
        self.answer_credentials();
        self.answer_leave();
        self.answer_populate();
        let ready = [holding, !holding, true, true, true, true, true, true];
        for which in 0..BELLS {
            if !self.fork.rung[which] || !ready[which / 2] {
                continue;
            }
            let at = bell.start + which * PAGE_SIZE;
            let shown = self.kernel.zero_pages(at, PAGE_SIZE, true);
            if shown.stopped == Some(rustix::io::Errno::AGAIN) {
                // An event has to be read first.
                self.waited.for_event = true;
                continue;
            }
            self.kernel.wake(at, PAGE_SIZE);
            self.fork.rung[which] = false;
            let other = bell.start + (which ^ 1) * PAGE_SIZE;
            // Else it would be reported to this thread, which would wait for itself.
            let _ = self.kernel.unregister(other, PAGE_SIZE);
            let _ = self.kernel.discard(&bell, other, PAGE_SIZE);
            let _ = self.kernel.register(other, PAGE_SIZE, REGISTER_MISSING);
        }
    }

    /// Reports are about to be read.
    pub(crate) fn batch_begins(&self) {
        if let Some(will) = current() {
            will.batch_begins();
        }
    }

    /// They have been followed.
    pub(crate) fn batch_ends(&self) {
        if let Some(will) = current() {
            will.batch_ends();
        }
    }

    /// Strikes what the program gives up from the will.
    pub(crate) fn strike_given_up(&self, event: Msg) {
        match event {
            Msg::Remove { start, end } => self.strike(&Change::Discarded(start..end)),
            Msg::Unmap { start, end } => self.strike(&Change::Unmapped(start..end)),
            Msg::Remap { .. } | Msg::Fault { .. } | Msg::Fork { .. } | Msg::Unknown(_) => {}
        }
    }

    /// Notes a change of the program's memory in the will.
    pub(crate) fn strike(&self, change: &Change) {
        let will = WILL.load(SeqCst);
        // SAFETY: as `current`; the entries are this thread's to change.
        if let Some(will) = unsafe { will.as_mut() } {
            will.strike(change);
        }
    }
}

/// The will of a fork that is under way.
fn current<'a>() -> Option<&'a Will> {
    // SAFETY: null, or what `hold` made; the engine, whose thread this is, is
    // the one to free it.
    unsafe { WILL.load(SeqCst).as_ref() }
}
