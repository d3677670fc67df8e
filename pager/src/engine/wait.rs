//! Waits for faults, answers and the clock.

use crate::engine::cpu_placement::Pace;
use crate::engine::fork::handover::Child;
use crate::engine::fork::quiesce::Fork;
use crate::engine::memory::Memory;
use crate::engine::program_end::ProgramEnd;
use crate::net::Lane;
use crate::sys::timer::Timer;
use crate::sys::wait::{Interest, Waiter};
use crate::sys::{self, now_ns};
use alloc::vec::Vec;

/// When the engine's thread runs.
pub(crate) struct Schedule {
    pub(crate) pace: Pace,
    pub(crate) waiter: Waiter,
    pub(crate) timer: Timer,
    pub(crate) waited: Waited,
    /// When the slower things were seen to last.
    pub(crate) slow_ns: u64,
}

/// What the last wait has shown.
#[derive(Debug, Default)]
pub(crate) struct Waited {
    /// The userfaultfd may have something to say.
    pub(crate) uffd: bool,
    /// Nothing is known of the sockets.
    pub(crate) blindly: bool,
    /// A fault waits for an event.
    pub(crate) for_event: bool,
    /// Descriptors that have something to say.
    pub(crate) readable: Vec<i32>,
    /// What was waited for.
    interests: Vec<Interest>,
}

/// What else has woken the engine.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Heard {
    /// A forked child asks for something.
    pub(crate) child: bool,
    /// The program has forked past the C library.
    pub(crate) fork: bool,
    /// The program, or a guard of the engine, has ended.
    pub(crate) end: bool,
}

impl Schedule {
    /// Waits for the userfaultfd, the sockets and the timer; what else was heard.
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
                // Somebody may need this processor, the server for one.
                sys::thread::pause();
            }
        }
        // Interrupted or not: the turn looks at what there is.
        if readable.is_empty() && self.waiter.wait(readable).is_err() {
            return Heard::default();
        }
        let alarmed = fork.detector.raw().is_some_and(|fd| readable.contains(&fd));
        let fired = readable.contains(&self.timer.raw());
        let asks = |child: &Child| readable.contains(&child.raw());
        let asked = fork.children.iter().any(asks);
        let ended = ends.into_iter().any(|fd| readable.contains(&fd));
        self.waited.uffd = readable.contains(&m.mover.kernel().raw());
        // By the clock there may be something to do that no socket tells.
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
