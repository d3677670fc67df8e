//! Waits for faults, answers of servers, and the timer.

use crate::engine::cpu_placement::CpuPlacement;
use crate::engine::fork::handover::Child;
use crate::engine::fork::quiesce::Fork;
use crate::engine::memory::Memory;
use crate::engine::program_end::ProgramEnd;
use crate::net::Lane;
use crate::sys::timer::Timer;
use crate::sys::wait::{Interest, Waiter};
use crate::sys::{self, now_ns};
use alloc::vec::Vec;

/// When the engine's thread runs, sleeps and spins.
pub(crate) struct Schedule {
    pub(crate) pace: CpuPlacement,
    pub(crate) waiter: Waiter,
    pub(crate) timer: Timer,
    pub(crate) waited: Waited,
    /// When [`Engine::slowly`](super::event_loop::Engine::slowly) last ran.
    pub(crate) slow_ns: u64,
}

/// Results of the last wait.
#[derive(Debug, Default)]
pub(crate) struct Waited {
    /// The userfaultfd may be readable.
    pub(crate) uffd: bool,
    /// The sockets' state is unknown: all of them are tried.
    pub(crate) blindly: bool,
    /// A fault waits for an event.
    pub(crate) for_event: bool,
    /// File descriptors that are ready.
    pub(crate) readable: Vec<i32>,
    /// File descriptors that were waited for.
    interests: Vec<Interest>,
}

/// Other reasons why the engine woke up.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Heard {
    /// A forked child sent a message.
    pub(crate) child: bool,
    /// The program has forked without the C library.
    pub(crate) fork: bool,
    /// The program, or a guard of the engine, has ended.
    pub(crate) end: bool,
}

impl Schedule {
    /// Waits for the userfaultfd, the sockets and the timer. Returns what else woke the
    /// engine.
    pub(crate) fn sleep(&mut self, m: &Memory, fork: &Fork, program_end: &ProgramEnd) -> Heard {
        let Waited {
            interests,
            readable,
            ..
        } = &mut self.waited;
        readable.clear();
        interests.clear();
        let own = [m.mover.kernel().raw(), self.timer.raw()];
        interests.extend(
            own.into_iter()
                .chain(fork.detector.raw())
                .map(|fd| Interest {
                    fd,
                    serial: 0,
                    write: false,
                }),
        );
        interests.extend(fork.children.iter().map(|child| Interest {
            fd: child.raw(),
            serial: child.serial,
            write: false,
        }));
        let ends = program_end.descriptors();
        interests.extend(ends.clone().map(|fd| Interest {
            fd,
            serial: 0,
            write: false,
        }));
        m.backing.net.interests(interests);
        if self.waiter.watch(interests).is_err() {
            return Heard::default();
        }
        if m.backing.net.outstanding(Lane::Demand) > 0 {
            while self.pace.spins(now_ns()) {
                if self.waiter.look(readable).is_err() || !readable.is_empty() {
                    break;
                }
                // Another task may need this CPU, for instance a server on this machine.
                sys::thread::pause();
            }
        }
        // An interrupted wait is no error: the next turn looks at everything.
        if readable.is_empty() && self.waiter.wait(readable).is_err() {
            return Heard::default();
        }
        let alarmed = fork.detector.raw().is_some_and(|fd| readable.contains(&fd));
        let fired = readable.contains(&self.timer.raw());
        let asks = |child: &Child| readable.contains(&child.raw());
        let asked = fork.children.iter().any(asks);
        let ended = ends.into_iter().any(|fd| readable.contains(&fd));
        self.waited.uffd = readable.contains(&m.mover.kernel().raw());
        // The timer may be for work that no socket announces.
        self.waited.blindly = fired;
        if fired {
            self.timer.fired();
        }
        Heard {
            child: asked,
            fork: alarmed,
            end: ended,
        }
    }
}
