//! Watches the program until its memory nears the budget, and then starts to page.

use crate::digest::Digester;
use crate::engine::adopt::Adoption;
use crate::engine::alive;
use crate::engine::budget_share::BudgetShare;
use crate::engine::calls::doorbell::Doorbell;
use crate::engine::control::{self, Control};
use crate::engine::cpu_placement::CpuPlacement;
use crate::engine::event_loop::Engine;
use crate::engine::fork::handover::Handed;
use crate::engine::fork::quiesce::Fork;
use crate::engine::fork::state::Stage;
use crate::engine::fork::{self, child};
use crate::engine::kernel::Kernel;
use crate::engine::kernel::linux::Linux;
use crate::engine::memory::Memory;
use crate::engine::memory::faults::FaultQueue;
use crate::engine::memory::mover::Mover;
use crate::engine::memory::report::INFO;
use crate::engine::memory::report::Report;
use crate::engine::memory::residency::Residency;
use crate::engine::memory::space::Space;
use crate::engine::memory::tcb::Pinned;
use crate::engine::program_end::ProgramEnd;
use crate::engine::read_in::Readahead;
use crate::engine::reclaim::Reclaim;
use crate::engine::reclaim::async_dma::AsyncDma;
use crate::engine::reclaim::compressed::CompressedPages;
use crate::engine::reclaim::lending::LendingWatch;
use crate::engine::reclaim::retry_list::RetryList;
use crate::engine::servers::Backing;
use crate::engine::servers::awaited::Awaited;
use crate::engine::servers::copies::CopiesWatch;
use crate::engine::servers::drains::Drains;
use crate::engine::servers::errors::ServerErrors;
use crate::engine::servers::grants::Grants;
use crate::engine::servers::rediscovery::Rediscovery;
use crate::engine::servers::repair::Repair;
use crate::engine::servers::requests::Requests;
use crate::engine::settings::{Path, Settings, UNPAGED, WATCHED};
use crate::engine::wait::{Schedule, Waited};
use crate::engine::watchdog;
use crate::engine::zero_fill::ZeroFill;
use crate::net::{LocalTier, Servers};
use crate::pages::Pages;
use crate::pool::Pool;
use crate::slots::{Location, Slots};
use crate::stats::Slot as Figures;
use crate::sys::errno::Words;
use crate::sys::fd::Fd;
use crate::sys::proc::{Proc, left_with};
use crate::sys::space::SPACE;
use crate::sys::timer::Timer;
use crate::sys::uffd::{OpenError, Uffd, feature};
use crate::sys::wait::Waiter;
use crate::sys::{self, anchor, confined, departure, network, now_ns, program, thread};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use rustix::fd::{AsFd, FromRawFd};
use tmem_policy::eviction::EvictionQueue;
use tmem_policy::indirect::IndirectPrefetcher;
use tmem_policy::readahead::Prefetcher;
use tmem_policy::refault::RefaultClock;
use tmem_policy::standby::StandbySizer;
use tmem_policy::straddle::StraddlePredictor;
use tmem_policy::watermarks::Watermarks;
use tmem_policy::working_set::WorkingSet;

const EVENTS: u64 = feature::EVENT_REMAP | feature::EVENT_REMOVE | feature::EVENT_UNMAP;
const NEEDED: u64 = EVENTS | feature::WP;
const KNOWING: u64 = feature::THREAD_ID | feature::EXACT_ADDRESS;
const WANTED: u64 = NEEDED | KNOWING | feature::POISON | feature::MOVE;

/// How long a program runs before the engine checks the servers anyway, so that problems
/// with them are reported early.
const SETTLED_NS: u64 = 20_000_000;

/// Time between two checks whether the program has ended.
const LEFT_NS: u64 = 100_000_000;

/// A sleep shorter than this must not end late.
const CLOSE_US: u64 = 5_000;

/// Runs the engine. Called by a thread that the C library does not know, with a file table
/// of its own and all signals blocked.
pub fn run(settings: &Settings) -> ! {
    alive::set_alive(true);
    let reason = begin(settings);
    alive::set_alive(false);
    if let Some(live) = settings.report.live {
        live.end();
    }
    crate::engine::calls::doorbell::no_engine();
    alive::has_all();
    if settings.start.inherit.is_some() {
        sys::say::die(&format!(
            "{reason}; the child of a program with memory on servers cannot go on and is ended"
        ));
    }
    let rest = if settings.start.strict {
        "the program is not started, as `strict` asks"
    } else {
        "the program runs without paging"
    };
    let line = format!("{reason}; {rest}");
    if settings.start.strict || settings.report.told.is_none_or(|told| told.is_news(&line)) {
        sys::say::line(&line);
    }
    settings.start.outcome.store(UNPAGED, Ordering::Release);
    thread::wake_sleeper(settings.start.outcome);
    // The program goes on without the engine.
    anchor::release();
    watchdog::not_needed();
    thread::exit();
}

/// Returns only if the program cannot be paged, with the reason.
fn begin(settings: &Settings) -> String {
    match try_to_begin(settings) {
        // Nothing was evicted yet. The userfaultfd is closed with the engine, and the
        // program's memory is as it was.
        Ok(engine) => engine.run(),
        Err(reason) => reason,
    }
}

fn try_to_begin(settings: &Settings) -> Result<Engine, String> {
    if settings.start.inherit.is_none() {
        // Only a real-time thread keeps up with a program that fills memory, since nothing
        // delays the program while this thread waits for a CPU. In a child the start takes
        // a while, and its parent must not wait for it.
        thread::hurry_most();
        if !fork::state::has_been() {
            anchor::prepare();
        }
        settings.start.outcome.store(WATCHED, Ordering::Release);
        thread::wake_sleeper(settings.start.outcome);
    }
    let handed = Handed::receive(settings.start.handed);
    if !confined::is_confined() {
        network::begin();
    }
    let mut proc = handed
        .proc()
        .map_err(|e| format!("/proc cannot be read: {}", Words(e)))?;
    let mut kin = crate::engine::budget_share::BudgetShare::default();
    let all = thread::cpus();
    let cpu = match settings.start.inherit {
        None => watch(settings, &mut proc, &mut kin),
        Some(_) => None,
    };
    let begun = now_ns();
    let pace = CpuPlacement::new(all, cpu);
    let uffd = open(settings)?;
    anchor::keep(uffd.as_fd());
    let guard = match program::is_apart() {
        true => Some(watchdog::start_apart(uffd.raw(), settings).map_err(no_guard)?),
        false => None,
    };
    if settings.servers.endpoints.is_empty() && settings.servers.local.is_none() {
        return Err(String::from("no memory server named: set TMEM_SERVERS"));
    }
    let no_memory = |e: rustix::io::Errno| format!("paging cannot begin: {}", Words(e));
    let mut engine =
        Engine::new(settings.clone(), Linux::new(uffd, proc), kin, pace).map_err(no_memory)?;
    engine.program_end.set_guard(guard);
    // This has to come before the program goes on, since it may fork at once.
    engine
        .fork
        .hang_doorbell(&mut engine.memory)
        .map_err(no_memory)?;
    if let Some(manifest) = settings.start.inherit {
        engine
            .memory
            .residency
            .share_mut()
            .begin_as_child(engine.memory.mover.kernel_mut());
        let kept = engine.kept();
        let is_limited = handed.is_limited();
        let mut handed = handed;
        engine
            .fork
            .children
            .keep(core::mem::take(&mut handed.leases));
        let channel = child::inherit(&mut engine.memory, manifest, handed, kept)?;
        if !engine.memory.space.adopted().is_empty() {
            engine.watch_forks();
        }
        while engine.memory.backing.net.is_resuming() {
            engine.drive();
            if engine.memory.backing.net.is_resuming() {
                engine.wait();
            }
        }
        engine.pages_from_now_on();
        // This tells the parent's engine that it is not needed any more.
        Handed::begun(channel.as_ref());
        engine
            .fork
            .children
            .pass_on_to(channel.filter(|_| is_limited));
        thread::hurry();
    } else {
        note_lateness(settings, begun, 0);
    }
    Ok(engine)
}

fn no_guard(error: rustix::io::Errno) -> String {
    format!(
        "the engine's guards cannot be started (error {})",
        error.raw_os_error()
    )
}

/// Returns when the servers have to be connected: a quarter of the budget is used, or the
/// program has run for a moment and nobody has checked the servers. Returns the CPU that
/// this thread is bound to by then, if any.
fn watch(settings: &Settings, proc: &mut Proc, kin: &mut BudgetShare) -> Option<u32> {
    let start = now_ns();
    if crate::engine::fork::state::has_been() {
        kin.begin_as_child(proc);
    }
    let mut kept = None;
    let mut children = Vec::new();
    let mut looked = start;
    loop {
        let poked = alive::pokes();
        if now_ns() - looked > LEFT_NS {
            looked = now_ns();
            match program::is_apart() {
                true if departure::has_left() => thread::exit(),
                true => {}
                false => watchdog::follow_the_last(left_with(thread::own())),
            }
            if crate::engine::calls::credentials::has_to_follow() {
                crate::engine::calls::credentials::become_as(program::id());
            }
            watchdog::follow_the_keeper(settings.report.shared);
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
        crate::engine::budget_share::note(settings.report.figures, &memory);
        let early = !settings.servers.checked && now_ns() - start > SETTLED_NS;
        let wanted = early || alive::is_wanted_now() || control::answer_early(kin, settings);
        if settings.start.strict || settings.evict_all || wanted || resident > early_pages {
            return kept;
        }
        let early_budget = Watermarks {
            adopt: early_pages,
            ..budget
        };
        let mut pause = early_budget.quiet_us(resident).max(kin.turn_us());
        if !settings.servers.checked {
            pause = pause.min(SETTLED_NS / 1000);
        }
        if pause < CLOSE_US
            && let Some(cpu) = proc.cpu_of(program::id())
        {
            // Where the program runs, a timer wakes this thread at once: see
            // `cpu_placement`.
            thread::run_on(&thread::Cpus::one(cpu));
            kept = Some(cpu);
        }
        let before = now_ns();
        // The program has ended, and none of its pages is elsewhere.
        if !alive::sleep_unless_poked(poked, pause) {
            thread::exit();
        }
        note_lateness(settings, before, pause);
    }
}

/// Records by how much a sample was late that should have been made `us` microseconds after
/// `since`.
fn note_lateness(settings: &Settings, since: u64, us: u64) {
    let late = ((now_ns() - since) / 1000).saturating_sub(us);
    Figures::peak(&settings.report.figures.late_look_us, late);
}

/// Opens a userfaultfd with the necessary features.
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
        kin: BudgetShare,
        pace: CpuPlacement,
    ) -> Result<Engine, rustix::io::Errno> {
        let budget = settings.watermarks(settings.budget);
        let pool = Pool::new(budget.frames())?;
        let mut net = Servers::new(
            settings.servers.endpoints.clone(),
            settings.servers.net.clone(),
        );
        if let Some(local) = &settings.servers.local {
            // SAFETY: the shim has left it to the engine.
            let folder = local.folder.map(|fd| unsafe { Fd::from_raw_fd(fd) });
            let bytes = usize::try_from(local.bytes).unwrap_or(usize::MAX);
            net.add_local(LocalTier::new(&SPACE, bytes, folder)?);
        }
        Engine::of(settings, Box::new(kernel), net, (budget, pool), kin, pace)
    }

    /// Creates an engine on any kernel and network, with the pool for a budget.
    pub(crate) fn of(
        settings: Settings,
        kernel: Box<dyn Kernel>,
        net: Servers,
        (budget, pool): (Watermarks, Pool),
        kin: BudgetShare,
        pace: CpuPlacement,
    ) -> Result<Engine, rustix::io::Errno> {
        let digester = match settings.start.inherit {
            Some(manifest) => manifest.digester,
            None => Digester::draw(),
        };
        let may_move = settings.path != Path::Copy;
        let mover = Mover::new(kernel, &pool, may_move)?;
        if mover.copies() {
            crate::engine::exclusion::copies();
        }
        let how = if mover.copies() { "copied" } else { "moved" };
        if settings.report.level >= INFO {
            let on = match settings.servers.redundancy.copies {
                _ if settings.servers.endpoints.is_empty() => String::from("this machine"),
                0 | 1 => String::from("one server"),
                copies => format!("{copies} servers"),
            };
            sys::say::line(&format!(
                "paging begins; pages are {how}, and each is kept on {on}"
            ));
        }
        let report = Report::new(settings.report.figures, settings.report.level);
        let cache = CompressedPages::new(&settings);
        let evict_all = settings.evict_all;
        let by_choice = settings.path == Path::Copy;
        let (names, servers) = (
            settings.servers.names,
            settings.servers.endpoints.len() as u16,
        );
        let redundancy = &settings.servers.redundancy;
        let mut locations = redundancy.locations.clone();
        locations.extend(net.local().map(|_| Location {
            is_here: true,
            ..Location::default()
        }));
        let slots = Slots::new(locations, redundancy.copies);
        let repair = Repair::new(redundancy.repair_rate);
        Ok(Engine {
            settings,
            memory: Memory {
                report,
                mover,
                space: Space::default(),
                pages: Pages::default(),
                pool,
                queue: EvictionQueue::default(),
                residency: Residency::new(budget, kin),
                backing: Backing {
                    net,
                    slots,
                    digester,
                    requests: Requests::default(),
                    grants: Grants::new(),
                    errors: ServerErrors::new(),
                    rediscovery: Rediscovery::new(names, servers),
                    drains: Drains::default(),
                    repair,
                    copies: CopiesWatch::default(),
                    awaited: Awaited::default(),
                    turn: 0,
                    probes: 0,
                    done: Vec::new(),
                    refused: Vec::new(),
                    was_up: false,
                },
                faults: FaultQueue::default(),
                pinned: Pinned::default(),
                doorbell: Doorbell::default(),
                fork_stage: Stage::default(),
            },
            reclaim: Reclaim {
                retry: RetryList::default(),
                zap_worker: None,
                vma_change_stalled: false,
                async_dma: AsyncDma::new(by_choice),
                lending: LendingWatch::default(),
                standby: StandbySizer::default(),
                cache,
                refault: RefaultClock::default(),
                refaults: WorkingSet::default(),
                stress_ns: evict_all.then_some(0),
                pacing: pace.pacing(),
            },
            readahead: Readahead {
                prefetcher: Prefetcher::new(),
                straddle: StraddlePredictor::default(),
                indirect: IndirectPrefetcher::default(),
            },
            zero_fill: ZeroFill::default(),
            adoption: Adoption::default(),
            control: Control::default(),
            fork: Fork::default(),
            schedule: Schedule {
                pace,
                waiter: Waiter::new()?,
                timer: Timer::new()?,
                waited: Waited::default(),
                slow_ns: 0,
            },
            program_end: ProgramEnd::default(),
        })
    }
}
