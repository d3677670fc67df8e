//! Waits for many file descriptors at once. The kernel keeps their list, so that the cost
//! of a wait does not depend on their number.

use super::fd::Fd;
use alloc::vec::Vec;
use rustix::event::Timespec;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::fd::BorrowedFd;
use rustix::io::Errno;

/// A file descriptor to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest {
    /// Its number.
    pub fd: i32,
    /// Distinguishes files that have the same number one after the other.
    pub serial: u64,
    /// Whether to wait until it is writable, too.
    pub write: bool,
}

/// The list of file descriptors, and the answers.
#[derive(Debug)]
pub struct Waiter {
    epoll: Fd,
    known: Vec<Interest>,
}

impl Waiter {
    /// Creates an empty list.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn new() -> Result<Waiter, Errno> {
        Ok(Waiter {
            epoll: Fd::from(epoll::create(epoll::CreateFlags::CLOEXEC)?).moved_up(),
            known: Vec::new(),
        })
    }

    /// Waits for these file descriptors from now on. All of them are open.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn watch(&mut self, interests: &[Interest]) -> Result<(), Errno> {
        if self.known == interests {
            return Ok(());
        }
        for old in &self.known {
            if !interests.contains(old) {
                // A closed file is not in the kernel's list any more.
                let _ = epoll::delete(&self.epoll, borrow(old.fd));
            }
        }
        for new in interests {
            if !self.known.contains(new) {
                let write = if new.write {
                    EventFlags::OUT
                } else {
                    EventFlags::empty()
                };
                let data = EventData::new_u64(new.fd as u64);
                epoll::add(&self.epoll, borrow(new.fd), data, EventFlags::IN | write)?;
            }
        }
        self.known.clear();
        self.known.extend_from_slice(interests);
        Ok(())
    }

    /// Waits until one is ready. Puts those that are ready into `ready`.
    ///
    /// # Errors
    /// Those of the kernel, `EINTR` among them.
    pub fn wait(&mut self, ready: &mut Vec<i32>) -> Result<(), Errno> {
        self.ask(None, ready)
    }

    /// Puts those that are ready now into `ready`.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn look(&mut self, ready: &mut Vec<i32>) -> Result<(), Errno> {
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        self.ask(Some(&now), ready)
    }

    fn ask(&mut self, timeout: Option<&Timespec>, ready: &mut Vec<i32>) -> Result<(), Errno> {
        let mut events = [Event {
            flags: EventFlags::empty(),
            data: EventData::new_u64(0),
        }; 16];
        let n = epoll::wait(&self.epoll, &mut events[..], timeout)?;
        ready.clear();
        ready.extend(events[..n].iter().map(|e| e.data.u64() as i32));
        Ok(())
    }
}

/// Borrows a file descriptor that is open, as [`Waiter::watch`] requires.
fn borrow<'a>(fd: i32) -> BorrowedFd<'a> {
    // SAFETY: used for one call. The call fails if it is closed.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pipe::pipe;

    #[test]
    fn a_new_descriptor_with_an_old_number_is_waited_for() {
        let mut waiter = Waiter::new().unwrap();
        let (a, a_in) = pipe().unwrap();
        let (b, b_in) = pipe().unwrap();
        let (a, b): (Fd, Fd) = (a.into(), b.into());
        let interest = |fd: &Fd, serial| Interest {
            fd: fd.raw(),
            serial,
            write: false,
        };
        waiter.watch(&[interest(&a, 1), interest(&b, 2)]).unwrap();
        let mut ready = Vec::new();
        rustix::io::write(&b_in, b"x").unwrap();
        waiter.wait(&mut ready).unwrap();
        assert_eq!(ready, [b.raw()]);

        let number = a.raw();
        drop((a, a_in));
        // The kernel gives the lowest free number, unless another test takes it first.
        let (c, c_in) = pipe().unwrap();
        let c: Fd = c.into();
        if c.raw() == number {
            let mut byte = [0];
            rustix::io::read(&b, &mut byte).unwrap();
            waiter.watch(&[interest(&c, 3), interest(&b, 2)]).unwrap();
            rustix::io::write(&c_in, b"x").unwrap();
            waiter.wait(&mut ready).unwrap();
            assert_eq!(ready, [number]);
        }
    }
}
