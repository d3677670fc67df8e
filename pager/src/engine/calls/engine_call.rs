//! An engine call: a thread of the program asks the engine for something. One thread at a
//! time writes its request down, touches a page of the doorbell, and sleeps until the
//! engine has answered.

use crate::engine::calls::doorbell::ring;
use crate::engine::threads::Question;
use crate::sys::thread;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

/// Pause between two attempts, in microseconds.
const NAP_US: u64 = 20;

/// The right to call, until this is dropped. Signals must be blocked meanwhile: a handler
/// that calls the engine, too, would wait for its own thread.
pub(crate) struct Turn<'a>(&'a Question);

impl Question {
    /// Waits until no other thread is calling.
    pub(crate) fn turn(&self) -> Turn<'_> {
        while self.taken.swap(1, AcqRel) != 0 {
            thread::sleep_unless(&self.taken, 1);
        }
        Turn(self)
    }

    /// Tells whether a thread has the right to call.
    pub(crate) fn is_taken(&self) -> bool {
        self.taken.load(Acquire) != 0
    }

    /// Tells whether a thread waits for an answer.
    pub(crate) fn is_asked(&self) -> bool {
        self.answered.load(Relaxed) != self.asked.load(Acquire)
    }

    /// Answers, in the engine, by calling `answer` if a thread waits.
    pub(crate) fn answer(&self, answer: impl FnOnce()) {
        let asked = self.asked.load(Acquire);
        if self.answered.load(Relaxed) != asked {
            answer();
            self.answered.store(asked, Release);
        }
    }
}

impl Turn<'_> {
    /// Calls the engine. Returns whether it answered. Without an engine it does not.
    pub(crate) fn ask(&self) -> bool {
        let number = self.0.asked.fetch_add(1, AcqRel).wrapping_add(1);
        let answered = || self.0.answered.load(Acquire) == number;
        ring(self.0.bell, number, answered);
        answered()
    }

    /// Calls an engine that may not page yet, but only watch the program. Returns whether
    /// it answered.
    pub(crate) fn ask_early(&self) -> bool {
        let number = self.0.asked.fetch_add(1, AcqRel).wrapping_add(1);
        let answered = || self.0.answered.load(Acquire) == number;
        loop {
            ring(self.0.bell, number, answered);
            if answered() || !crate::engine::alive::poke() {
                return answered();
            }
            thread::rest_us(NAP_US);
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.taken.store(0, Release);
        thread::wake_sleeper(&self.0.taken);
    }
}
