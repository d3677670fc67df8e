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
use crate::engine::read_in::{Readahead, late, read, retry};
use crate::engine::reclaim::Reclaim;
use crate::engine::reclaim::zap_worker;
use crate::engine::servers::repair;
use crate::engine::settings::Settings;
use crate::engine::wait::Schedule;
use crate::engine::watchdog;
use crate::engine::zero_fill::ZeroFill;
use crate::sys::{confined, now_ns, program};
use alloc::format;
use alloc::string::String;

/// Time between two runs of [`Engine::slowly`].
const SLOW_NS: u64 = 100_000_000;
/// Samples that take about as much time as one such run.
const SAMPLES_PER_SLOW: u64 = 10;

/// The owners. The event loop passes them to one another.
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
    /// Serves the program for as long as it lives. Returns early, with the reason, if no
    /// server can be used at the start.
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
        late::look(&mut self.memory, &mut self.reclaim, now);
        read::place_rescued(&mut self.memory, &mut self.reclaim);
        repair::go_on(&mut self.memory, now);
        self.maintain();
        self.reclaim.lending.search_code(&mut self.memory);
        if !self.memory.faults.is_empty() {
            // Memory for them may be available now.
            self.serve_faults();
        }
        if now >= self.slow_due_ns() {
            self.schedule.slow_ns = now;
            self.slowly(now);
        }
        self.control.waiting.note(&mut self.memory);
        self.control
            .go_on(&mut self.memory, &mut self.reclaim, &self.settings);
        if self.schedule.waited.for_event {
            // A thread that is changing the address space has to run first.
            self.memory.mover.kernel().pause();
        }
    }

    /// Serves each waiting fault that can be served now.
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
                // The event that blocks this fault may be waiting to be read.
                self.memory.read_messages();
            }
        }
    }

    /// Sends requests to servers and handles their answers.
    pub(crate) fn drive(&mut self) {
        let mut done = core::mem::take(&mut self.memory.backing.done);
        let now = now_ns();
        // A filter of system calls does not hold for an engine that is a process of its own.
        let may_connect = program::is_apart() || !alive::is_confined() && !confined::is_confined();
        self.memory.backing.net.allow_second(may_connect);
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

    /// Advances a fork that is under way, and answers calls from threads of the program.
    fn follow_fork(&mut self) {
        if self.fork.is_done(&self.memory) {
            self.fork.resume(&mut self.memory);
        }
        let is_cached = self.reclaim.cache.are_needed();
        if self.fork.prepare(&mut self.memory, is_cached) {
            let kept = self.kept();
            let unseen = self.reclaim.lending.may_be_advised_unseen();
            self.fork.quiesce(&mut self.memory, &kept, unseen);
        }
        self.answer_calls();
    }

    /// Answers calls from threads of the program, and lets these threads go on.
    fn answer_calls(&mut self) {
        if self.memory.doorbell.region().is_none() {
            return;
        }
        advice::answer(|| self.memory.follow_advice());
        mincore::answer(&self.memory);
        relinquish::answer(&mut self.memory, &mut self.reclaim);
        credentials::answer(|| self.follow_credentials());
        let (children, report) = (&mut self.fork.children, &self.memory.report);
        let backing = &mut self.memory.backing;
        zap_worker::answer_leave(&mut self.reclaim.zap_worker, || {
            // The program may know of a child's end before this loop has heard of it.
            children.answer(report, &backing.net);
            backing.leave(now_ns())
        });
        let waited = &mut self.schedule.waited;
        waited.for_event |= mem_file::answer(&mut self.memory);
        let is_quiescent = self.memory.fork_stage == Stage::Quiescent;
        let kernel = self.memory.mover.kernel();
        waited.for_event |= self.memory.doorbell.answer(kernel, is_quiescent);
    }

    /// Waits until there is something to do.
    ///
    /// While nothing is adopted, the engine only samples the resident memory, some hundreds
    /// of times a second when the program nearly fills its budget. The loop below keeps
    /// these samples cheap.
    pub(crate) fn wait(&mut self) {
        while self.has_slept() && self.is_only_to_look() {
            watchdog::turn();
            self.sample(now_ns());
        }
    }

    /// Tells whether only the timer has woken the engine, and nothing but a sample is due.
    fn is_only_to_look(&self) -> bool {
        let now = now_ns();
        self.memory.space.adopted().is_empty()
            && self.memory.backing.was_up
            && self.schedule.waited.readable == [self.schedule.timer.raw()]
            && self.memory.faults.is_empty()
            && !self.memory.is_over()
            && !self.memory.is_forking()
            && now < self.slow_due_ns()
            && self
                .memory
                .backing
                .net
                .next_timer()
                .is_none_or(|at| now < at)
    }

    /// When [`Engine::slowly`] is due. It takes more than a sample, so an engine of many does it
    /// more rarely.
    fn slow_due_ns(&self) -> u64 {
        let pause = SLOW_NS.max(self.memory.residency.turn_ns() * SAMPLES_PER_SLOW);
        self.schedule.slow_ns + pause
    }

    /// Waits once. Returns false if there was no need to wait.
    fn has_slept(&mut self) -> bool {
        let now = now_ns();
        self.schedule.waited.uffd = true;
        self.schedule.waited.blindly = true;
        if self.schedule.waited.for_event || self.work_left() {
            return false;
        }
        // A fault that waits for memory is served after a write completes, which a socket
        // announces, or after resident memory falls, which only a sample shows. A fork must
        // not wait long.
        let look = match self.memory.faults.is_empty() && !self.memory.is_forking() {
            true => {
                let residency = &self.memory.residency;
                let quiet_ns = residency.marks().quiet_us(residency.sampled()) * 1000;
                quiet_ns.max(residency.turn_ns())
            }
            false => SAMPLE_NS,
        };
        let look_ns = self.memory.residency.look_after(look);
        let due = self.memory.backing.due(self.memory.is_forking());
        let until = self
            .memory
            .backing
            .net
            .next_timer()
            .unwrap_or(u64::MAX)
            .min(due.unwrap_or(u64::MAX))
            .min(look_ns);
        if until <= now {
            return false;
        }
        if !self.memory.backing.was_up {
            // Setting up takes so long that the kernel meanwhile moves the program to
            // another CPU.
            self.schedule.pace.go_near(&mut self.memory);
            self.reclaim.pacing = self.schedule.pace.pacing();
        }
        self.schedule.timer.set(until, now);
        let heard = self
            .schedule
            .sleep(&self.memory, &self.fork, &self.program_end);
        if heard.child {
            let (report, net) = (&self.memory.report, &self.memory.backing.net);
            self.fork.children.answer(report, net);
        }
        if heard.fork {
            self.fork.detector.hear();
        }
        if heard.end {
            self.look_for_end();
        }
        self.memory.backing.net.waited(now_ns().saturating_sub(now));
        true
    }

    /// Tells whether the next turn has work that no file descriptor or timer will announce.
    fn work_left(&self) -> bool {
        let plan = self.reclaim.plan(&self.memory);
        self.control.has_work(&self.memory)
            || plan.release > 0
            || plan.reclaim > 0
            || self.reclaim.is_to_evict(&self.memory, &plan)
    }
}
