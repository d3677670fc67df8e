//! Waiting for many descriptors at once: the kernel keeps the list of them, so
//! that a wait costs the same however many there are.

use super::fd::Fd;
use alloc::vec::Vec;
use rustix::event::Timespec;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::fd::BorrowedFd;
use rustix::io::Errno;

/// Something to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest {
    /// The descriptor's number.
    pub fd: i32,
    /// Tells descriptors apart that have the same number one after the other.
    pub serial: u64,
    /// Whether also until it can be written.
    pub write: bool,
}

/// The list of descriptors, and the answers.
#[derive(Debug)]
pub struct Waiter {
    epoll: Fd,
    known: Vec<Interest>,
}

impl Waiter {
    /// Waits for nothing yet.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new() -> Result<Waiter, Errno> {
        Ok(Waiter {
            epoll: Fd::from(epoll::create(epoll::CreateFlags::CLOEXEC)?).moved_up(),
            known: Vec::new(),
        })
    }

    /// From now on waits for these, all of which are open.
    ///
    /// # Errors
    /// The kernel's.
    pub fn watch(&mut self, interests: &[Interest]) -> Result<(), Errno> {
        if self.known == interests {
            return Ok(());
        }
        for old in &self.known {
            if !interests.contains(old) {
                // What was closed is off the list by itself.
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

    /// Waits until one of them has something to say; those that have, into
    /// `ready`.
    ///
    /// # Errors
    /// The kernel's; `EINTR` among them.
    pub fn wait(&mut self, ready: &mut Vec<i32>) -> Result<(), Errno> {
        self.ask(None, ready)
    }

    /// Those that have something to say now, into `ready`.
    ///
    /// # Errors
    /// The kernel's.
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

/// A descriptor that is open, as [`Waiter::watch`] asks for.
fn borrow<'a>(fd: i32) -> BorrowedFd<'a> {
    // SAFETY: it is used for one call, by which it is open; one that was closed
    // is an error of that call.
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
        // The kernel gives the lowest number that is free, unless another test
        // takes it first.
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
