//! The engine, the model's memory and the servers, step by step.

use super::child::Child;
use super::kernel::ModelKernel;
use super::meet::{Meeting, Way};
use super::program::{Action, THREADS};
use super::world::{BASE, Sleeper, World};
use crate::engine::budget_share::BudgetShare;
use crate::engine::cpu_placement::CpuPlacement;
use crate::engine::event_loop::Engine;
use crate::engine::fork::{current, state};
use crate::engine::memory::Memory;
use crate::engine::servers::Backing;
use crate::engine::settings::{
    Path, Redundancy, ReportSettings, ServerSettings, Settings, StartSettings,
};
use crate::engine::threads::bell::{QUIESCE, RESUME};
use crate::engine::threads::for_this_test;
use crate::engine::{evicted, reset_after_fork};
use crate::frame_number::FrameNumber;
use crate::net::model::{Fate, ModelServers, SLAB_PAGES};
use crate::net::{At, LocalTier, Options, Servers};
use crate::pages::State;
use crate::pool::{Kind, Pool};
use crate::slots::Location;
use crate::stats::Slot as Figures;
use crate::sys::clock;
use crate::sys::space::Space;
use crate::{ServerId, When};
use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::Relaxed;
use std::collections::BTreeSet;
use std::sync::MutexGuard;
use tmem_policy::PageNumber;
use tmem_policy::watermarks::Watermarks;
use tmem_wire::PAGE_SIZE;

/// Frames of the pool.
const FRAMES: usize = 256;
/// The thread that forks.
const FORKING: u32 = 50;
const MS: u64 = 1_000_000;
/// Turns after which a thread that still waits waits for ever.
const TURNS: u32 = 1500;

/// Turns within which everything is copied as often as it is to be, where there is room.
const REPAIR_TURNS: u32 = 150;

/// Connections are broken at most this often: too often is to lose a server.
const CUTS: u32 = 8;

static OUTCOME: AtomicU32 = AtomicU32::new(0);

/// How a machine begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begin {
    /// The kernel can move pages; else they are copied and zapped.
    pub(super) moves: bool,
    /// All pages leave all the time.
    pub(super) evict_all: bool,
    /// Compressed copies are kept.
    pub(super) copies: bool,
    /// Pages that may be resident.
    pub(super) budget: usize,
    pub(super) servers: usize,
    /// How many servers have each page.
    pub(super) redundancy: usize,
    /// Requests are carried out as they come, and held callers go on with each step.
    pub(super) is_prompt: bool,
    /// There is a local tier, and servers have little room.
    pub(super) local: bool,
}

/// Slabs that a server can grant, and with a local tier.
const SLABS: u32 = 40;
const FEW_SLABS: u32 = 2;

/// What happens next.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// The program does something, now or in the midst of what the engine does.
    Act(Action),
    Race(u32, Action),
    /// The program does something to pages on their way: to so many, from the nth on.
    Meet(Way, usize, u64, Meeting),
    /// Memory is moved to a place that another thread is just giving up.
    TakePlace {
        place: (u64, u64),
        away: Option<u64>,
        from: u64,
        late: bool,
    },
    /// Callers that are held, and threads, go on.
    GoOn,
    Time(u64),
    Adopt,
    Evict(usize),
    Reclaim(usize),
    Budget(usize),
    /// The user asks for all that there is room for.
    Recall,
    Answer(usize, Fate),
    AnswerAll,
    Prompt(bool),
    Cut(usize),
    Restart(usize),
    /// The same once every page has its copies: nothing may be lost.
    Kill(usize),
    /// A page on a server is spoilt.
    Corrupt(usize, usize),
    Left(usize, u32),
    /// A fork begins, copies the address space, or ends.
    Fork,
    ChildEnds,
    /// All that was begun has to come to its end.
    Settle,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ForkStage {
    Idle,
    Asked,
    Copied,
}

/// The whole.
pub(super) struct Machine {
    engine: Option<Engine>,
    figures: *mut Figures,
    pub(super) world: Rc<RefCell<World>>,
    pub(super) servers: ModelServers,
    pub(super) is_prompt: bool,
    stage: ForkStage,
    children: Vec<Child>,
    cuts: u32,
    /// How often a server was killed and nothing could be lost by that.
    kills: u64,
    /// A server may have other bytes than it was given.
    is_corrupt: bool,
    _alone: MutexGuard<'static, ()>,
}

impl Machine {
    pub(super) fn new(begin: Begin) -> Machine {
        let alone = for_this_test();
        reset_threads();
        let world = Rc::new(RefCell::new(World::new(begin.moves)));
        world.borrow_mut().pass(0);
        let slabs = if begin.local { FEW_SLABS } else { SLABS };
        let servers = ModelServers::new(&alloc::vec![slabs; begin.servers]);
        servers.set_prompt(true);
        let figures = Box::into_raw(zeroed());
        let options = Options {
            packing: When::Never,
            ..Options::default()
        };
        let settings = Settings {
            budget: 16 << 20,
            path: Path::Auto,
            copies: if begin.copies {
                When::Always
            } else {
                When::Never
            },
            evict_all: begin.evict_all,
            family: None,
            keep: Vec::new(),
            servers: ServerSettings {
                endpoints: servers.endpoints(),
                net: options.clone(),
                names: None,
                checked: true,
                redundancy: Redundancy {
                    copies: begin.redundancy,
                    locations: (0..begin.servers as u16)
                        .map(|machine| Location {
                            machine,
                            zone: None,
                            is_here: false,
                        })
                        .collect(),
                    repair_rate: 1 << 30,
                },
                local: None,
            },
            report: ReportSettings {
                level: 0,
                told: None,
                // SAFETY: it lives until the machine is dropped, and the engine with it.
                figures: unsafe { &*figures },
                shared: None,
                live: None,
            },
            start: StartSettings {
                strict: false,
                inherit: None,
                handed: None,
                outcome: &OUTCOME,
            },
        };
        let pool = Pool::new(FRAMES).expect("memory for a pool");
        let kernel = Box::new(ModelKernel(world.clone()));
        let parts = (watermarks(begin.budget), pool);
        let mut net = servers.client(options);
        if begin.local {
            let tier = LocalTier::new(tier_space(), TIER, None);
            net.add_local(tier.expect("a local tier"));
        }
        let engine = Engine::of(
            settings,
            kernel,
            net,
            parts,
            BudgetShare::default(),
            CpuPlacement::default(),
        );
        let mut engine = engine.expect("an engine");
        let hung = engine.fork.hang_doorbell(&mut engine.memory);
        hung.expect("a doorbell");
        engine.memory.backing.net.connect(1);
        let mut machine = Machine {
            engine: Some(engine),
            figures,
            world,
            servers,
            is_prompt: begin.is_prompt,
            stage: ForkStage::Idle,
            children: Vec::new(),
            cuts: 0,
            kills: 0,
            is_corrupt: false,
            _alone: alone,
        };
        machine
            .world
            .borrow_mut()
            .act(Action::Map { first: 0, n: 64 });
        (0..5).for_each(|_| machine.turn(MS));
        assert!(machine.engine().memory.backing.was_up, "no server is up");
        machine.engine().adopt(true);
        machine.servers.set_prompt(begin.is_prompt);
        machine
    }

    pub(super) fn engine(&mut self) -> &mut Engine {
        self.engine.as_mut().expect("an engine until the end")
    }

    pub(super) fn turn(&mut self, ns: u64) {
        self.world.borrow_mut().pass(ns);
        let engine = self.engine();
        engine.schedule.waited.uffd = true;
        engine.schedule.waited.blindly = true;
        engine.turn();
        self.world.borrow_mut().run_threads();
    }

    /// Does one step, lets the engine have a turn, and looks at everything.
    pub(super) fn step(&mut self, step: Step) -> Result<(), String> {
        let count = self.engine().settings.servers.endpoints.len();
        match step {
            Step::Act(action) => self.world.borrow_mut().act(action),
            Step::Race(calls, action) => self.world.borrow_mut().program.arm(calls, action),
            Step::Meet(way, nth, n, meeting) => self.meet(way, nth, n, meeting),
            Step::TakePlace {
                place,
                away,
                from,
                late,
            } => self.take_place(place, away, from, late),
            Step::GoOn => self.world.borrow_mut().go_on(),
            Step::Time(ms) => self.turn(ms * MS),
            Step::Adopt => self.engine().adopt(true),
            Step::Evict(n) => {
                let engine = self.engine();
                if engine.reclaim.may_evict(&engine.memory) {
                    engine.evict(n);
                }
            }
            Step::Reclaim(n) => {
                let engine = self.engine();
                engine.reclaim.reclaim_standby(&mut engine.memory, n);
            }
            Step::Budget(pages) => {
                let residency = &mut self.engine().memory.residency;
                residency.set_marks(watermarks(pages));
            }
            Step::Recall => {
                let now = crate::sys::now_ns();
                self.engine().control.recall(now);
            }
            Step::Answer(nth, fate) => {
                // Repair does not know what a page must be.
                let copies = self.engine().memory.backing.repair.is_reading();
                self.is_corrupt |= fate == Fate::Spoilt && copies;
                self.servers.answer(nth, fate);
            }
            Step::AnswerAll => self.servers.answer_all(),
            Step::Prompt(is) => {
                self.is_prompt = is;
                self.servers.set_prompt(is);
            }
            Step::Cut(server) if self.cuts < CUTS => {
                self.cuts += 1;
                self.servers.cut(server % count);
            }
            Step::Cut(_) => {}
            Step::Restart(server) => self.restart(server % count),
            Step::Kill(server) => self.kill(server % count)?,
            Step::Corrupt(server, nth) => self.corrupt(server % count, nth),
            Step::Left(server, left) => self.servers.set_left(server % count, left),
            Step::Fork => self.go_on_forking()?,
            Step::ChildEnds => self.child_ends()?,
            Step::Settle => self.settle()?,
        }
        if self.is_prompt {
            self.world.borrow_mut().go_on();
        }
        self.turn(MS / 4);
        self.check()
    }

    /// A server starts anew; what only it had may be lost.
    fn restart(&mut self, server: usize) {
        self.may_lose(|at| at.server.index() == server);
        self.servers.restart(server);
        let (children, servers) = (self.children.iter_mut(), &self.servers);
        children.for_each(|child| child.has_lost(server, servers));
    }

    /// Notes that pages may be lost that are right on no server but in places that are
    /// about to be spoilt.
    fn may_lose(&mut self, is_spoilt: impl Fn(&At) -> bool) {
        let world = self.world.clone();
        let mut world = world.borrow_mut();
        // What was moved the engine may still have in its old place.
        let is_known = world.held.is_empty();
        let plain = &mut world.program.plain;
        let servers = self.servers.clone();
        let Memory { pages, backing, .. } = &self.engine().memory;
        pages.each(|page, entry| {
            let (Some(slot), Some(plain)) = (entry.slot, plain.get_mut(&page.get())) else {
                return;
            };
            let slots = &backing.slots;
            let mut places = slots.readable(slot).chain(slots.readable_already(slot));
            let is_right = |at: At| is_right(&servers, backing, at, &plain.allowed);
            plain.may_be_lost |= !places.any(|at| !is_spoilt(&at) && is_right(at));
        });
        if !is_known {
            plain.values_mut().for_each(|p| p.may_be_lost = true);
        }
    }

    /// With everything copied as often as it is to be, a server starts anew: nothing is
    /// lost by that.
    fn kill(&mut self, server: usize) -> Result<(), String> {
        self.settle()?;
        self.servers.set_prompt(true);
        let count = self.engine().settings.servers.endpoints.len();
        let can_have_all = self.engine().memory.backing.slots.copies() <= count;
        for _ in (0..REPAIR_TURNS).filter(|_| can_have_all) {
            self.servers.answer_all();
            self.turn(10 * MS);
            let backing = &mut self.engine().memory.backing;
            if backing.slots.degraded().0 == 0 && backing.net.is_settled() {
                break;
            }
        }
        self.servers.set_prompt(self.is_prompt);
        let slots = &mut self.engine().memory.backing.slots;
        let is_safe = slots.copies() > 1 && slots.degraded().0 == 0;
        if !is_safe || self.is_corrupt {
            self.restart(server);
            return Ok(());
        }
        self.check()?;
        self.kills += 1;
        self.servers.restart(server);
        let (children, servers) = (self.children.iter_mut(), &self.servers);
        children.for_each(|child| child.has_lost(server, servers));
        Ok(())
    }

    /// A page on a server is spoilt.
    fn corrupt(&mut self, server: usize, nth: usize) {
        if !self.children.is_empty() || self.stage != ForkStage::Idle {
            // What a child has there is not followed.
            return;
        }
        let Some((session, slab, page)) = self.servers.corrupt(server, nth) else {
            return;
        };
        self.is_corrupt = true;
        let id = ServerId::new(server as u16);
        let own = self
            .engine()
            .memory
            .backing
            .net
            .session(id)
            .map(|s| s.session.0);
        if own == Some(session) {
            let spoilt = At {
                server: id,
                slab,
                page,
            };
            self.may_lose(|at| *at == spoilt);
        }
    }

    fn go_on_forking(&mut self) -> Result<(), String> {
        match self.stage {
            ForkStage::Idle => self.ring(ForkStage::Asked),
            ForkStage::Asked if state::quiescent_for() == state::number() => {
                let is_some_spoilt = self.is_corrupt;
                let mut world = self.world.borrow_mut();
                let engine = self.engine.as_mut().expect("an engine until the end");
                let net = &mut engine.memory.backing.net;
                let mut of_local = |at: At| read_local(net, at);
                let child = Child::fork(&mut world, &self.servers, is_some_spoilt, &mut of_local)?;
                drop(world);
                self.children.push(child);
                self.stage = ForkStage::Copied;
            }
            ForkStage::Asked => {}
            ForkStage::Copied => self.ring(ForkStage::Idle),
        }
        Ok(())
    }

    /// The thread that forks touches the doorbell.
    fn ring(&mut self, stage: ForkStage) {
        self.stage = stage;
        let before = state::next();
        let what = if before.is_multiple_of(2) {
            QUIESCE
        } else {
            RESUME
        };
        let page = what * 2 + (before / 2) as usize % 2;
        let bell = self.engine().memory.doorbell.region();
        let bell = bell.expect("a doorbell").start;
        let sleeper = Sleeper {
            tid: FORKING,
            at: bell + page * PAGE_SIZE,
            is_read: false,
            write: false,
            protected: false,
        };
        self.world.borrow_mut().sleepers.push(sleeper);
    }

    fn child_ends(&mut self) -> Result<(), String> {
        if self.stage != ForkStage::Idle || self.children.is_empty() {
            return Ok(());
        }
        let child = self.children.remove(0);
        child.check(&self.servers)?;
        child.end(&self.servers);
        Ok(())
    }

    /// Whether anything waits for something.
    fn waits(&self) -> bool {
        let world = self.world.borrow();
        let threads = world.program.waits() > 0 || !world.sleepers.is_empty();
        threads || !world.held.is_empty() || world.program.changes()
    }

    /// With servers that answer, all threads come to their end.
    fn settle(&mut self) -> Result<(), String> {
        self.servers.set_prompt(true);
        let mut turns = 0;
        while self.waits() || self.stage != ForkStage::Idle {
            self.servers.answer_all();
            self.go_on_forking()?;
            self.world.borrow_mut().go_on();
            self.turn(if turns < TURNS / 2 { MS } else { 100 * MS });
            turns += 1;
            if turns > TURNS {
                let world = self.world.borrow();
                let text = format!("{:?} {:?}", world.sleepers, world.held);
                return Err(format!("threads wait for ever: {text}"));
            }
        }
        self.servers.set_prompt(self.is_prompt);
        Ok(())
    }

    /// The program writes to most of what it has.
    pub(super) fn fill(&mut self) {
        for page in 0..48 {
            let zero = false;
            let write = Action::Write {
                thread: 0,
                page,
                zero,
            };
            self.world.borrow_mut().act(write);
            self.turn(MS / 16);
        }
    }

    /// Reads every page, and looks at what children have.
    pub(super) fn finish(&mut self) -> Result<u64, String> {
        self.settle()?;
        let pages: Vec<u64> = self.world.borrow().program.plain.keys().copied().collect();
        self.servers.set_prompt(true);
        for pages in pages.chunks(THREADS) {
            for (thread, page) in pages.iter().enumerate() {
                let page = page - (BASE / PAGE_SIZE) as u64;
                let read = Action::Read { thread, page };
                self.world.borrow_mut().act(read);
            }
            self.settle()?;
        }
        while !self.children.is_empty() {
            self.child_ends()?;
        }
        self.write_all()?;
        self.check()?;
        let compared = self.world.borrow().program.compared;
        Ok(compared)
    }

    /// With servers that have room, all that waits to be written is.
    fn write_all(&mut self) -> Result<(), String> {
        let servers = self.engine().settings.servers.endpoints.len();
        for _ in 0..TURNS {
            (0..servers).for_each(|server| self.servers.set_left(server, 40));
            self.servers.answer_all();
            self.turn(MS);
            if self.engine().memory.pool.pending_writeback() == 0 {
                return Ok(());
            }
        }
        Err("evicted pages are not written".into())
    }

    /// What must hold at any time.
    fn check(&mut self) -> Result<(), String> {
        if let Some(wrong) = self.world.borrow_mut().program.wrong.take() {
            return Err(wrong);
        }
        if let Some(wrong) = self.servers.wrong() {
            return Err(wrong.into());
        }
        let world = self.world.clone();
        let world = world.borrow();
        let is_quiet = world.held.is_empty();
        let (servers, is_some_spoilt) = (self.servers.clone(), self.is_corrupt);
        let m = &self.engine().memory;
        let (mut frames, mut slots) = (BTreeSet::new(), BTreeSet::new());
        let (mut remote, mut used) = (0, 0);
        let mut wrong = None;
        m.pages.each(|page, entry| {
            let mut must = |is: bool, what: &str| {
                if !is && wrong.is_none() {
                    wrong = Some(format!("page {page:x}: {what}: {entry:?}"));
                }
            };
            if let State::Pooled(frame) | State::ReadIn(frame) = entry.state {
                must(frames.insert(frame), "its frame has another page");
                must(m.pool.page(frame) == Some(page), "its frame is not for it");
                let kind = m.pool.kind(frame);
                let fits = match entry.state {
                    State::ReadIn(_) => kind == Kind::ReadIn,
                    _ => matches!(
                        kind,
                        Kind::Standby | Kind::Writeback | Kind::PendingWriteback
                    ),
                };
                must(fits, "its frame is of another kind");
            }
            if let (State::Remote, Some(slot)) = (entry.state, entry.slot)
                && let Some(plain) = world.program.plain.get(&page.get())
                && is_quiet
                && !plain.may_be_lost
            {
                let mut places = m.backing.slots.readable(slot);
                let lives = |at: &At| {
                    let session = m.backing.net.session(at.server).map(|s| s.session.0);
                    session.is_some_and(|s| servers.has_session(at.server.index(), s))
                };
                let is_right = |at| is_right(&servers, &m.backing, at, &plain.allowed);
                let is_well = places.all(|at| !lives(&at) || is_right(at));
                must(is_well || is_some_spoilt, "a server has it wrong");
            }
            if let Some(slot) = entry.slot {
                must(slots.insert(slot), "its slot has another page");
                used += u64::from(m.backing.slots.is_kept(slot));
            }
            if !matches!(entry.state, State::Local | State::Lost) {
                remote += 1;
                let there = world.ptes.contains_key(&page.get());
                must(
                    !is_quiet || !there,
                    "it is in the program and outside of it",
                );
            }
        });
        let mut must = |is: bool, what: String| {
            if !is && wrong.is_none() {
                wrong = Some(what);
            }
        };
        let held = (remote, m.residency.remote());
        must(
            held.0 == held.1,
            format!("remote pages are miscounted: {held:?}"),
        );
        let slots = (used, m.backing.slots.used_pages());
        must(
            slots.0 == slots.1,
            format!("slots are miscounted: {slots:?}"),
        );
        for page in world.given_up() {
            // What came to be there since is in the queue, as a new page.
            let is_new = m.pages.get(PageNumber::new(page)).queued;
            let is_known = m.space.is_discarded(page as usize * PAGE_SIZE);
            must(
                is_new || is_known,
                format!("page {page:x} is about to be zapped, which is forgotten"),
            );
        }
        let kinds = FrameNumber::new(0).run(FRAMES).map(|f| m.pool.kind(f));
        let holes = kinds.filter(|k| *k == Kind::Unbacked).count();
        let counted = m.pool.holes();
        must(
            holes == counted,
            format!("holes are miscounted: {holes} {counted}"),
        );
        wrong.map_or(Ok(()), Err)
    }

    /// What was done, so that it can be seen that something was.
    pub(super) fn figures(&mut self) -> [u64; 8] {
        let kills = self.kills;
        let figures = self.engine().memory.report.stats;
        [
            figures.evicted_pages.load(Relaxed),
            figures.written_pages.load(Relaxed),
            figures.fetched_pages.load(Relaxed),
            figures.discarded_pages.load(Relaxed),
            figures.failed_over_pages.load(Relaxed) + figures.late_pages.load(Relaxed),
            figures.mended_pages.load(Relaxed),
            figures.repaired_pages.load(Relaxed),
            kills,
        ]
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(engine) = self.engine.take() {
            let mut regions = alloc::vec![engine.memory.pool.region()];
            regions.extend(engine.memory.mover.regions());
            regions.extend(engine.memory.doorbell.region());
            regions.extend(engine.reclaim.cache.region());
            regions.extend(engine.memory.backing.repair.region());
            regions.extend(engine.memory.backing.net.local_regions());
            drop(engine);
            regions.into_iter().for_each(crate::sys::mem::Region::unmap);
        }
        reset_threads();
        clock::set(None);
        // SAFETY: what `new` made; the engine that used it is gone.
        drop(unsafe { Box::from_raw(self.figures) });
    }
}

/// Bytes of memory that the local tier may have.
const TIER: usize = 1 << 20;

/// Address space for the local tier of a machine, which is used again by the next.
fn tier_space() -> &'static Space {
    let space = Box::leak(Box::new(Space::new()));
    space.set_aside(32 << 20);
    space
}

/// What each word of a page in the local tier is, if all are the same; `None` if the page is
/// elsewhere.
fn read_local(net: &mut Servers, at: At) -> Option<Option<u64>> {
    let is_it = net.local() == Some(at.server);
    let tier = net.tier_mut().filter(|_| is_it)?;
    let mut bytes = [0; PAGE_SIZE];
    let read = tier.read(at.slab, at.page, &mut bytes);
    let words = bytes.as_chunks::<8>().0;
    let is_whole = read.is_ok() && words.iter().all(|w| *w == words[0]);
    Some(is_whole.then(|| u64::from_le_bytes(words[0])))
}

/// Whether a server has a page as it must be.
fn is_right(servers: &ModelServers, backing: &Backing, at: At, allowed: &[u64]) -> bool {
    let session = backing.net.session(at.server).map(|s| s.session.0);
    let bytes = session.and_then(|s| servers.page(at.server.index(), s, at.slab, at.page));
    let words = bytes.as_deref().map_or(&[][..], |b| b.as_chunks::<8>().0);
    let is_whole = words.windows(2).all(|w| w[0] == w[1]);
    let first = words.first().map(|w| u64::from_le_bytes(*w));
    is_whole && first.is_some_and(|word| allowed.contains(&word))
}

/// What threads of the engine and of the program share is as in a new process.
fn reset_threads() {
    reset_after_fork();
    evicted::reset();
    drop(current::withdraw());
}

/// Figures that are all zero.
fn zeroed() -> Box<Figures> {
    // SAFETY: figures are atomic numbers, of which zero is one.
    unsafe { Box::new_zeroed().assume_init() }
}

/// The watermarks of a budget in pages, with a pool that fits it.
fn watermarks(pages: usize) -> Watermarks {
    let slab = SLAB_PAGES as usize;
    Watermarks {
        evict: pages,
        adopt: 0,
        throttle: pages + slab / 2,
        pool: 2 * slab,
        reserve: 64,
        floor: 2,
    }
}
