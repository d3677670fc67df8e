//! The event loop: waits for faults, answers and the clock, passes the owners to one
//! another, and carries out what they ask for.

use crate::engine::adopt::Adoption;
use crate::engine::alive;
use crate::engine::calls::{advice, credentials, mem_file, mincore, relinquish};
use crate::engine::control::Control;
use crate::engine::fault::Service;
use crate::engine::fork::quiesce::Fork;
use crate::engine::fork::state::Stage;
use crate::engine::memory::Memory;
use crate::engine::memory::outcome::Again;
use crate::engine::memory::residency::SAMPLE_NS;
use crate::engine::program_end::ProgramEnd;
use crate::engine::read_in::{Readahead, read, retry};
use crate::engine::reclaim::Reclaim;
use crate::engine::reclaim::zap_worker;
use crate::engine::settings::Settings;
use crate::engine::wait::Schedule;
use crate::engine::watchdog;
use crate::engine::zero_fill::ZeroFill;
use crate::sys::now_ns;
use alloc::format;
use alloc::string::String;

/// Between two looks at the slower things.
const SLOW_NS: u64 = 100_000_000;

/// The owners, which the event loop passes to one another.
pub(crate) struct Engine {
    pub(crate) settings: Settings,
    pub(crate) memory: Memory,
    pub(crate) reclaim: Reclaim,
    pub(crate) readahead: Readahead,
    pub(crate) zero_fill: ZeroFill,
    pub(crate) adoption: Adoption,
    pub(crate) control: Control,
    pub(crate) fork: Fork,
    pub(crate) schedule: Schedule,
    pub(crate) program_end: ProgramEnd,
}

impl Engine {
    /// Serves the program for as long as it lives; ends with the reason when no
    /// server can be had in the beginning.
    pub(crate) fn run(mut self) -> String {
        if self.settings.start.inherit.is_none() {
            self.memory.backing.learn_addresses();
            self.memory.backing.net.connect(now_ns());
        }
        loop {
            self.turn();
            if !self.memory.backing.was_up
                && self.memory.backing.refused.len() == self.settings.servers.endpoints.len()
            {
                let reasons = self.memory.backing.refused.join("; ");
                return format!("no memory server can be used: {reasons}");
            }
            self.wait();
        }
    }

    /// Does everything that can be done now.
    pub(crate) fn turn(&mut self) {
        watchdog::turn();
        self.schedule.waited.for_event = false;
        self.memory.faults.set_served_one(false);
        if self.schedule.waited.uffd {
            self.memory.read_messages();
        }
        self.control.waiting.note(&mut self.memory);
        self.serve_faults();
        self.drive();
        if !alive::is_said() && self.memory.backing.was_up && self.memory.backing.net.is_settled() {
            alive::has_all();
        }
        self.follow_fork();
        self.serve_faults();
        let now = now_ns();
        if now >= self.memory.residency.sampled_ns() + SAMPLE_NS {
            self.sample(now);
        }
        retry::retry_due(&mut self.memory, &mut self.reclaim, now);
        read::place_rescued(&mut self.memory, &mut self.reclaim);
        self.maintain();
        self.reclaim.lending.search_code(&mut self.memory);
        if !self.memory.faults.is_empty() {
            // There may be memory for them now.
            self.serve_faults();
        }
        if now >= self.schedule.slow_ns + SLOW_NS {
            self.schedule.slow_ns = now;
            self.slowly(now);
        }
        self.control.waiting.note(&mut self.memory);
        self.control
            .go_on(&mut self.memory, &mut self.reclaim, &self.settings);
        if self.schedule.waited.for_event {
            // A thread that changes the address space has to run first.
            self.memory.mover.kernel().pause();
        }
    }

    /// Serves what faults there are, as far as that can be done now.
    fn serve_faults(&mut self) {
        let mut left = self.memory.faults.len();
        while left > 0 {
            left -= 1;
            let Some(mut fault) = self.memory.faults.pop() else {
                break;
            };
            let mut service = Service {
                m: &mut self.memory,
                reclaim: &mut self.reclaim,
                readahead: &mut self.readahead,
                zero_fill: &mut self.zero_fill,
                pace: &mut self.schedule.pace,
            };
            let Err(why) = service.serve(&mut fault) else {
                self.schedule.pace.keep(&mut self.memory, fault.tid);
                self.reclaim.pacing = self.schedule.pace.pacing();
                continue;
            };
            self.memory.faults.push(fault);
            if why == Again::Event {
                self.schedule.waited.for_event = true;
                // What stands in the way may be what waits to be read.
                self.memory.read_messages();
            }
        }
    }

    /// Moves bytes to and from servers, and takes in what they answered.
    pub(crate) fn drive(&mut self) {
        let mut done = core::mem::take(&mut self.memory.backing.done);
        let now = now_ns();
        if self.schedule.waited.blindly {
            self.memory.backing.net.drive(now, &mut done);
        } else {
            self.memory
                .backing
                .net
                .receive(&self.schedule.waited.readable, now, &mut done);
        }
        for completion in done.drain(..) {
            self.complete(completion);
        }
        self.memory.backing.done = done;
    }

    /// Goes on with a fork, and answers what threads of the program ask.
    fn follow_fork(&mut self) {
        if self.fork.is_done(&self.memory) {
            self.fork.go_on(&mut self.memory);
        }
        let is_cached = self.reclaim.cache.are_needed();
        if self.fork.prepare(&mut self.memory, is_cached) {
            let kept = self.kept();
            let unseen = self.reclaim.lending.may_be_advised_unseen();
            self.fork.hold(&mut self.memory, &kept, unseen);
        }
        self.answer_calls();
    }

    /// Answers what threads of the program ask, and lets them go on.
    fn answer_calls(&mut self) {
        if self.memory.doorbell.region().is_none() {
            return;
        }
        advice::answer(|| self.memory.follow_advice());
        mincore::answer(&self.memory);
        relinquish::answer(&mut self.memory, &mut self.reclaim);
        credentials::answer(|| self.follow_credentials());
        let backing = &mut self.memory.backing;
        zap_worker::answer_leave(&mut self.reclaim.zap_worker, || backing.leave(now_ns()));
        let waited = &mut self.schedule.waited;
        waited.for_event |= mem_file::answer(&mut self.memory);
        let holding = self.memory.fork_stage == Stage::Holding;
        let kernel = self.memory.mover.kernel();
        waited.for_event |= self.memory.doorbell.answer(kernel, holding);
    }

    /// Waits until there is something to do.
    ///
    /// While nothing is adopted that is only to look how much there is by the clock, some
    /// hundreds of times a second of a program that nearly fills its budget: those looks
    /// touch as little as can be.
    pub(crate) fn wait(&mut self) {
        while self.has_slept() && self.is_only_to_look() {
            watchdog::turn();
            self.sample(now_ns());
        }
    }

    /// Whether the clock alone has woken the engine, and the program needs nothing.
    fn is_only_to_look(&self) -> bool {
        let now = now_ns();
        self.memory.space.adopted().is_empty()
            && self.memory.backing.was_up
            && self.schedule.waited.readable == [self.schedule.timer.raw()]
            && self.memory.faults.is_empty()
            && !self.memory.is_over()
            && !self.memory.is_forking()
            && now < self.schedule.slow_ns + SLOW_NS
            && self
                .memory
                .backing
                .net
                .next_timer()
                .is_none_or(|at| now < at)
    }

    /// Waits once; whether it had to.
    fn has_slept(&mut self) -> bool {
        let now = now_ns();
        self.schedule.waited.uffd = true;
        self.schedule.waited.blindly = true;
        if self.schedule.waited.for_event || self.work_left() {
            return false;
        }
        // Faults that wait for memory are served when some was written, which a
        // socket tells, or when less is resident, which a look tells.
        // A fork is not to wait for long.
        let look = match self.memory.faults.is_empty() && !self.memory.is_forking() {
            true => {
                self.memory
                    .residency
                    .marks()
                    .quiet_us(self.memory.residency.sampled())
                    * 1000
            }
            false => SAMPLE_NS,
        };
        let look_ns = self.memory.residency.look_after(look);
        let until = self
            .memory
            .backing
            .net
            .next_timer()
            .unwrap_or(u64::MAX)
            .min(self.memory.backing.errors.due().unwrap_or(u64::MAX))
            .min(look_ns);
        if until <= now {
            return false;
        }
        if !self.memory.backing.was_up {
            // What it takes to begin takes so long that the kernel finds the program
            // another processor.
            self.schedule.pace.go_near(&mut self.memory);
            self.reclaim.pacing = self.schedule.pace.pacing();
        }
        self.schedule.timer.set(until, now);
        let heard = self
            .schedule
            .sleep(&self.memory, &self.fork, &self.program_end);
        if heard.child {
            self.fork.children.answer(&self.memory.report);
        }
        if heard.fork {
            self.fork.detector.hear();
        }
        if heard.end {
            self.program_end.look(self.reclaim.zap_worker.as_mut());
        }
        self.memory.backing.net.waited(now_ns().saturating_sub(now));
        true
    }

    /// Whether the next turn has something to do that nothing will announce.
    fn work_left(&self) -> bool {
        let plan = self.reclaim.plan(&self.memory);
        self.control.has_work(&self.memory)
            || plan.release > 0
            || plan.reclaim > 0
            || self.reclaim.is_to_evict(&self.memory, &plan)
    }
}
