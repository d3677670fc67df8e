//! Sees to it that a defect of the engine does not hang the program.
//!
//! Were the engine to touch memory that it has evicted, it would wait for
//! itself, and every thread that faults with it. A second thread looks once a
//! second whether the engine had a turn; if not, it asks the kernel what the
//! engine waits for. A fault of its own is counted and ends the program with a
//! message.
//!
//! An engine that is a process of its own has two guards, processes as well, which keep
//! the userfaultfd open. Whichever of the three is killed, the others end the program and
//! all that share its memory, and go when nobody is left who could read zeros where pages
//! are elsewhere.
//!
//! Nor is the program to go on for ever because of tmem: the kernel keeps a
//! process for as long as any thread is there, also the engine's where that is a
//! thread of it. Where all the program's own have ended one by one, the process is
//! ended as its first thread was. (That of a later one, which would count where there
//! are several, is not to be had.) Where `tmem run` was killed, the processes under it
//! end as well.

use crate::engine::kernel::Kernel;
use crate::engine::settings::Settings;
use crate::engine::threads::{GUARDS, THREADS};
use crate::stats::{Shared, Slot as Figures};
use crate::sys::fd::Fd;
use crate::sys::helper::Helper;
use crate::sys::mem::Region;
use crate::sys::proc::Waits;
use crate::sys::roots::Root;
use crate::sys::{program, say, thread};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd};
use rustix::io::Errno;

/// Between two looks, in microseconds.
const LOOK_US: u64 = 1_000_000;
const LOOK: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

/// Bytes of a guard's stack.
const STACK: usize = 64 << 10;

/// The engine's end is no reason to end the program.
pub(crate) fn not_needed() {
    THREADS.watchdog.not_needed.store(true, Release);
}

/// The engine has a turn.
pub(crate) fn turn() {
    let turns = &THREADS.watchdog.turns;
    turns.store(turns.load(Relaxed).wrapping_add(1), Relaxed);
}

/// Ends a process of whose own threads none is left, as the last of them has ended.
pub(crate) fn follow_the_last(left_with: Option<i32>) {
    match left_with {
        None => {}
        Some(status) if status & 0x7f == 0 => thread::exit_process(status >> 8 & 0xff),
        Some(status) => thread::end_by_signal(status & 0x7f),
    }
}

/// Ends a process whose `tmem run` was killed. With an embedded server its pages are gone,
/// and whoever killed the one has meant the other.
pub(crate) fn follow_the_keeper(shared: Option<&Shared>) {
    let Some(shared) = shared.filter(|s| s.keeper.was_killed()) else {
        return;
    };
    const TEXT: &str = "`tmem run` was killed; the programs under it end with it";
    if shared.told.is_news(TEXT) {
        say::line(TEXT);
    }
    thread::kill_process()
}

/// What a guard is given.
struct Watch {
    /// The engine's thread, and where it is a process of its own, that.
    engine: u32,
    figures: &'static Figures,
    shared: Option<&'static Shared>,
    /// Its number among the guards.
    number: usize,
    /// Of a process, in the engine's table of descriptors: the engine's process, what it is
    /// woken by, and the userfaultfd.
    descriptors: Option<[i32; 3]>,
}

/// The guards of an engine.
pub(crate) struct Guard {
    stacks: Vec<Region>,
    processes: Vec<Process>,
}

/// A guard that is a process.
struct Process {
    helper: Option<Helper>,
    /// Readable once it has ended.
    end: Fd,
    /// Wakes it.
    bell: Fd,
    watch: &'static Watch,
}

/// Starts the guard of the calling thread, as a thread.
///
/// # Errors
/// The kernel's.
pub(crate) fn start(
    kernel: &dyn Kernel,
    figures: &'static Figures,
    shared: Option<&'static Shared>,
) -> Result<Guard, Errno> {
    let watch = Box::leak(Box::new(Watch {
        engine: thread::id(),
        figures,
        shared,
        number: 0,
        descriptors: None,
    }));
    let stack = Region::stack(STACK)?;
    // SAFETY: the entry never returns and uses no thread-local storage; its
    // argument lives for ever, and the stack is its own. The calling thread has
    // blocked all signals.
    unsafe { kernel.spawn(stack, watch_thread, core::ptr::from_mut(watch).cast())? };
    Ok(Guard {
        stacks: alloc::vec![stack],
        processes: Vec::new(),
    })
}

/// Starts the guards of the calling process, which keep a copy of the userfaultfd `uffd`.
///
/// # Errors
/// The kernel's.
pub(crate) fn start_apart(uffd: i32, settings: &Settings) -> Result<Guard, Errno> {
    let engine = program::pidfd(thread::id())?;
    let mut guard = Guard {
        stacks: Vec::new(),
        processes: Vec::new(),
    };
    for number in 0..GUARDS {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let bell = Fd::from(rustix::event::eventfd(0, flags)?).moved_up();
        let watch = Box::leak(Box::new(Watch {
            engine: thread::id(),
            figures: settings.report.figures,
            shared: settings.report.shared,
            number,
            descriptors: Some([engine.raw(), bell.raw(), uffd]),
        }));
        let stack = Region::stack(STACK)?;
        let (helper, end) = begin(watch, stack)?;
        guard.stacks.push(stack);
        guard.processes.push(Process {
            helper: Some(helper),
            end,
            bell,
            watch,
        });
    }
    // The guards have their copies of it, of the same number.
    core::mem::forget(engine);
    Ok(guard)
}

/// Starts a process on `stack`; that, and what is readable once it has ended.
fn begin(watch: &'static Watch, stack: Region) -> Result<(Helper, Fd), Errno> {
    let arg = core::ptr::from_ref(watch).cast_mut().cast();
    // SAFETY: the entry never returns and uses no thread-local storage; its argument
    // lives for ever, and nobody else is on the stack. All signals are blocked.
    let helper = unsafe { Helper::spawn_apart(stack, watch_process, arg)? };
    program::note_task(1 + watch.number, helper.id());
    match program::pidfd(helper.id()) {
        Ok(end) => Ok((helper, end)),
        Err(error) => {
            helper.kill();
            program::note_task(1 + watch.number, 0);
            Err(error)
        }
    }
}

impl Process {
    fn was_killed(&self) -> bool {
        self.helper.is_some() && program::is_readable(self.end.as_fd(), Some(0))
    }
}

impl Guard {
    /// Memory of the engine's own.
    pub(crate) fn stacks(&self) -> impl Iterator<Item = Region> {
        self.stacks.iter().copied()
    }

    /// What is readable once one of the processes has ended.
    pub(crate) fn descriptors(&self) -> [Option<i32>; GUARDS] {
        let running = |process: &Process| process.helper.is_some().then(|| process.end.raw());
        core::array::from_fn(|at| self.processes.get(at).and_then(running))
    }

    /// Ends the program if somebody has ended a guard.
    pub(crate) fn end_if_killed(&self) {
        if self.processes.iter().any(Process::was_killed) {
            thread::kill_process();
        }
    }

    /// Ends the processes. The engine alone keeps the userfaultfd open then.
    pub(crate) fn end(&mut self) {
        for process in &mut self.processes {
            if let Some(helper) = process.helper.take() {
                helper.kill();
                program::note_task(1 + process.watch.number, 0);
            }
        }
    }

    /// Starts them again, as far as that is possible.
    pub(crate) fn begin_again(&mut self) {
        for (process, stack) in self.processes.iter_mut().zip(&self.stacks) {
            if let Ok((helper, end)) = begin(process.watch, *stack) {
                (process.helper, process.end) = (Some(helper), end);
            }
        }
    }

    /// Has the guards be what the program is.
    pub(crate) fn follow(&self) {
        let number = THREADS.watchdog.called.fetch_add(1, AcqRel).wrapping_add(1);
        thread::wake_sleeper(&THREADS.watchdog.called);
        for process in &self.processes {
            // It is full for nobody who reads it.
            let _ = rustix::io::write(&process.bell, &1u64.to_ne_bytes());
        }
        let has_come = |at: usize| THREADS.watchdog.came[at].load(Acquire) == number;
        let running = |process: &&Process| process.helper.is_some();
        // They do nothing else that takes time.
        for turn in 0.. {
            let came = match self.processes.is_empty() {
                true => has_come(0),
                false => {
                    let mut running = self.processes.iter().filter(running);
                    running.all(|process| has_come(process.watch.number))
                }
            };
            if came {
                return;
            }
            self.end_if_killed();
            thread::await_turn(turn);
        }
    }
}

unsafe extern "C" fn watch_thread(arg: *mut u8) -> ! {
    // SAFETY: what `start` gave.
    let watch = unsafe { &*arg.cast::<Watch>() };
    // The engine's, of which this is a copy, has `/proc` to look into.
    let proc = Root::Proc.get().map(|fd| fd.as_raw_fd());
    thread::close_all_but([proc.unwrap_or(-1)]);
    let mut looks = Looks::new();
    let mut called = 0;
    loop {
        while !thread::sleep_some(&THREADS.watchdog.called, called, LOOK_US) {
            called = watch.come(called);
        }
        looks.look(watch, Waits::of);
    }
}

unsafe extern "C" fn watch_process(arg: *mut u8) -> ! {
    // SAFETY: what `start_apart` gave.
    let watch = unsafe { &*arg.cast::<Watch>() };
    let _ = rustix::process::setpgid(None, None);
    let _ = rustix::thread::set_name(c"tmem-guard");
    let [engine, bell, uffd] = watch.descriptors.unwrap_or([-1; 3]);
    let proc = Root::Proc.get().map_or(-1, |fd| fd.as_raw_fd());
    let program = program::raw().unwrap_or(-1);
    thread::close_all_but([engine, bell, uffd, proc, program]);
    // SAFETY: they are in this process's table, which is its alone, for good.
    let [engine, bell] = [engine, bell].map(|fd| unsafe { BorrowedFd::borrow_raw(fd) });
    let mut looks = Looks::new();
    let mut called = THREADS.watchdog.called.load(Acquire);
    THREADS.watchdog.came[watch.number].store(called, Release);
    loop {
        let mut poll = [engine, bell].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        let _ = rustix::event::poll(&mut poll, Some(&LOOK));
        if !poll[0].revents().is_empty() {
            if THREADS.watchdog.not_needed.load(Acquire) {
                thread::exit();
            }
            thread::kill_process();
        }
        if poll[1].revents().is_empty() {
            if watch.number == 0 {
                looks.look(watch, Waits::of_process);
            }
        } else {
            // Whether it was rung once or more.
            let _ = rustix::io::read(bell, &mut [0; 8]);
            called = watch.come(called);
        }
    }
}

impl Watch {
    /// Becomes what the program is, where it was called since `called` times.
    fn come(&self, called: u32) -> u32 {
        let number = THREADS.watchdog.called.load(Acquire);
        if number != called {
            crate::engine::calls::credentials::become_as(crate::engine::calls::credentials::whom());
            THREADS.watchdog.came[self.number].store(number, Release);
        }
        number
    }
}

/// What a guard has seen.
struct Looks {
    turns: u64,
}

impl Looks {
    fn new() -> Looks {
        Looks {
            turns: THREADS.watchdog.turns.load(Relaxed),
        }
    }

    /// Looks once; `waits` finds out what the engine waits for.
    fn look(&mut self, watch: &Watch, waits: impl Fn(u32) -> Option<Waits>) {
        follow_the_keeper(watch.shared);
        let turns = THREADS.watchdog.turns.load(Relaxed);
        if turns == self.turns && waits(watch.engine).is_some_and(|w| w.within(b"handle_userfault"))
        {
            watch.figures.self_faults.fetch_add(1, Relaxed);
            say::die(
                "a defect of tmem: its engine touched memory that it had evicted; the program \
                 is ended",
            );
        }
        self.turns = turns;
    }
}
