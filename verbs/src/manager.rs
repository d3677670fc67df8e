//! librdmacm's objects: an end of a connection, and the channel on which it is
//! told what happens.

use crate::abi::{CmEvent, CmId, Context, EventChannel, PS_TCP};
use crate::error::Error;
use crate::library::Library;
use std::ffi::c_int;
use std::io;
use std::os::fd::RawFd;
use std::ptr::{NonNull, null_mut};

/// A channel of events, which does not block.
pub(crate) struct Channel {
    raw: NonNull<EventChannel>,
    library: &'static Library,
}

// SAFETY: the library's channels are not bound to a thread.
unsafe impl Send for Channel {}

impl Channel {
    /// A new channel. Fails where RDMA cannot be used at all, and says why.
    pub(crate) fn open(library: &'static Library) -> Result<Channel, Error> {
        // SAFETY: no preconditions.
        let raw = unsafe { (library.manager.rdma_create_event_channel)() };
        let Some(raw) = NonNull::new(raw) else {
            let error = io::Error::last_os_error();
            return Err(if any_device(library) {
                Error::Manager(error)
            } else {
                Error::NoDevice
            });
        };
        let channel = Channel { raw, library };
        unblock(channel.fd())?;
        Ok(channel)
    }

    pub(crate) fn fd(&self) -> RawFd {
        // SAFETY: the channel is there until it is dropped.
        unsafe { self.raw.as_ref().fd }
    }

    /// The next event, if there is one.
    pub(crate) fn next(&self) -> Result<Option<Happened>, Error> {
        let mut raw = null_mut();
        loop {
            let get = self.library.manager.rdma_get_cm_event;
            // SAFETY: the channel is open. Every id whose events it reports
            // lives as long as its events may come: it is dropped before the
            // channel is, and takes its pending events with it.
            let got = unsafe { get(self.raw.as_ptr(), &raw mut raw) };
            if got == 0 {
                return Ok(NonNull::new(raw).map(|raw| Happened {
                    raw,
                    library: self.library,
                }));
            }
            let error = io::Error::last_os_error();
            match error.kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock => return Ok(None),
                _ => {
                    return Err(Error::Call {
                        call: "rdma_get_cm_event",
                        error,
                    });
                }
            }
        }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // SAFETY: every id on the channel is gone, and every event is
        // acknowledged: see `Endpoint`, and `Happened::drop`.
        unsafe { (self.library.manager.rdma_destroy_event_channel)(self.raw.as_ptr()) };
    }
}

/// An event, which is acknowledged when it is dropped. Its id cannot be
/// destroyed or moved to another channel before that.
pub(crate) struct Happened {
    raw: NonNull<CmEvent>,
    library: &'static Library,
}

impl Happened {
    fn get(&self) -> &CmEvent {
        // SAFETY: the event is there until it is acknowledged.
        unsafe { self.raw.as_ref() }
    }

    pub(crate) fn kind(&self) -> c_int {
        self.get().event
    }

    pub(crate) fn status(&self) -> c_int {
        self.get().status
    }

    /// The id that it happened to; for a request, a new one.
    pub(crate) fn id(&self) -> *mut CmId {
        self.get().id
    }

    /// The reads that the other end lets this one have under way, and how many
    /// it wants to have itself.
    pub(crate) fn reads(&self) -> (u8, u8) {
        let conn = &self.get().conn;
        (conn.initiator_depth, conn.responder_resources)
    }

    /// What the other end sent along with the event.
    pub(crate) fn private_data(&self) -> Vec<u8> {
        let conn = &self.get().conn;
        if conn.private_data.is_null() {
            return Vec::new();
        }
        let len = usize::from(conn.private_data_len);
        // SAFETY: the library says that so many bytes are there, inside the event.
        unsafe { std::slice::from_raw_parts(conn.private_data.cast::<u8>(), len) }.to_vec()
    }
}

impl Drop for Happened {
    fn drop(&mut self) {
        // SAFETY: every event is acknowledged once, here.
        unsafe { (self.library.manager.rdma_ack_cm_event)(self.raw.as_ptr()) };
    }
}

/// An id: one end of a connection, or a listening one.
struct Id {
    raw: NonNull<CmId>,
    library: &'static Library,
}

// SAFETY: the library's ids are not bound to a thread.
unsafe impl Send for Id {}

impl Drop for Id {
    fn drop(&mut self) {
        // SAFETY: the id has no queue pair any more (see `Connection`) and no
        // event that is not acknowledged, and it is destroyed once. One whose
        // request was not answered refuses it by this.
        unsafe { (self.library.manager.rdma_destroy_id)(self.raw.as_ptr()) };
    }
}

/// An id with an event channel of its own.
pub(crate) struct Endpoint {
    // The order matters: the id goes before its channel.
    id: Id,
    events: Channel,
}

impl Endpoint {
    pub(crate) fn new(library: &'static Library) -> Result<Endpoint, Error> {
        let events = Channel::open(library)?;
        let mut raw = null_mut();
        let create = library.manager.rdma_create_id;
        // SAFETY: the channel is open and stays so as long as the id.
        let created = unsafe { create(events.raw.as_ptr(), &raw mut raw, null_mut(), PS_TCP) };
        match NonNull::new(raw) {
            Some(raw) if created == 0 => Ok(Endpoint {
                id: Id { raw, library },
                events,
            }),
            _ => Err(Error::call("rdma_create_id")),
        }
    }

    /// Takes the new id of a request from the listener's channel to one of its own.
    ///
    /// # Safety
    ///
    /// The id is from a request whose event has been acknowledged, and is taken
    /// only once.
    pub(crate) unsafe fn take(
        library: &'static Library,
        raw: NonNull<CmId>,
    ) -> Result<Endpoint, Error> {
        let id = Id { raw, library };
        let events = Channel::open(library)?;
        let migrate = library.manager.rdma_migrate_id;
        // SAFETY: both are there, and no event of the id is unacknowledged.
        if unsafe { migrate(id.raw.as_ptr(), events.raw.as_ptr()) } != 0 {
            return Err(Error::call("rdma_migrate_id"));
        }
        Ok(Endpoint { id, events })
    }

    pub(crate) fn library(&self) -> &'static Library {
        self.id.library
    }

    pub(crate) fn events(&self) -> &Channel {
        &self.events
    }

    /// The id, for a call of the library.
    pub(crate) fn raw(&self) -> *mut CmId {
        self.id.raw.as_ptr()
    }

    /// The device, once it is known.
    pub(crate) fn context(&self) -> Option<NonNull<Context>> {
        // SAFETY: the id is there.
        NonNull::new(unsafe { self.id.raw.as_ref().verbs })
    }

    pub(crate) fn local(&self) -> Option<std::net::SocketAddr> {
        // SAFETY: the id is there; its addresses are plain bytes.
        crate::addr::from_c(unsafe { &self.id.raw.as_ref().src })
    }

    pub(crate) fn peer(&self) -> Option<std::net::SocketAddr> {
        // SAFETY: as above.
        crate::addr::from_c(unsafe { &self.id.raw.as_ref().dst })
    }
}

/// Whether the libraries find a device.
fn any_device(library: &'static Library) -> bool {
    let mut count = 0;
    // SAFETY: the count is written, the list belongs to the caller.
    unsafe {
        let list = (library.verbs.ibv_get_device_list)(&raw mut count);
        if list.is_null() {
            return false;
        }
        (library.verbs.ibv_free_device_list)(list);
    }
    count > 0
}

/// Makes reads of a descriptor return at once.
pub(crate) fn unblock(fd: RawFd) -> Result<(), Error> {
    // SAFETY: flags of a descriptor, no memory.
    let set = unsafe {
        let flags = libc::fcntl(fd, libc::F_GETFL);
        flags >= 0 && libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) == 0
    };
    if set {
        Ok(())
    } else {
        Err(Error::call("fcntl"))
    }
}
