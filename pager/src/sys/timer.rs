//! A timer that is waited for together with other file descriptors.
//!
//! A timeout of `poll` is set and cancelled with each call. On a virtual machine, each may
//! cause an exit to the hypervisor. This timer is not touched while it fires early enough.

use super::fd::Fd;
use rustix::fd::AsFd;
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

/// A timer on the monotonic clock.
#[derive(Debug)]
pub struct Timer {
    fd: Fd,
    /// When it fires, or 0 if it is not set.
    at: u64,
}

impl Timer {
    /// Creates a timer that is not set.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn new() -> Result<Timer, Errno> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Timer {
            fd: Fd::from(timerfd_create(TimerfdClockId::Monotonic, flags)?).moved_up(),
            at: 0,
        })
    }

    /// Sets the timer to fire at `until` or earlier.
    pub fn set(&mut self, until: u64, now: u64) {
        if self.at > now && self.at <= until {
            return;
        }
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let time = Itimerspec {
            it_interval: zero,
            it_value: Timespec {
                tv_sec: (until / 1_000_000_000).min(i64::MAX as u64 / 2) as i64,
                tv_nsec: (until % 1_000_000_000) as i64,
            },
        };
        // It fails only for invalid times.
        if timerfd_settime(self.fd.as_fd(), TimerfdTimerFlags::ABSTIME, &time).is_ok() {
            self.at = until;
        }
    }

    /// Notes that the timer has fired. It has to be set before the next wait. Nobody reads
    /// the number of expirations, since setting the timer clears it.
    pub fn fired(&mut self) {
        self.at = 0;
    }

    /// Returns the file descriptor's number.
    pub fn raw(&self) -> i32 {
        self.fd.raw()
    }
}
