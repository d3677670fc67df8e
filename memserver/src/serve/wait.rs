//! How a connection's thread waits for its client: it sleeps in the kernel, or busy-waits for
//! a moment if the client says that it busy-waits too.
//!
//! Waking a sleeping CPU costs more than all the rest of a small read. Two threads that
//! busy-wait for each other on two CPUs avoid that. On one CPU they would only keep each other
//! from running. So a thread that busy-waits leaves its client's CPU, and at most half of the
//! CPUs busy-wait.

use crate::serve::socket::{Piece, Socket};
use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long to busy-wait without a request.
const PATIENCE: Duration = Duration::from_micros(100);
/// The same while requests come one after the other. Even the longer pauses between them are
/// over by then. To sleep in them would cost the client more than all its own work for a
/// page.
const LONG_PATIENCE: Duration = Duration::from_millis(2);
/// Requests come one after the other if the average pause between them is at most this.
const SOON: Duration = Duration::from_micros(500);
/// A longer pause counts as this, or a single long one would change the average too much.
const LONGEST: Duration = Duration::from_millis(4);
/// The weight of the last pause in the average is one divided by this.
const WEIGHT: u32 = 8;

/// Threads that busy-wait.
static AWAKE: AtomicUsize = AtomicUsize::new(0);

/// A thread's permission to busy-wait.
struct Awake;

impl Awake {
    /// Returns `None` if enough threads busy-wait.
    fn begin() -> Option<Awake> {
        // Asked once, before any thread leaves a CPU.
        static MOST: OnceLock<usize> = OnceLock::new();
        let processors = || std::thread::available_parallelism().map_or(1, usize::from);
        let most = *MOST.get_or_init(|| processors() / 2);
        let begun = AWAKE.fetch_add(1, Ordering::Relaxed) < most;
        // Dropped at once if it is not given out.
        let awake = Awake;
        begun.then_some(awake)
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        AWAKE.fetch_sub(1, Ordering::Relaxed);
    }
}

/// After this many received bytes, a thread lets others run that busy-wait: memory that is
/// used for the first time may take many microseconds a page.
const AT_ONCE: usize = 16 << 10;

/// Lets threads run that busy-wait: the kernel does not know that a request has come for one.
/// Returns how many bytes to receive until the next time.
pub(crate) fn give_way() -> usize {
    if AWAKE.load(Ordering::Relaxed) == 0 {
        return usize::MAX;
    }
    std::thread::yield_now();
    AT_ONCE
}

/// The pauses between requests.
#[derive(Debug, Default)]
struct Pauses {
    last: Option<Instant>,
    average: Duration,
}

impl Pauses {
    /// How long to busy-wait for the next request, if the last one was served at `now`.
    fn patience(&mut self, now: Instant) -> Duration {
        let pause = self
            .last
            .replace(now)
            .map_or(LONGEST, |last| now.duration_since(last).min(LONGEST));
        self.average = self.average - self.average / WEIGHT + pause / WEIGHT;
        if self.average < SOON {
            LONG_PATIENCE
        } else {
            PATIENCE
        }
    }
}

/// Waits for one client.
#[derive(Default)]
pub(crate) struct Wait {
    pauses: Pauses,
    /// The CPUs that this thread may run on, once it has left one of them.
    home: Option<CpuSet>,
}

impl Wait {
    /// Receives as soon as there is something. With `prompt` that is expected to be soon.
    ///
    /// # Safety
    /// As [`Socket::receive`].
    pub(crate) unsafe fn receive(
        &mut self,
        socket: &Socket,
        pieces: &mut [Piece],
        prompt: bool,
    ) -> io::Result<usize> {
        if !prompt {
            self.go_home();
        } else if let Some(_awake) = Awake::begin() {
            self.step_aside(socket);
            let start = Instant::now();
            let patience = self.pauses.patience(start);
            while start.elapsed() < patience {
                // SAFETY: by the caller.
                if let Some(n) = unsafe { socket.receive(pieces, false)? } {
                    return Ok(n);
                }
                // Another thread may need this CPU.
                std::thread::yield_now();
            }
        }
        // SAFETY: by the caller.
        Ok(unsafe { socket.receive(pieces, true)? }.unwrap_or(0))
    }

    /// Leaves the CPU of a client on the same machine.
    fn step_aside(&mut self, socket: &Socket) {
        let client = socket.client_processor();
        let Some(client) = client.filter(|cpu| *cpu < CpuSet::MAX_CPU) else {
            return;
        };
        if sched_getcpu() != client {
            return;
        }
        let Some(home) = self.home.or_else(|| sched_getaffinity(None).ok()) else {
            return;
        };
        let mut others = home;
        others.unset(client);
        // An empty set is refused.
        if sched_setaffinity(None, &others).is_ok() {
            self.home = Some(home);
        }
    }

    fn go_home(&mut self) {
        if let Some(home) = self.home.take() {
            // These were its own before.
            let _ = sched_setaffinity(None, &home);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How patient one is after so many requests with `pause_us` between them.
    fn after(pauses: &mut Pauses, now: &mut Instant, n: u32, pause_us: u64) -> Duration {
        (0..n).fold(Duration::ZERO, |_, _| {
            *now += Duration::from_micros(pause_us);
            pauses.patience(*now)
        })
    }

    #[test]
    fn one_is_patient_while_requests_come_one_after_the_other() {
        let (mut pauses, mut now) = (Pauses::default(), Instant::now());
        assert_eq!(after(&mut pauses, &mut now, 1, 0), PATIENCE);
        assert_eq!(after(&mut pauses, &mut now, 30, 50), LONG_PATIENCE);
        // A pause among them changes nothing, many do.
        assert_eq!(after(&mut pauses, &mut now, 1, 1500), LONG_PATIENCE);
        assert_eq!(after(&mut pauses, &mut now, 30, 1500), PATIENCE);
        assert_eq!(after(&mut pauses, &mut now, 30, 50), LONG_PATIENCE);
        // A long one ends it, and does not count for ever.
        assert_eq!(after(&mut pauses, &mut now, 1, 60_000_000), PATIENCE);
        assert_eq!(after(&mut pauses, &mut now, 20, 50), LONG_PATIENCE);
    }
}
