//! The watchdog: keeps a defect of the engine from hanging the program.
//!
//! If the engine touched memory that it has evicted, it would wait for itself, and so would
//! every thread that faults. A second thread checks once a second whether the event loop
//! has turned. If not, it asks the kernel what the engine waits for. A fault of the
//! engine's own is counted, and ends the program with a message.
//!
//! An engine that is a process of its own has two guards, which are processes, too, and
//! keep the userfaultfd open. If one of the three is killed, the others end the program and
//! every process that shares its memory. They end themselves only when nobody is left who
//! could read zeros in place of evicted pages.
//!
//! The program must not go on for ever because of tmem either. The kernel keeps a process
//! while it has any thread, including the engine's. When all threads of the program itself
//! have ended one by one, the watchdog ends the process with the status of its first
//! thread. (With several threads the status of the last one would count, but it is not
//! known.) When `tmem run` was killed, the processes under it end as well.

use crate::engine::kernel::Kernel;
use crate::engine::settings::Settings;
use crate::engine::threads::{GUARDS, THREADS};
use crate::stats::{Shared, Slot as Figures};
use crate::sys::fd::Fd;
use crate::sys::helper::Helper;
use crate::sys::mem::Region;
use crate::sys::proc::Waits;
use crate::sys::roots::Root;
use crate::sys::{descriptors, kill, program, say, thread};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd};
use rustix::io::Errno;

/// Time between two checks, in microseconds.
const LOOK_US: u64 = 1_000_000;
const LOOK: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

/// Bytes of a guard's stack.
const STACK: usize = 64 << 10;

/// Notes that the engine's end is no reason to end the program.
pub(crate) fn not_needed() {
    THREADS.watchdog.not_needed.store(true, Release);
}

/// Counts a turn of the event loop.
pub(crate) fn turn() {
    let turns = &THREADS.watchdog.turns;
    turns.store(turns.load(Relaxed).wrapping_add(1), Relaxed);
}

/// Ends a process that has no threads of its own left, with the status of the first.
pub(crate) fn follow_the_last(left_with: Option<i32>) {
    match left_with {
        None => {}
        Some(status) if status & 0x7f == 0 => kill::exit_process(status >> 8 & 0xff),
        Some(status) => kill::end_by_signal(status & 0x7f),
    }
}

/// Ends a process whose `tmem run` was killed. The pages on an embedded server are gone,
/// and whoever killed `tmem run` has meant the program, too.
pub(crate) fn follow_the_keeper(shared: Option<&Shared>) {
    let Some(shared) = shared.filter(|s| s.keeper.was_killed()) else {
        return;
    };
    const TEXT: &str = "`tmem run` was killed; the programs under it end with it";
    if shared.told.is_news(TEXT) {
        say::line(TEXT);
    }
    kill::kill_process()
}

/// Arguments of a guard.
struct Watch {
    /// The engine's thread, or its process if it is one.
    engine: u32,
    figures: &'static Figures,
    shared: Option<&'static Shared>,
    /// Number of the guard.
    number: usize,
    /// For a process: file descriptors, in the engine's file table, of the engine's
    /// process, of the guard's bell, and of the userfaultfd.
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
    /// Becomes readable when the process has ended.
    end: Fd,
    /// Wakes the process.
    bell: Fd,
    watch: &'static Watch,
}

/// Starts a guard of the calling thread, as a thread.
///
/// # Errors
/// Those of the kernel.
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
    // SAFETY: the entry never returns and uses no thread-local storage. Its argument lives
    // for ever, and nobody else uses the stack. The calling thread has blocked all signals.
    unsafe { kernel.spawn(stack, watch_thread, core::ptr::from_mut(watch).cast())? };
    Ok(Guard {
        stacks: alloc::vec![stack],
        processes: Vec::new(),
    })
}

/// Starts the guards of the calling process. Each keeps a copy of the userfaultfd `uffd`.
///
/// # Errors
/// Those of the kernel.
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
    // The guards have copies of it, with the same number.
    core::mem::forget(engine);
    Ok(guard)
}

/// Starts a process on `stack`. Returns it, and a file descriptor that becomes readable
/// when it has ended.
fn begin(watch: &'static Watch, stack: Region) -> Result<(Helper, Fd), Errno> {
    let arg = core::ptr::from_ref(watch).cast_mut().cast();
    // SAFETY: the entry never returns and uses no thread-local storage. Its argument lives
    // for ever, and nobody else uses the stack. All signals are blocked.
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
    /// Returns the stacks, which are never paged.
    pub(crate) fn stacks(&self) -> impl Iterator<Item = Region> {
        self.stacks.iter().copied()
    }

    /// Returns file descriptors that become readable when a guard has ended.
    pub(crate) fn descriptors(&self) -> [Option<i32>; GUARDS] {
        let running = |process: &Process| process.helper.is_some().then(|| process.end.raw());
        core::array::from_fn(|at| self.processes.get(at).and_then(running))
    }

    /// Ends the program if a guard was killed.
    pub(crate) fn end_if_killed(&self) {
        if self.processes.iter().any(Process::was_killed) {
            kill::kill_process();
        }
    }

    /// Ends the processes. After that only the engine keeps the userfaultfd open.
    pub(crate) fn end(&mut self) {
        for process in &mut self.processes {
            if let Some(helper) = process.helper.take() {
                helper.kill();
                program::note_task(1 + process.watch.number, 0);
            }
        }
    }

    /// Starts the processes again, as far as possible.
    pub(crate) fn begin_again(&mut self) {
        for (process, stack) in self.processes.iter_mut().zip(&self.stacks) {
            if let Ok((helper, end)) = begin(process.watch, *stack) {
                (process.helper, process.end) = (Some(helper), end);
            }
        }
    }

    /// Gives the guards the program's current credentials.
    pub(crate) fn follow(&self) {
        let number = THREADS.watchdog.called.fetch_add(1, AcqRel).wrapping_add(1);
        thread::wake_sleeper(&THREADS.watchdog.called);
        for process in &self.processes {
            // The write fails only if nobody reads, and then it is not needed.
            let _ = rustix::io::write(&process.bell, &1u64.to_ne_bytes());
        }
        let has_come = |at: usize| THREADS.watchdog.came[at].load(Acquire) == number;
        let running = |process: &&Process| process.helper.is_some();
        // The guards do nothing else that takes time.
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
    // SAFETY: `start` passes a `Watch` that lives for ever.
    let watch = unsafe { &*arg.cast::<Watch>() };
    // This thread has a copy of the engine's `/proc`.
    let proc = Root::Proc.get().map(|fd| fd.as_raw_fd());
    descriptors::close_all_but([proc.unwrap_or(-1)]);
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
    // SAFETY: `start_apart` passes a `Watch` that lives for ever.
    let watch = unsafe { &*arg.cast::<Watch>() };
    let _ = rustix::process::setpgid(None, None);
    let _ = rustix::thread::set_name(c"tmem-guard");
    let [engine, bell, uffd] = watch.descriptors.unwrap_or([-1; 3]);
    let proc = Root::Proc.get().map_or(-1, |fd| fd.as_raw_fd());
    let program = program::raw().unwrap_or(-1);
    descriptors::close_all_but([engine, bell, uffd, proc, program]);
    // SAFETY: they are in the file table of this process, which nobody else uses, and are
    // never closed.
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
            kill::kill_process();
        }
        if poll[1].revents().is_empty() {
            if watch.number == 0 {
                looks.look(watch, Waits::of_process);
            }
        } else {
            // The number of rings does not matter.
            let _ = rustix::io::read(bell, &mut [0; 8]);
            called = watch.come(called);
        }
    }
}

impl Watch {
    /// Takes over the program's credentials if that was asked for since `called`.
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

    /// Checks once. `waits` returns what the engine waits for.
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
