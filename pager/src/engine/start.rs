//! Watches the program until its memory nears the budget, then begins to page.

use crate::When;
use crate::digest::Digester;
use crate::engine::adopt::Growth;
use crate::engine::budget_share::Kin;
use crate::engine::cpu_placement::Pace;
use crate::engine::fork::handover::Handed;
use crate::engine::kernel::{Kernel, Linux};
use crate::engine::servers::grants::Grants;
use crate::engine::servers::requests::Ops;
use crate::engine::{Engine, INFO};
use crate::family::Family;
use crate::names::Names;
use crate::net::{Endpoint, Options, Servers};
use crate::pages::Pages;
use crate::pool::Pool;
use crate::ranges::Ranges;
use crate::slots::Slots;
use crate::stats::{Shared, Slot as Figures};
use crate::sys::channel::End;
use crate::sys::errno::Words;
use crate::sys::mem::Region;
use crate::sys::proc::{Proc, left_with};
use crate::sys::timer::Timer;
use crate::sys::uffd::{OpenError, REGISTER_WP, Uffd, feature};
use crate::sys::wait::Waiter;
use crate::sys::{self, now_ns, thread};
use crate::told::Told;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use tmem_policy::demand::FrameDemand;
use tmem_policy::eviction::EvictionQueue;
use tmem_policy::indirect::IndirectPrefetcher;
use tmem_policy::readahead::Prefetcher;
use tmem_policy::refault::RefaultClock;
use tmem_policy::standby::StandbySizer;
use tmem_policy::straddle::StraddlePredictor;
use tmem_policy::watermarks::Watermarks;
use tmem_wire::PAGE_SIZE;

/// How pages are taken out of the program and put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// Moved where the kernel can, else copied.
    Auto,
    /// Moved, or not at all.
    Move,
    /// Copied, as older kernels need it.
    Copy,
}

/// Not known yet.
pub const PENDING: u32 = 0;
/// The program can be paged.
pub const PAGED: u32 = 1;
/// The program cannot be paged, and was told why.
pub const UNPAGED: u32 = 2;
/// The engine watches the program, and will page it when there is need.
pub(crate) const WATCHED: u32 = 3;

/// What the engine is told at its start.
#[derive(Clone)]
pub struct Settings {
    /// Bytes that may be resident.
    pub budget: u64,
    /// The memory servers.
    pub endpoints: Vec<Endpoint>,
    /// How to deal with them.
    pub net: Options,
    /// How pages travel.
    pub path: Path,
    /// Whether packed copies of pages are kept in local memory.
    pub copies: When,
    /// What is said: 0 errors, 1 warnings, 2 what happens, 3 everything.
    pub level: u8,
    /// Whether all pages leave all the time, whatever the budget.
    pub evict_all: bool,
    /// The processes that share the budget, if it is not this one's alone.
    pub family: Option<&'static Family>,
    /// Where addresses of servers are found once they are known.
    pub names: Option<&'static Names>,
    /// What the user has been told by others of the family.
    pub told: Option<&'static Told>,
    /// What the processes under `tmem run` share with it.
    pub shared: Option<&'static Shared>,
    /// Where figures are kept.
    pub figures: &'static Figures,
    /// Memory never to be paged: the engine's own, and all that its code
    /// touches.
    pub keep: Vec<Range<usize>>,
    /// Whether somebody has seen to it that the servers can be used, and has
    /// told the user which cannot.
    pub checked: bool,
    /// Whether somebody waits for `outcome`.
    pub strict: bool,
    /// What a process that was forked from one with evicted pages has to begin
    /// with.
    pub inherit: Option<&'static crate::engine::fork::Will>,
    /// The end of a connection to the engine of the process that this one was forked
    /// from: the only descriptor that the engine's thread has when it begins.
    pub handed: Option<End>,
    /// Changes when the engine watches the program, but where it inherits, and becomes
    /// [`PAGED`] or [`UNPAGED`].
    pub outcome: &'static AtomicU32,
}

const EVENTS: u64 = feature::EVENT_REMAP | feature::EVENT_REMOVE | feature::EVENT_UNMAP;
const NEEDED: u64 = EVENTS | feature::WP;
const KNOWING: u64 = feature::THREAD_ID | feature::EXACT_ADDRESS;
const WANTED: u64 = NEEDED | KNOWING | feature::POISON | feature::MOVE;

/// Pages given back to the kernel at a time.
const BIN: usize = 512;

/// A program that lives for so long is no longer a short one: its servers are
/// seen to, so that what is wrong with them is said early.
const SETTLED_NS: u64 = 20_000_000;

/// Between two looks whether the program has left.
const LEFT_NS: u64 = 100_000_000;

/// Sleep shorter than this has to end in time.
const CLOSE_US: u64 = 5_000;

/// Whether the engine is to have by now what it will need, and has it.
static WANTED_NOW: AtomicBool = AtomicBool::new(false);
static HAS_ALL: AtomicBool = AtomicBool::new(false);

/// How often, and how long, a thread sleeps that waits for that.
const PATIENCE: u32 = 20_000;
const NAP_US: u64 = 50;

/// Has the engine open all that it will need, and waits for that. Called by a thread
/// of the program that is about to make opening anything harder.
pub fn have_all() {
    if !HAS_ALL.load(Ordering::Acquire) {
        WANTED_NOW.store(true, Ordering::Release);
        // Whether it has by then or not.
        thread::sleep_until(|| HAS_ALL.load(Ordering::Acquire), PATIENCE, NAP_US);
    }
}

/// Whether the program has made opening anything harder.
pub(crate) fn is_confined() -> bool {
    WANTED_NOW.load(Ordering::Relaxed)
}

/// Whether there is an engine that has begun, or will, and how often somebody has wanted
/// it to look while it watches.
static ALIVE: AtomicBool = AtomicBool::new(false);
static POKED: AtomicU32 = AtomicU32::new(0);

/// Has an engine that watches look at once; whether there is an engine.
pub(crate) fn poke() -> bool {
    let alive = ALIVE.load(Ordering::Acquire);
    if alive {
        POKED.fetch_add(1, Ordering::AcqRel);
        // A call that the program does not make itself may end it.
        if !thread::is_confined() {
            thread::wake_sleeper(&POKED);
        }
    }
    alive
}

/// In a forked child the engine has nothing yet.
pub(crate) fn begin_anew() {
    ALIVE.store(false, Ordering::Release);
    WANTED_NOW.store(false, Ordering::Release);
    HAS_ALL.store(false, Ordering::Release);
}

/// The engine has what it needs, or will not need anything.
fn has_all() {
    HAS_ALL.store(true, Ordering::Release);
}

impl Engine {
    /// Tells who waits in [`have_all`].
    pub(crate) fn tell_of_all(&self) {
        if !HAS_ALL.load(Ordering::Relaxed) && self.was_up && self.net.is_settled() {
            has_all();
        }
    }
}

/// Runs the engine. Called by a thread that the C library does not know, with
/// a file table of its own and all signals blocked.
pub fn run(settings: &Settings) -> ! {
    ALIVE.store(true, Ordering::Release);
    let reason = begin(settings);
    ALIVE.store(false, Ordering::Release);
    crate::engine::fork::no_engine();
    has_all();
    if settings.inherit.is_some() {
        sys::say::die(&format!(
            "{reason}; the child of a program with memory on servers cannot go on and is ended"
        ));
    }
    let rest = if settings.strict {
        "the program is not started, as `strict` asks"
    } else {
        "the program runs without paging"
    };
    let line = format!("{reason}; {rest}");
    if settings.strict || settings.told.is_none_or(|told| told.is_news(&line)) {
        sys::say::line(&line);
    }
    settings.outcome.store(UNPAGED, Ordering::Release);
    thread::wake_sleeper(settings.outcome);
    // The program goes on by itself.
    thread::exit();
}

/// Ends only with the reason why the program cannot be paged.
fn begin(settings: &Settings) -> String {
    match try_to_begin(settings) {
        // Nothing was evicted yet: with the engine goes its userfaultfd, and
        // the program's memory is as it was.
        Ok(engine) => engine.run(),
        Err(reason) => reason,
    }
}

fn try_to_begin(settings: &Settings) -> Result<Engine, String> {
    if settings.inherit.is_none() {
        // What a child inherits takes a while, and its parent is not to wait
        // for that. Nothing holds a program back that fills memory while this thread
        // waits for a processor.
        thread::hurry_most();
        settings.outcome.store(WATCHED, Ordering::Release);
        thread::wake_sleeper(settings.outcome);
    }
    let handed = Handed::receive(settings.handed);
    let mut proc = handed
        .proc()
        .map_err(|e| format!("/proc cannot be read: {}", Words(e)))?;
    let mut kin = crate::engine::budget_share::Kin::default();
    let all = thread::cpus();
    let cpu = match settings.inherit {
        None => watch(settings, &mut proc, &mut kin),
        Some(_) => None,
    };
    let begun = now_ns();
    let pace = Pace::new(all, cpu);
    let uffd = open(settings)?;
    if settings.endpoints.is_empty() {
        return Err(String::from("no memory server named: set TMEM_SERVERS"));
    }
    let no_memory = |e: rustix::io::Errno| format!("paging cannot begin: {}", Words(e));
    let mut engine =
        Engine::new(settings.clone(), Linux::new(uffd, proc), kin, pace).map_err(no_memory)?;
    // Before the program goes on, which may fork at once.
    engine.hang_doorbell().map_err(no_memory)?;
    if let Some(will) = settings.inherit {
        engine.kin.begin_as_child(&mut *engine.kernel);
        engine.inherit(will, handed)?;
        thread::hurry();
    } else {
        note_lateness(settings, begun, 0);
    }
    Ok(engine)
}

/// Returns when it is time to see to the servers: a quarter of the budget is used,
/// or the program has lived for a moment and nobody has seen to them. The processor
/// that this thread keeps to by then, if it does.
fn watch(settings: &Settings, proc: &mut Proc, kin: &mut Kin) -> Option<u32> {
    let start = now_ns();
    if crate::engine::fork::has_been() {
        kin.begin_as_child(proc);
    }
    let mut kept = None;
    let mut children = Vec::new();
    let mut looked = start;
    loop {
        let poked = POKED.load(Ordering::Acquire);
        if now_ns() - looked > LEFT_NS {
            looked = now_ns();
            crate::engine::watchdog::follow_the_last(left_with(thread::own()));
            if crate::engine::calls::credentials::has_to_follow() {
                crate::engine::calls::credentials::become_as(thread::leader());
            }
            crate::engine::watchdog::follow_the_keeper(settings.shared);
        }
        if crate::engine::calls::credentials::answer_early() {
            return kept;
        }
        crate::engine::fork::handover::answer_early(&mut children);
        let memory = proc.resident().unwrap_or_default();
        let resident = memory.counted() as usize;
        kin.look(proc, settings, now_ns());
        let budget = kin.budget(settings, resident, memory.shared, 0);
        let early_pages = budget.evict / 4;
        crate::engine::budget_share::note(settings.figures, &memory);
        let early = !settings.checked && now_ns() - start > SETTLED_NS;
        let wanted = early || WANTED_NOW.load(Ordering::Acquire);
        if settings.strict || settings.evict_all || wanted || resident > early_pages {
            return kept;
        }
        let early_budget = Watermarks {
            adopt: early_pages,
            ..budget
        };
        let mut pause = early_budget.quiet_us(resident);
        if !settings.checked {
            pause = pause.min(SETTLED_NS / 1000);
        }
        if pause < CLOSE_US
            && let Some(cpu) = proc.cpu_of(thread::leader())
        {
            // See `pace`: where the program runs, a timer is heard at once.
            thread::run_on(&thread::Cpus::one(cpu));
            kept = Some(cpu);
        }
        let before = now_ns();
        thread::sleep_some(&POKED, poked, pause);
        note_lateness(settings, before, pause);
    }
}

/// Notes that the program is looked at again, which was to be `us` after `since`.
fn note_lateness(settings: &Settings, since: u64, us: u64) {
    let late = ((now_ns() - since) / 1000).saturating_sub(us);
    Figures::peak(&settings.figures.late_look_us, late);
}

/// Opens a userfaultfd that can do what is needed.
fn open(settings: &Settings) -> Result<Uffd, String> {
    let uffd = Uffd::open(WANTED).map_err(|e| match e {
        OpenError::NoPermission => String::from(
            "no permission for userfaultfd: as root, run `sysctl vm.unprivileged_userfaultfd=1` \
             or give this user access to /dev/userfaultfd",
        ),
        OpenError::Unsupported => {
            String::from("this kernel has no userfaultfd; Linux 5.11 or later is needed")
        }
        OpenError::Other(e) => format!("no userfaultfd: {}", Words(e)),
    })?;
    if uffd.features & NEEDED != NEEDED {
        return Err(String::from(
            "this kernel's userfaultfd is too old; Linux 5.11 or later is needed",
        ));
    }
    if settings.path == Path::Move && uffd.features & feature::MOVE == 0 {
        return Err(String::from(
            "this kernel cannot move pages (Linux 6.8 or later can), as `--page-path move` asks; \
             use `auto` or `copy`",
        ));
    }
    Ok(uffd)
}

impl Engine {
    fn new(
        settings: Settings,
        kernel: Linux,
        kin: Kin,
        pace: Pace,
    ) -> Result<Engine, rustix::io::Errno> {
        let budget = crate::engine::reclaim::stress::budget(&settings, settings.budget);
        let pool = Pool::new(budget.frames())?;
        let net = Servers::new(settings.endpoints.clone(), settings.net.clone());
        Engine::of(settings, Box::new(kernel), net, (budget, pool), kin, pace)
    }

    /// An engine on any kernel and network, with the pool for a budget.
    pub(crate) fn of(
        settings: Settings,
        mut kernel: Box<dyn Kernel>,
        net: Servers,
        (budget, pool): (Watermarks, Pool),
        kin: Kin,
        pace: Pace,
    ) -> Result<Engine, rustix::io::Errno> {
        let digester = match settings.inherit {
            Some(will) => will.digester,
            None => Digester::draw(),
        };
        let probe = Region::new(PAGE_SIZE)?;
        kernel.register(probe.start, probe.len, REGISTER_WP)?;
        let can_move = kernel.features() & feature::MOVE != 0 && settings.path != Path::Copy;
        let bin = if can_move {
            movable(&mut *kernel, &pool)?
        } else {
            None
        };
        let copying = bin.is_none();
        if copying {
            crate::engine::exclusion::copies();
        }
        let how = if copying { "copied" } else { "moved" };
        if settings.level >= INFO {
            sys::say::line(&format!("paging begins; pages are {how}"));
        }
        let figures = settings.figures;
        let copies = crate::engine::reclaim::compressed::Copies::new(&settings);
        let slots = Slots::new(settings.endpoints.len());
        Ok(Engine {
            settings,
            figures,
            kernel,
            bin,
            probe,
            nowhere: Region::nowhere()?,
            guard: None,
            copying,
            devices: crate::engine::reclaim::async_dma::Devices::default(),
            lenders: crate::engine::reclaim::lending::Lenders::default(),
            zapper: None,
            crowded: false,
            pages: Pages::default(),
            pool,
            digester,
            queue: EvictionQueue::default(),
            stubborn: crate::engine::reclaim::retry_list::Stubborn::default(),
            pinned: crate::engine::memory::tcb::Pinned::new(),
            told_of_others: false,
            takes_small: false,
            withheld: Ranges::default(),
            adopted: Ranges::default(),
            executable: Ranges::default(),
            transit: None,
            storm_ns: 0,
            arrivals: Vec::new(),
            doomed: Ranges::default(),
            doomed_ns: 0,
            slots,
            net,
            fork: crate::engine::fork::Fork::default(),
            ops: Ops::default(),
            probes: 0,
            done: Vec::new(),
            faults: VecDeque::new(),
            prefetch: Prefetcher::new(),
            straddle: StraddlePredictor::default(),
            indirect: IndirectPrefetcher::default(),
            pace,
            fills: tmem_policy::zero_fill::ZeroFillAhead::default(),
            unplaced: VecDeque::new(),
            grants: Grants::new(),
            troubles: crate::engine::servers::errors::Troubles::new(),
            seek: crate::engine::servers::rediscovery::Seek::new(),
            refused: Vec::new(),
            was_up: false,
            budget,
            kin,
            sampled: (0, 0),
            sampled_ns: 0,
            look_due_ns: 0,
            frame_demand: FrameDemand::default(),
            slow_ns: 0,
            growth: Growth::default(),
            unpaged: crate::engine::unpaged::Unpaged::default(),
            served_one: false,
            events: 0,
            refault: RefaultClock::default(),
            standby: StandbySizer::default(),
            copies,
            remote: 0,
            inherited: 0,
            young_ns: 0,
            waiter: Waiter::new()?,
            timer: Timer::new()?,
            waited: crate::engine::Waited::default(),
        })
    }
}

/// Prepares to move pages, and sees whether the kernel really can; `None` when
/// it cannot.
fn movable(kernel: &mut dyn Kernel, pool: &Pool) -> Result<Option<Region>, rustix::io::Errno> {
    let region = pool.region();
    kernel.register(region.start, region.len, REGISTER_WP)?;
    if !kernel.open_bin() {
        return Ok(None);
    }
    let bin = Region::new(BIN * PAGE_SIZE)?;
    kernel.register_bin(bin.start, bin.len)?;
    // A page goes into the pool and from there into the bin.
    let source = Region::new(PAGE_SIZE)?;
    // SAFETY: a fresh mapping of one page.
    unsafe { core::ptr::write_volatile(source.start as *mut u8, 1) };
    let there = kernel.move_to_holes(region.start, source.start, PAGE_SIZE)?;
    let back = kernel.move_to_bin(bin.start, region.start, PAGE_SIZE)?;
    let works = there.stopped.is_none() && back.stopped.is_none();
    kernel.discard(&bin, bin.start, bin.len)?;
    Ok(works.then_some(bin))
}
