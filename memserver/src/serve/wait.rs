//! How a connection's thread waits for its client: asleep in the kernel, or
//! awake for a moment where the client says that it is awake as well.
//!
//! Two threads that wait for each other awake, on two processors, are spared
//! the waking of a processor that sleeps, which costs more than everything else
//! of a small read. On one processor they would only keep each other from
//! running: so a thread that waits awake goes away from its client's processor,
//! and no more of them do so than half the machine's processors.

use crate::serve::socket::{Piece, Socket};
use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long to stay awake without a request.
const PATIENCE: Duration = Duration::from_micros(100);
/// How long where requests come one after the other: even the longer pauses between them
/// are over by then, and one who sleeps through them costs the client more than all that
/// it does for a page itself.
const LONG_PATIENCE: Duration = Duration::from_millis(2);
/// Requests come one after the other where so much passes between them on the average.
const SOON: Duration = Duration::from_micros(500);
/// A pause counts as so much at the most, or else one long one would count for too many.
const LONGEST: Duration = Duration::from_millis(4);
/// The last one is one in so many of the average.
const WEIGHT: u32 = 8;

/// Threads that wait awake.
static AWAKE: AtomicUsize = AtomicUsize::new(0);

/// A thread's right to wait awake.
struct Awake;

impl Awake {
    /// None when enough threads are awake.
    fn begin() -> Option<Awake> {
        // Asked once, and before any thread keeps away from a processor.
        static MOST: OnceLock<usize> = OnceLock::new();
        let processors = || std::thread::available_parallelism().map_or(1, usize::from);
        let most = *MOST.get_or_init(|| processors() / 2);
        let begun = AWAKE.fetch_add(1, Ordering::Relaxed) < most;
        // Dropped at once when it is not given out.
        let awake = Awake;
        begun.then_some(awake)
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        AWAKE.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes of a payload that are received between two looks whether a thread that
/// waits awake wants to run: memory that is used for the first time may take
/// many microseconds a page.
const AT_ONCE: usize = 16 << 10;

/// Lets threads run that wait awake: the kernel does not know that a request has
/// come for one. Returns how many bytes to receive until the next time.
pub(crate) fn give_way() -> usize {
    if AWAKE.load(Ordering::Relaxed) == 0 {
        return usize::MAX;
    }
    std::thread::yield_now();
    AT_ONCE
}

/// What passes between requests.
#[derive(Debug, Default)]
struct Pauses {
    last: Option<Instant>,
    average: Duration,
}

impl Pauses {
    /// How long to stay awake for the next request, where the one before has been served
    /// by `now`.
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
    /// The processors that this thread may run on, once it keeps away from one
    /// of them.
    home: Option<CpuSet>,
}

impl Wait {
    /// Receives as soon as there is something; with `prompt` it is expected
    /// soon.
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
                // Somebody may need this processor.
                std::thread::yield_now();
            }
        }
        // SAFETY: by the caller.
        Ok(unsafe { socket.receive(pieces, true)? }.unwrap_or(0))
    }

    /// Leaves the processor of a client on the same machine to it.
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
