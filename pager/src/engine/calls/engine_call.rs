//! A question that a thread of the program asks the engine: one thread at a time
//! writes down what it wants to know, touches a page of the doorbell, and sleeps until
//! the engine has answered.

use crate::engine::calls::doorbell::ring;
use crate::engine::threads::Question;
use crate::sys::thread;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

/// Between two looks, in microseconds.
const NAP_US: u64 = 20;

/// The right to ask, until this is dropped. Signals are to be blocked meanwhile: a
/// handler that asks, too, would wait for its own thread.
pub(crate) struct Turn<'a>(&'a Question);

impl Question {
    /// Waits until nobody else asks.
    pub(crate) fn turn(&self) -> Turn<'_> {
        while self.taken.swap(1, AcqRel) != 0 {
            thread::sleep_unless(&self.taken, 1);
        }
        Turn(self)
    }

    /// Whether a thread has the right to ask.
    pub(crate) fn is_taken(&self) -> bool {
        self.taken.load(Acquire) != 0
    }

    /// Whether somebody waits for an answer.
    pub(crate) fn is_asked(&self) -> bool {
        self.answered.load(Relaxed) != self.asked.load(Acquire)
    }

    /// The engine's part: answers by what `answer` does, if somebody asks.
    pub(crate) fn answer(&self, answer: impl FnOnce()) {
        let asked = self.asked.load(Acquire);
        if self.answered.load(Relaxed) != asked {
            answer();
            self.answered.store(asked, Release);
        }
    }
}

impl Turn<'_> {
    /// Asks what was written down; whether it was answered, which it is not where
    /// there is no engine.
    pub(crate) fn ask(&self) -> bool {
        let number = self.0.asked.fetch_add(1, AcqRel).wrapping_add(1);
        let answered = || self.0.answered.load(Acquire) == number;
        ring(self.0.bell, number, answered);
        answered()
    }

    /// The same of an engine that may only watch the program yet, and answers then, too.
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
