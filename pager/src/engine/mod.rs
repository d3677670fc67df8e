//! The engine: one thread in the program's process that serves its faults.
//!
//! | module | what it does |
//! |---|---|
//! | `start` | watches the program until its memory nears the budget, then begins |
//! | `wait` | waits for faults, answers and the clock |
//! | `cpu_placement` | chooses the processor of the engine's thread, and whether it sleeps |
//! | `kernel` | asks the kernel |
//! | `memory` | follows where each page is, and what the program does to its address space |
//! | `fault` | serves faults |
//! | `read_in` | reads pages from servers, also ahead of the program |
//! | `reclaim` | takes pages out of the program |
//! | `writeback` | finds remote memory for evicted pages and writes them |
//! | `servers` | follows what servers grant, answer and fail to do |
//! | `adopt` | finds memory to page and registers it |
//! | `unpaged` | says what cannot be paged |
//! | `budget_share` | tells what this process may have of a budget that several share |
//! | `fork` | tells a forked child where its pages are |
//! | `calls` | answers what threads of the program ask of the engine |
//! | `exclusion` | keeps changes of the address space, and direct input, apart from zaps |
//! | `map_throttle` | has threads that map memory wait where there is no room |
//! | `watchdog` | ends the program where a defect of the engine would hang it |
//!
//! There are no locks: everything belongs to this thread. What other threads
//! of the process see are the figures, which are atomics.

mod adopt;
mod budget_share;
mod calls;
mod cpu_placement;
pub mod exclusion;
mod fault;
pub mod fork;
mod kernel;
pub mod map_throttle;
mod memory;
mod read_in;
mod reclaim;
mod servers;
mod start;
mod unpaged;
mod wait;
mod watchdog;
mod writeback;

pub use adopt::{adopt_all, adopt_now};
pub use calls::advice::{Ask, ask};
pub use calls::credentials;
pub use calls::mem_file::{Access, populate};
pub use calls::mincore::pages_there;
pub use calls::relinquish::{Relinquished, relinquish};
pub use reclaim::lending;
pub use reclaim::zap_worker::leave;
pub use start::{PAGED, PENDING, Path, Settings, UNPAGED, have_all, run};
pub use tmem_policy::watermarks::{copies_bytes, pool_bytes};

use crate::digest::Digester;
use crate::net::{Completion, Servers};
use crate::pages::Pages;
use crate::pool::Pool;
use crate::ranges::Ranges;
use crate::slots::Slots;
use crate::stats::Slot as Figures;
use crate::sys::mem::Region;
use crate::sys::timer::Timer;
use crate::sys::uffd::{Msg, RawMsg};
use crate::sys::wait::{Interest, Waiter};
use crate::sys::{self, now_ns};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::AtomicBool;
use core::sync::atomic::Ordering::Relaxed;
use fault::Fault;
use kernel::Kernel;
use reclaim::compressed::Copies;
use reclaim::retry_list::Stubborn;
use reclaim::zap_worker::Zapper;
use rustix::io::Errno;
use servers::requests::Ops;
use tmem_policy::demand::FrameDemand;
use tmem_policy::eviction::EvictionQueue;
use tmem_policy::indirect::IndirectPrefetcher;
use tmem_policy::readahead::Prefetcher;
use tmem_policy::refault::RefaultClock;
use tmem_policy::standby::StandbySizer;
use tmem_policy::straddle::StraddlePredictor;
use tmem_policy::watermarks::Watermarks;
use tmem_wire::PAGE_SIZE;

/// Between two looks at how much memory is resident.
const SAMPLE_NS: u64 = 1_000_000;
/// Between two looks at the slower things.
const SLOW_NS: u64 = 100_000_000;

/// Why something cannot be done yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Again {
    /// Something must be read from the userfaultfd before.
    Event,
    /// There is no memory for it before some has been written to servers.
    Memory,
}

/// Whether pages are evicted; an engine's alone to set.
static EVICTED: AtomicBool = AtomicBool::new(false);
/// Whether pages were lost.
static LOST: AtomicBool = AtomicBool::new(false);

/// Whether this process, or the one it was forked from, has pages that are not
/// in its memory.
pub fn has_evicted() -> bool {
    EVICTED.load(Relaxed) || LOST.load(Relaxed)
}

/// In a process that was just forked: the engine, and all threads but the one that
/// forked, are not there, and what they were doing is not under way. Everything that
/// stands in a static is seen to here:
///
/// - what says how the parent's engine stood is reset;
/// - `EVICTED` and `LOST` stay, and its own engine sees to them, or [`none_evicted`];
/// - what was asked of ranges (`asks`), the address space set aside (`sys::space`),
///   whether the program has set a filter (`sys::thread`), given up something
///   (`credentials`) or lent pages and which code was searched for that (`lending`), and
///   the number of the last socket (`net::sock`) are the child's as well.
fn begin_anew() {
    adopt::begin_anew();
    exclusion::begin_anew();
    calls::advice::begin_anew();
    calls::relinquish::begin_anew();
    calls::credentials::begin_anew();
    fork::begin_anew();
    watchdog::begin_anew();
    calls::lent_pages::begin_anew();
    calls::mem_file::begin_anew();
    calls::mincore::begin_anew();
    map_throttle::begin_anew();
    start::begin_anew();
    reclaim::zap_worker::begin_anew();
    sys::helper::begin_anew();
    sys::roots::begin_anew();
    sys::thread::none_is_own();
}

/// Nothing of this process is elsewhere.
fn none_evicted() {
    EVICTED.store(false, Relaxed);
}

struct Engine {
    settings: Settings,
    figures: &'static Figures,
    kernel: Box<dyn Kernel>,
    /// Memory goes back to the kernel through here: a region that another
    /// userfaultfd owns, one without events. Giving memory of the pool back
    /// would be reported to this thread, which would wait for itself.
    bin: Option<Region>,
    /// A page to ask through whether an event waits.
    probe: Region,
    /// A page where nothing can be read.
    nowhere: Region,
    /// The guard's stack, once there is something to guard.
    guard: Option<Region>,
    /// Pages cannot be moved here.
    copying: bool,
    devices: reclaim::async_dma::Devices,
    lenders: reclaim::lending::Lenders,
    /// Started when it is needed.
    zapper: Option<Zapper>,
    /// A thread that changes the address space was waited for in vain. It may
    /// itself wait, for a page and for memory to put it in.
    crowded: bool,
    pages: Pages,
    pool: Pool,
    digester: &'static Digester,
    queue: EvictionQueue,
    /// Runs of pages that could not be evicted: pinned, shared with a child,
    /// locked. They are tried again now and then.
    stubborn: Stubborn,
    /// Pages that must stay in the program.
    pinned: memory::tcb::Pinned,
    /// It was said that nothing leaves, see [`advice`].
    told_of_others: bool,
    /// Small mappings are adopted as well.
    takes_small: bool,
    /// What is adopted and withheld from children.
    withheld: Ranges,
    adopted: Ranges,
    /// What of the program's memory is executable, as far as is known.
    executable: Ranges,
    /// Made when it is needed.
    transit: Option<memory::transit::Transit>,
    /// Moved by the program, and not there yet.
    arrivals: Vec<memory::remap::Arrival>,
    /// Given up by the program, but perhaps still to be zapped: see `memory::events`.
    doomed: Ranges,
    doomed_ns: u64,
    slots: Slots,
    net: Servers,
    fork: fork::Fork,
    ops: Ops,
    /// Probes of frozen slabs under way.
    probes: usize,
    done: Vec<Completion>,
    faults: VecDeque<Fault>,
    prefetch: Prefetcher,
    straddle: StraddlePredictor,
    indirect: IndirectPrefetcher,
    fills: tmem_policy::zero_fill::ZeroFillAhead,
    pace: cpu_placement::Pace,
    /// Evicted frames that have no slot yet, or no write under way.
    unplaced: VecDeque<u32>,
    grants: servers::grants::Grants,
    troubles: servers::errors::Troubles,
    seek: servers::rediscovery::Seek,
    /// Why servers could not be had, before one was.
    refused: Vec<String>,
    was_up: bool,
    budget: Watermarks,
    kin: budget_share::Kin,
    /// Pages that count when it was looked last, and what [`Engine::held`] was.
    sampled: (usize, i64),
    sampled_ns: u64,
    /// When it is to be looked next, if this is later.
    look_due_ns: u64,
    frame_demand: FrameDemand,
    slow_ns: u64,
    /// When everything is evicted next.
    storm_ns: u64,
    growth: adopt::Growth,
    unpaged: unpaged::Unpaged,
    /// A thread that waited for a server goes on since this turn.
    served_one: bool,
    /// Counts changes of the address space.
    events: u64,
    /// The clock of [`crate::pages::Page::epoch`].
    refault: RefaultClock,
    standby: StandbySizer,
    copies: Copies,
    /// Pages whose only copy is on servers, or on the way there.
    remote: u64,
    /// How many of them there were when this process was forked, and until when that
    /// counts as just now.
    inherited: u64,
    young_ns: u64,
    waiter: Waiter,
    timer: Timer,
    waited: Waited,
}

/// What the last wait has shown.
#[derive(Debug, Default)]
struct Waited {
    /// The userfaultfd may have something to say.
    uffd: bool,
    /// Nothing is known of the sockets.
    blindly: bool,
    /// A fault waits for an event.
    for_event: bool,
    /// Descriptors that have something to say.
    readable: Vec<i32>,
    /// What was waited for.
    interests: Vec<Interest>,
}

impl Engine {
    /// Serves the program for as long as it lives; ends with the reason when no
    /// server can be had in the beginning.
    fn run(mut self) -> String {
        if self.settings.inherit.is_none() {
            self.learn_addresses();
            self.net.connect(now_ns());
        }
        loop {
            self.turn();
            if !self.was_up && self.refused.len() == self.settings.endpoints.len() {
                let reasons = self.refused.join("; ");
                return format!("no memory server can be used: {reasons}");
            }
            self.wait();
        }
    }

    /// Does everything that can be done now.
    fn turn(&mut self) {
        watchdog::turn();
        self.waited.for_event = false;
        self.served_one = false;
        if self.waited.uffd {
            self.read_messages();
        }
        self.serve_faults();
        self.drive();
        self.tell_of_all();
        self.follow_fork();
        self.serve_faults();
        let now = now_ns();
        if now >= self.sampled_ns + SAMPLE_NS {
            self.sample(now);
        }
        self.look_at_troubles(now);
        self.look_at_rescued();
        self.maintain();
        self.search_code();
        if !self.faults.is_empty() {
            // There may be memory for them now.
            self.serve_faults();
        }
        if now >= self.slow_ns + SLOW_NS {
            self.slow_ns = now;
            self.slowly(now);
        }
        if self.waited.for_event {
            // A thread that changes the address space has to run first.
            self.kernel.pause();
        }
    }

    /// Reads all that the kernel has to say.
    fn read_messages(&mut self) {
        while self.read_some(64) == 64 {}
    }

    /// Reads up to `most` messages: events are followed at once, in their
    /// order; faults are queued behind them. How many there were.
    fn read_some(&mut self, most: usize) -> usize {
        // A thread whose reports are read here goes on at once, but is not to
        // change anything more before they are followed.
        let _still = exclusion::Still::begin();
        self.batch_begins();
        let n = self.read_batch(most);
        self.follow_arrivals();
        self.batch_ends();
        n
    }

    fn read_batch(&mut self, most: usize) -> usize {
        let mut raw = [RawMsg::default(); 64];
        loop {
            let n = match self.kernel.read(&mut raw[..most]) {
                Ok(n) => n,
                Err(Errno::INTR) => continue,
                Err(_) => 0,
            };
            let now = now_ns();
            for msg in &raw[..n] {
                match msg.decode() {
                    Msg::Fault { addr, tid, .. } if self.is_ring(addr, tid) => {}
                    Msg::Fault {
                        addr,
                        write,
                        protected,
                        tid,
                    } => self.faults.push_back(Fault {
                        page: (addr / PAGE_SIZE) as u64,
                        at: addr as u64,
                        write,
                        protected,
                        tid,
                        read_ns: now,
                        ahead: None,
                        fill: 0,
                    }),
                    event => self.event(event),
                }
            }
            return n;
        }
    }

    /// Serves what faults there are, as far as that can be done now.
    fn serve_faults(&mut self) {
        let mut left = self.faults.len();
        while left > 0 {
            left -= 1;
            let Some(mut fault) = self.faults.pop_front() else {
                break;
            };
            let Err(why) = self.fault(&mut fault) else {
                continue;
            };
            self.faults.push_back(fault);
            if why == Again::Event {
                self.waited.for_event = true;
                // What stands in the way may be what waits to be read.
                self.read_messages();
            }
        }
    }

    /// Moves bytes to and from servers, and takes in what they answered.
    fn drive(&mut self) {
        let mut done = core::mem::take(&mut self.done);
        let now = now_ns();
        if self.waited.blindly {
            self.net.drive(now, &mut done);
        } else {
            self.net.receive(&self.waited.readable, now, &mut done);
        }
        for completion in done.drain(..) {
            self.complete(completion);
        }
        self.done = done;
    }

    /// What need not be done often.
    fn slowly(&mut self, now: u64) {
        watchdog::follow_the_last(self.kernel.left_with());
        watchdog::follow_the_keeper(self.settings.shared);
        self.figures
            .pager_cpu_ns
            .store(sys::thread_cpu_ns(), Relaxed);
        self.figures
            .reconnects
            .store(self.net.reconnects(), Relaxed);
        let packed = self.net.packed();
        self.figures.compressed_pages.store(packed.pages, Relaxed);
        self.figures.compressed_bytes.store(packed.bytes, Relaxed);
        self.look_at_kin(now);
        self.look_at_unpaged(now);
        self.tidy_queue();
        self.look_at_doomed();
        self.look_for_devices();
        self.look_for_code();
        self.tell_of_others_that_stay();
        self.hear_alarm();
        self.answer_children();
        self.look_at_credentials();
        self.forgive_stubborn(now);
        if !self.is_forking() {
            self.give_slabs_back();
            self.look_for_servers(now);
            self.weigh_servers();
            self.ask_for_slabs(now);
            self.look_at_room();
            self.look_at_frozen();
        }
    }

    /// Pages whose only copy is remote are more, or fewer.
    fn count_remote(&mut self, more: i64) {
        self.remote = self.remote.saturating_add_signed(more);
        EVICTED.store(self.remote > 0, Relaxed);
        // What a child shares with its parent is counted there.
        let own = self.remote.saturating_sub(self.inherited);
        Figures::peak(&self.figures.remote_bytes, own * PAGE_SIZE as u64);
    }

    fn say(&self, level: u8, text: &str) {
        if level <= self.settings.level {
            sys::say::line(text);
        }
    }
}

/// Messages that matter to everybody.
const ERROR: u8 = 0;
/// Messages about what will surprise.
const WARN: u8 = 1;
/// Messages about what happens.
const INFO: u8 = 2;
/// Messages for those who look for a defect.
const DEBUG: u8 = 3;
