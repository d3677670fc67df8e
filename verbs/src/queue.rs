//! Completion queues, and the channel that tells of completions.

use crate::abi::{CompChannel, Context, Cq, Wc};
use crate::error::Error;
use crate::library::Library;
use crate::manager::unblock;
use std::ffi::c_int;
use std::io;
use std::os::fd::RawFd;
use std::ptr::{NonNull, null_mut};

/// A channel that tells of completions; it does not block.
pub(crate) struct CompletionChannel {
    raw: NonNull<CompChannel>,
    library: &'static Library,
}

// SAFETY: the library's channels are not bound to a thread.
unsafe impl Send for CompletionChannel {}

impl CompletionChannel {
    /// # Safety
    ///
    /// The context stays open as long as the channel is there.
    pub(crate) unsafe fn new(
        library: &'static Library,
        context: NonNull<Context>,
    ) -> Result<CompletionChannel, Error> {
        // SAFETY: the context is open.
        let raw = unsafe { (library.verbs.ibv_create_comp_channel)(context.as_ptr()) };
        let raw = NonNull::new(raw).ok_or_else(|| Error::call("ibv_create_comp_channel"))?;
        let channel = CompletionChannel { raw, library };
        unblock(channel.fd())?;
        Ok(channel)
    }

    pub(crate) fn fd(&self) -> RawFd {
        // SAFETY: the channel is there until it is dropped.
        unsafe { self.raw.as_ref().fd }
    }

    /// Takes all events that are there, and counts them at their queues.
    pub(crate) fn clear(&self, mut queues: [&mut CompletionQueue; 2]) -> Result<(), Error> {
        let (mut of, mut context) = (null_mut(), null_mut());
        let get = self.library.verbs.ibv_get_cq_event;
        loop {
            // SAFETY: the channel is there, and so are its queues.
            if unsafe { get(self.raw.as_ptr(), &raw mut of, &raw mut context) } != 0 {
                let error = io::Error::last_os_error();
                match error.kind() {
                    io::ErrorKind::Interrupted => continue,
                    io::ErrorKind::WouldBlock => return Ok(()),
                    _ => {
                        return Err(Error::Call {
                            call: "ibv_get_cq_event",
                            error,
                        });
                    }
                }
            }
            for queue in &mut queues {
                if queue.raw.as_ptr() == of {
                    queue.told();
                }
            }
        }
    }
}

impl Drop for CompletionChannel {
    fn drop(&mut self) {
        // SAFETY: its queues are gone, see `Connection`; destroyed once.
        unsafe { (self.library.verbs.ibv_destroy_comp_channel)(self.raw.as_ptr()) };
    }
}

/// A completion queue.
pub(crate) struct CompletionQueue {
    raw: NonNull<Cq>,
    library: &'static Library,
    /// Events taken and not yet acknowledged, which takes a lock: so not one by
    /// one.
    events: u32,
    /// Room for what is taken at once.
    taken: [Wc; BATCH],
}

// SAFETY: the library's queues are not bound to a thread.
unsafe impl Send for CompletionQueue {}

/// Events after which they are acknowledged.
const EVENTS: u32 = 1 << 16;

/// Completions taken at once.
const BATCH: usize = 32;

impl CompletionQueue {
    /// # Safety
    ///
    /// The context is the channel's, and both stay as long as the queue.
    pub(crate) unsafe fn new(
        channel: &CompletionChannel,
        context: NonNull<Context>,
        depth: u32,
    ) -> Result<CompletionQueue, Error> {
        let library = channel.library;
        let depth = c_int::try_from(depth).unwrap_or(c_int::MAX);
        let create = library.verbs.ibv_create_cq;
        // SAFETY: the context is open, the channel is one of its own.
        let raw = unsafe { create(context.as_ptr(), depth, null_mut(), channel.raw.as_ptr(), 0) };
        let raw = NonNull::new(raw).ok_or_else(|| Error::call("ibv_create_cq"))?;
        Ok(CompletionQueue {
            raw,
            library,
            events: 0,
            taken: [Wc::default(); BATCH],
        })
    }

    pub(crate) fn raw(&self) -> *mut Cq {
        self.raw.as_ptr()
    }

    /// Asks for an event when the next completion comes.
    pub(crate) fn arm(&mut self) -> Result<(), Error> {
        // SAFETY: the queue and its device are there.
        let errno = unsafe {
            let arm = (*self.raw.as_ref().context).ops.req_notify_cq;
            arm(self.raw.as_ptr(), 0)
        };
        match errno {
            0 => Ok(()),
            errno => Err(Error::Call {
                call: "ibv_req_notify_cq",
                error: io::Error::from_raw_os_error(errno),
            }),
        }
    }

    /// Takes all completions that are there.
    pub(crate) fn poll(&mut self, mut each: impl FnMut(&Wc)) -> Result<(), Error> {
        loop {
            // SAFETY: the queue and its device are there, and the array has
            // room for as many as are asked for.
            let count = unsafe {
                let poll = (*self.raw.as_ref().context).ops.poll_cq;
                poll(self.raw.as_ptr(), BATCH as c_int, self.taken.as_mut_ptr())
            };
            let Ok(count) = usize::try_from(count) else {
                return Err(Error::call("ibv_poll_cq"));
            };
            self.taken[..count].iter().for_each(&mut each);
            if count < BATCH {
                return Ok(());
            }
        }
    }

    /// An event of this queue was taken.
    fn told(&mut self) {
        self.events += 1;
        if self.events == EVENTS {
            self.acknowledge();
        }
    }

    fn acknowledge(&mut self) {
        // SAFETY: the queue is there, and so many events were taken.
        unsafe { (self.library.verbs.ibv_ack_cq_events)(self.raw.as_ptr(), self.events) };
        self.events = 0;
    }
}

impl Drop for CompletionQueue {
    fn drop(&mut self) {
        // The library waits for events that are not acknowledged.
        self.acknowledge();
        // SAFETY: no queue pair uses it any more, see `Connection`; destroyed
        // once.
        unsafe { (self.library.verbs.ibv_destroy_cq)(self.raw.as_ptr()) };
    }
}
