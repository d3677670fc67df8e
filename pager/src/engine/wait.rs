//! Waits for faults, answers and the clock.

use crate::engine::fork::handover::Child;
use crate::engine::{Engine, SAMPLE_NS, SLOW_NS, Waited};
use crate::net::Lane;
use crate::sys::wait::Interest;
use crate::sys::{self, now_ns};

impl Engine {
    /// Waits until there is something to do.
    ///
    /// While nothing is adopted that is only to look how much there is by the clock, some
    /// hundreds of times a second of a program that nearly fills its budget: those looks
    /// touch as little as can be.
    pub(crate) fn wait(&mut self) {
        while self.has_slept() && self.is_only_to_look() {
            crate::engine::watchdog::turn();
            self.sample(now_ns());
        }
    }

    /// Whether the clock alone has woken the engine, and the program needs nothing.
    fn is_only_to_look(&self) -> bool {
        let now = now_ns();
        self.adopted.is_empty()
            && self.was_up
            && self.waited.readable == [self.timer.raw()]
            && self.faults.is_empty()
            && !self.is_over()
            && !self.is_forking()
            && now < self.slow_ns + SLOW_NS
            && self.net.next_timer().is_none_or(|at| now < at)
    }

    /// Waits once; whether it had to.
    fn has_slept(&mut self) -> bool {
        let now = now_ns();
        self.waited.uffd = true;
        self.waited.blindly = true;
        if self.waited.for_event || self.work_left() {
            return false;
        }
        // Faults that wait for memory are served when some was written, which a
        // socket tells, or when less is resident, which a look tells.
        // A fork is not to wait for long.
        let look = match self.faults.is_empty() && !self.is_forking() {
            true => self.budget.quiet_us(self.sampled.0) * 1000,
            false => SAMPLE_NS,
        };
        self.look_due_ns = self.sampled_ns + look;
        let until = self
            .net
            .next_timer()
            .unwrap_or(u64::MAX)
            .min(self.troubles.due().unwrap_or(u64::MAX))
            .min(self.sampled_ns + look);
        if until <= now {
            return false;
        }
        if !self.was_up {
            // What it takes to begin takes so long that the kernel finds the program
            // another processor.
            self.go_near();
        }
        self.timer.set(until, now);
        self.sleep();
        self.net.waited(now_ns().saturating_sub(now));
        true
    }

    /// Waits for the userfaultfd, the sockets and the timer.
    fn sleep(&mut self) {
        let Waited {
            interests,
            readable,
            ..
        } = &mut self.waited;
        readable.clear();
        interests.clear();
        let own = [self.kernel.raw(), self.timer.raw()];
        interests.extend(
            own.into_iter()
                .chain(self.fork.alarm.raw())
                .map(|fd| Interest {
                    fd,
                    serial: 0,
                    write: false,
                }),
        );
        interests.extend(self.fork.children.iter().map(|child| Interest {
            fd: child.raw(),
            serial: child.serial,
            write: false,
        }));
        self.net.interests(interests);
        if self.waiter.watch(interests).is_err() {
            return;
        }
        if self.net.outstanding(Lane::Demand) > 0 {
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
            return;
        }
        let alarmed = self
            .fork
            .alarm
            .raw()
            .is_some_and(|fd| readable.contains(&fd));
        let fired = readable.contains(&self.timer.raw());
        let asks = |child: &Child| readable.contains(&child.raw());
        let asked = self.fork.children.iter().any(asks);
        self.waited.uffd = readable.contains(&self.kernel.raw());
        // By the clock there may be something to do that no socket tells.
        self.waited.blindly = fired;
        if fired {
            self.timer.fired();
        }
        if asked {
            self.answer_children();
        }
        if alarmed {
            self.hear_alarm();
        }
    }

    /// Whether the next turn has something to do that nothing will announce.
    fn work_left(&self) -> bool {
        let plan = self.plan();
        plan.release > 0 || plan.reclaim > 0 || self.is_to_evict(&plan)
    }
}
