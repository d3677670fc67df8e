//! Reads the options and starts the engine, before the program's `main`.

mod local_tier;
mod redundancy;
mod servers;

use crate::interpose::{activate, debugger, exec, fork, next};
use crate::link::bind;
use crate::{family, figures, naming, never_paged, obstacle};
use rustix::fd::FromRawFd;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use tmem_config::{
    AutoMode, Evict, Layer, Level, Local, Memory, Options, PagePath, check_local, wants_thread,
};
use tmem_pager::engine::fork::ForkManifest;
use tmem_pager::engine::map_throttle::SMALLEST;
use tmem_pager::engine::{
    self, PAGED, PENDING, Path, ReportSettings, ServerSettings, Settings, StartSettings, UNPAGED,
};
use tmem_pager::net;
use tmem_pager::stats::Shared;
use tmem_pager::sys::channel::End;
use tmem_pager::sys::mem::Region;
use tmem_pager::sys::roots::Root;
use tmem_pager::sys::space::{self, SPACE};
use tmem_pager::sys::{self, confined, detached, program, thread};

/// The exit status of a program that is not started, as of `tmem run`.
pub(crate) const NOT_STARTED: i32 = 125;

/// Bytes of the engine's stack.
const STACK: usize = 256 << 10;
/// Bytes of address space that an engine needs beside its pool, and for how many generations
/// of children they are reserved.
const SMALL_THINGS: usize = 2 << 20;
const GENERATIONS: usize = 16;

/// What the engine was started with.
static SETTINGS: OnceLock<Settings> = OnceLock::new();

/// Whether the program is paged.
static OUTCOME: AtomicU32 = AtomicU32::new(PENDING);

#[used]
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = begin;

extern "C" fn begin() {
    next::find_all();
    bind::to_the_c_library();
    match options() {
        Ok(Some(options)) => {
            exec::watch(options.strict);
            naming::begin(&options);
            match obstacle::find() {
                None => start(&options),
                Some(why) => {
                    refuse(&format!("cannot page this program: {why}"), options.strict);
                }
            }
        }
        // Without any option there is nothing to do, but for a debugger.
        Ok(None) => debugger::begin(),
        Err(text) => {
            // The options cannot be read, but this one perhaps can.
            let strict = std::env::var("TMEM_STRICT")
                .is_ok_and(|v| matches!(v.trim(), "1" | "true" | "yes" | "on"));
            refuse(&text, strict);
        }
    }
}

/// Says why the program is not paged. With `strict`, ends it.
fn refuse(text: &str, strict: bool) {
    if strict {
        say(&format!(
            "{text}; the program is not started, as `strict` asks"
        ));
        // SAFETY: ends the process; nothing of the program has run.
        unsafe { libc::_exit(NOT_STARTED) };
    }
    let line = format!("{text}; the program runs without paging");
    if family::told().is_none_or(|told| told.is_news(&line)) {
        say(&line);
    }
    activate(false);
}

fn options() -> Result<Option<Options>, String> {
    let layer = Layer::from_env().map_err(|e| e.to_string())?;
    if layer == Layer::default() {
        return Ok(None);
    }
    let options = layer.with_file().map_err(|e| e.to_string())?.finish();
    Ok(Some(options))
}

/// Starts the engine.
fn start(options: &Options) {
    OUTCOME.store(PENDING, Ordering::Release);
    match launch(options) {
        Ok(()) => hold(options),
        Err(text) => refuse(&text, options.strict),
    }
}

/// Starts the engine of a forked child. It uses its parent's settings, since it may not be
/// able to read files or look up addresses any more. If some of its memory is on servers, as
/// `manifest` says, this returns when the child is paged. Until then nothing may touch the
/// program's memory, or what the C library keeps on its heap.
pub(crate) fn start_child(manifest: Option<&'static ForkManifest>, handed: Option<End>) {
    OUTCOME.store(PENDING, Ordering::Release);
    let Some(parents) = SETTINGS.get() else {
        if manifest.is_some() {
            fork::cannot_go_on("a fork that was not prepared");
        }
        // What kept its parent from being paged also keeps the child.
        return;
    };
    let mut settings = parents.clone();
    let shared = family::shared();
    let shown;
    (settings.report.figures, settings.report.live, shown) = match shared {
        Some(shared) => (shared.claim(std::process::id()), None, None),
        None => figures::own(naming::own(), false),
    };
    let budget = settings.budget;
    settings
        .report
        .figures
        .local_budget_bytes
        .store(budget, Ordering::Relaxed);
    settings.servers.net.seed = u64::from(std::process::id());
    settings.start.inherit = manifest;
    settings.start.handed = handed;
    // The parent's engine hands its folder over.
    if let Some(local) = &mut settings.servers.local {
        local.folder = None;
    }
    match (spawn(settings, shown.as_ref()), manifest) {
        // One that cannot be paged is ended by its engine.
        (Ok(()), Some(_)) => _ = wait(),
        (Ok(()), None) => {}
        (Err(text), Some(_)) => fork::cannot_go_on(&text),
        (Err(text), None) => say(&format!("{text}; the program runs without paging")),
    }
}

/// Bytes of address space that the engine's pool takes, if the program is to be paged.
pub(crate) fn pool_bytes() -> Option<u64> {
    SETTINGS.get().map(|s| engine::pool_bytes(s.budget))
}

fn launch(options: &Options) -> Result<(), String> {
    let memory = Memory::get().map_err(|e| e.to_string())?;
    let Some(local) = options.local else {
        return Err("no local budget: set TMEM_LOCAL".to_owned());
    };
    let Local::Size(local) = local else {
        return Err("TMEM_LOCAL=auto is for `tmem run`, which follows the machine".to_owned());
    };
    let (budget, warning) = check_local(local.bytes(memory.most()), &memory);
    if let Some(text) = warning.filter(|_| options.log >= Level::Warn && !family::is_checked()) {
        say(&text);
    }
    let shared = family::shared();
    let (figures, live, shown) = figures_of(options, shared, budget);
    let endpoints = servers::endpoints(options, shared.map(|s| &s.names))?;
    let (local_tier, _folder) = local_tier::local_tier(options, memory.most(), budget)?;
    let settings = Settings {
        budget,
        path: match options.page_path {
            PagePath::Auto => Path::Auto,
            PagePath::Move => Path::Move,
            PagePath::Copy => Path::Copy,
        },
        copies: when(options.compressed_cache),
        evict_all: options.evict == Evict::All,
        family: shared.map(|s| &s.family),
        keep: never_paged::ranges(),
        servers: ServerSettings {
            redundancy: redundancy::redundancy(options, &endpoints, memory.most()),
            endpoints: endpoints
                .into_iter()
                .map(|(endpoint, _)| endpoint)
                .collect(),
            net: net::Options {
                secret: servers::secret(options)?,
                packing: when(options.compress),
                seed: u64::from(std::process::id()),
                wait_ms: options.on_loss.wait_ms(),
                ..net::Options::default()
            },
            names: shared.map(|s| &s.names),
            checked: family::is_checked(),
            local: local_tier,
        },
        report: ReportSettings {
            level: options.log as u8,
            told: family::told(),
            figures,
            shared,
            live,
        },
        start: StartSettings {
            strict: options.strict,
            inherit: None,
            handed: None,
            outcome: &OUTCOME,
        },
    };
    // Only the constructor comes here, once.
    let _ = SETTINGS.set(settings.clone());
    fork::prepare();
    activate(true);
    spawn(settings, shown.as_ref())
}

fn when(mode: AutoMode) -> tmem_pager::When {
    match mode {
        AutoMode::Auto => tmem_pager::When::Auto,
        AutoMode::Always => tmem_pager::When::Always,
        AutoMode::Never => tmem_pager::When::Never,
    }
}

fn figures_of(options: &Options, shared: Option<&'static Shared>, budget: u64) -> figures::Kept {
    let kept = match shared {
        Some(shared) => (shared.claim(std::process::id()), None, None),
        None => figures::own(naming::own(), options.summary),
    };
    kept.0.local_budget_bytes.store(budget, Ordering::Relaxed);
    kept
}

/// Has a panic of this library end the program, with a message: no page would be served any
/// more.
fn tell_of_panics() {
    std::panic::set_hook(Box::new(|info| {
        tmem_pager::sys::say::die(&format!("a defect of tmem ends the program: {info}"))
    }));
}

fn spawn(settings: Settings, shown: Option<&OwnedFd>) -> Result<(), String> {
    tell_of_panics();
    crate::interpose::credentials::begin();
    let failed = |e: rustix::io::Errno| format!("the engine cannot be started: {e}");
    let mut settings = settings;
    let needed = engine::pool_bytes(settings.budget) as usize + SMALL_THINGS;
    let (needed, times) = match space::limit() {
        Some(_) => (needed, 1),
        None => (
            needed + engine::copies_bytes(settings.budget) as usize,
            GENERATIONS,
        ),
    };
    if SPACE.left() < needed {
        SPACE.set_aside(needed * times + tier_space(&settings));
    }
    let stack = Region::stack(STACK).map_err(failed)?;
    settings.keep.push(stack.start..stack.end());
    settings.keep.push(SPACE.range());
    settings.keep.sort_unstable_by_key(|r| r.start);
    // The engine gets a copy in a file table of its own.
    let folder = settings.servers.local.and_then(|local| local.folder);
    let device = family::device();
    let number = device.as_ref().map_or(-1, AsRawFd::as_raw_fd);
    let arg: *mut Start = Box::into_raw(Box::new(Start {
        settings,
        device: number,
        shown: shown.map_or(-1, AsRawFd::as_raw_fd),
        folder: folder.unwrap_or(-1),
    }));
    // The first look at the clock finds the kernel's vDSO. Before Linux 6.4 that reads a file,
    // and closing a file needs a thread of the C library, which the engine's is not.
    sys::now_ns();
    let mask = thread::block_signals();
    let apart = may_be_apart();
    program::begin(apart);
    // SAFETY: the entry never returns and uses no thread-local storage; the
    // argument is its own, and so is the stack. Signals are blocked.
    let started = apart.then(|| unsafe { detached::spawn(stack, enter, arg.cast()) });
    let started = match started {
        Some(Ok(_)) => Ok(0),
        _ => {
            program::begin(false);
            // SAFETY: as above.
            unsafe { thread::spawn(stack, enter, arg.cast()) }
        }
    };
    thread::set_mask(mask);
    started.map_err(failed)?;
    // On a busy machine, the program might fill a hundred megabytes before a new thread runs
    // for the first time.
    while OUTCOME.load(Ordering::Acquire) == PENDING {
        sleep_while(PENDING)?;
    }
    Ok(())
}

/// Address space for the local tier, which a forked child has from its parent.
fn tier_space(settings: &Settings) -> usize {
    /// Of a limit, the tier takes at most this part.
    const PART_OF_LIMIT: u64 = 8;
    let bytes = settings.servers.local.map_or(0, |local| local.bytes);
    let bytes = bytes.saturating_add(bytes / 8).saturating_add(64 << 20);
    let most = space::limit().map_or(u64::MAX, |limit| limit / PART_OF_LIMIT);
    match settings.servers.local {
        Some(_) => usize::try_from(bytes.min(most)).unwrap_or(usize::MAX / 4),
        None => 0,
    }
}

/// Whether the engine may be a process of its own: unless the user wants a thread, or a filter
/// of system calls might end the program for starting one.
pub(crate) fn may_be_apart() -> bool {
    static WANTED: OnceLock<bool> = OnceLock::new();
    if family::takes_orphans_itself() {
        detached::has_reaper();
    }
    let may = detached::may_be(family::takes_orphans());
    may && *WANTED.get_or_init(|| !wants_thread()) && !confined::is_confined()
}

/// Sleeps while the outcome is this.
fn sleep_while(outcome: u32) -> Result<(), String> {
    /// Between two looks whether somebody has ended the engine.
    const LOOK_US: u64 = 100_000;
    if program::has_lost_its_engine() {
        return Err(String::from("the engine was ended"));
    }
    thread::sleep_some(&OUTCOME, outcome, LOOK_US);
    Ok(())
}

/// What the engine's thread is given.
struct Start {
    settings: Settings,
    /// An open `/dev/userfaultfd`, or -1.
    device: i32,
    /// The memory that shows what this process has, or -1: only to be held, for those who may
    /// look.
    shown: i32,
    /// The folder for spill files, or -1.
    folder: i32,
}

unsafe extern "C" fn enter(arg: *mut u8) -> ! {
    // SAFETY: what `spawn` gave.
    let Start {
        settings,
        device,
        shown,
        folder,
    } = *unsafe { Box::from_raw(arg.cast::<Start>()) };
    let end = settings.start.handed.map_or(-1, |end| end.fd);
    // This thread must not keep the program's descriptors open.
    thread::close_all_but([end, device, shown, folder]);
    if device >= 0 {
        // SAFETY: this thread has a file table of its own, and nothing else owns the descriptor.
        Root::Device.keep(unsafe { sys::fd::Fd::from_raw_fd(device) });
    }
    if shown >= 0 {
        // SAFETY: as above.
        let shown = unsafe { sys::fd::Fd::from_raw_fd(shown) };
        // It is held for as long as the engine lives.
        std::mem::forget(shown.moved_up());
    }
    if program::is_apart() && detached::begin().is_err() {
        // The program has ended.
        thread::exit();
    }
    engine::run(&settings)
}

/// Delays the program if an option needs the engine to have begun.
fn hold(options: &Options) {
    let all_leaves = options.evict == Evict::All;
    if !options.strict && !all_leaves {
        return;
    }
    let is_paged = wait();
    if !is_paged && options.strict {
        // SAFETY: ends the process; nothing of the program has run.
        unsafe { libc::_exit(NOT_STARTED) };
    }
    // A short program would be over before any of its pages could leave.
    if is_paged && all_leaves {
        engine::adopt_now();
    }
}

/// Waits until it is known whether the program can be paged, and returns that.
fn wait() -> bool {
    loop {
        match OUTCOME.load(Ordering::Acquire) {
            PAGED => return true,
            UNPAGED => return false,
            other if sleep_while(other).is_err() => return false,
            _ => {}
        }
    }
}

/// Called when the program has mapped memory. With `--evict all`, waits until that memory is
/// adopted, unless pages have left already: so some pages of every program leave.
pub(crate) fn has_mapped(len: usize) {
    let waits =
        |s: &&Settings| s.evict_all && s.report.figures.evicted_pages.load(Ordering::Relaxed) == 0;
    if len >= SMALLEST && SETTINGS.get().filter(waits).is_some() && has_begun() {
        engine::adopt_now();
    }
}

/// Whether the engine pages the program.
fn has_begun() -> bool {
    OUTCOME.load(Ordering::Acquire) == PAGED
}

/// Writes one line to standard error.
pub(crate) fn say(text: &str) {
    let line = format!("tmem: {text}\n");
    // SAFETY: the line is as long as said. Nobody is left to tell of a failure.
    unsafe { libc::write(2, line.as_ptr().cast(), line.len()) };
}
