//! A timer to wait for beside other descriptors.
//!
//! A timeout of `poll` is set and taken back with each call, and on a virtual
//! machine each of both may leave to the hypervisor. This one is left alone as
//! long as it is set to something soon enough.

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
    /// When it fires; 0 when it does not.
    at: u64,
}

impl Timer {
    /// A timer that is not set.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new() -> Result<Timer, Errno> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Timer {
            fd: Fd::from(timerfd_create(TimerfdClockId::Monotonic, flags)?).moved_up(),
            at: 0,
        })
    }

    /// Fires at `until`, or before.
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
        // It fails for times that are none.
        if timerfd_settime(self.fd.as_fd(), TimerfdTimerFlags::ABSTIME, &time).is_ok() {
            self.at = until;
        }
    }

    /// It has fired. It is to be set before it is waited for again; nobody reads how
    /// often it did, as to set it forgets that.
    pub fn fired(&mut self) {
        self.at = 0;
    }

    /// The descriptor's number.
    pub fn raw(&self) -> i32 {
        self.fd.raw()
    }
}
