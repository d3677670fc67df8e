//! Memory that a device may use, and who may use it.

use crate::abi::{self, Context, Mr, Opaque, Sge};
use crate::device::Devices;
use crate::error::Error;
use crate::library::Library;
use std::ptr::NonNull;
use std::sync::Arc;
use std::{fmt, io};

/// What may be done with registered memory, beside reading it locally.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// Receives and reads of this end may write it.
    pub local_write: bool,
    /// The other end may read it.
    pub remote_read: bool,
    /// The other end may write it; `local_write` comes with it.
    pub remote_write: bool,
}

impl Access {
    fn to_c(self) -> i32 {
        let mut flags = 0;
        if self.local_write || self.remote_write {
            flags |= abi::ACCESS_LOCAL_WRITE;
        }
        if self.remote_read {
            flags |= abi::ACCESS_REMOTE_READ;
        }
        if self.remote_write {
            flags |= abi::ACCESS_REMOTE_WRITE;
        }
        flags
    }
}

/// A connection's protection domain: what is registered in it can be used by
/// that connection only.
pub struct Domain {
    raw: NonNull<Opaque>,
    library: &'static Library,
    /// Goes last: the domain is the device's.
    _devices: Devices,
}

// SAFETY: the library locks what registering and giving up share.
unsafe impl Send for Domain {}
// SAFETY: as above.
unsafe impl Sync for Domain {}

impl Domain {
    /// # Safety
    ///
    /// The context is that of an id that is there.
    pub(crate) unsafe fn new(
        library: &'static Library,
        context: NonNull<Context>,
    ) -> Result<Domain, Error> {
        let devices = Devices::hold(library)?;
        // SAFETY: the context is open, and `devices` keeps it so.
        match NonNull::new(unsafe { (library.verbs.ibv_alloc_pd)(context.as_ptr()) }) {
            Some(raw) => Ok(Domain {
                raw,
                library,
                _devices: devices,
            }),
            None => Err(Error::call("ibv_alloc_pd")),
        }
    }

    pub(crate) fn raw(&self) -> *mut Opaque {
        self.raw.as_ptr()
    }

    /// Registers memory, which the kernel pins.
    ///
    /// # Errors
    ///
    /// [`Error::Pin`], which has the remedy when the process may not lock so
    /// much memory.
    ///
    /// # Safety
    ///
    /// The memory stays mapped and belongs to no one else as long as the region
    /// is there, and as long as one of its [`Piece`]s is used to post work. The
    /// device reads it, and writes it as far as `access` lets it, at any time
    /// while the region is there: references to it are not to be held over a
    /// time when that may happen.
    pub unsafe fn register(
        self: &Arc<Self>,
        mem: *mut u8,
        len: usize,
        access: Access,
    ) -> Result<Region, Error> {
        let register = self.library.verbs.ibv_reg_mr;
        // SAFETY: the domain is there; the memory is what the caller says.
        let raw = unsafe { register(self.raw.as_ptr(), mem.cast(), len, access.to_c()) };
        let Some(raw) = NonNull::new(raw) else {
            let error = io::Error::last_os_error();
            return Err(Error::Pin {
                len,
                limit: lock_limit(),
                error,
            });
        };
        Ok(Region {
            raw,
            addr: mem as u64,
            len,
            domain: Arc::clone(self),
        })
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        // SAFETY: whatever is in the domain keeps it, so nothing is.
        unsafe { (self.library.verbs.ibv_dealloc_pd)(self.raw.as_ptr()) };
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Domain").finish_non_exhaustive()
    }
}

/// Registered memory. Dropped, its keys are worth nothing any more, and the
/// memory is not pinned.
pub struct Region {
    raw: NonNull<Mr>,
    addr: u64,
    len: usize,
    domain: Arc<Domain>,
}

// SAFETY: the library locks what giving up shares; nothing else is written.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// The key for work of this end.
    #[must_use]
    pub fn local_key(&self) -> u32 {
        // SAFETY: the region is registered until it is dropped.
        unsafe { self.raw.as_ref().lkey }
    }

    /// The key for reads and writes of the other end.
    #[must_use]
    pub fn remote_key(&self) -> u32 {
        // SAFETY: as above.
        unsafe { self.raw.as_ref().rkey }
    }

    /// Where the memory begins, as the other end has to say it.
    #[must_use]
    pub fn addr(&self) -> u64 {
        self.addr
    }

    /// How many bytes are registered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is registered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A part of the region, for work of this end.
    ///
    /// # Errors
    ///
    /// [`Error::Bounds`] if it is not inside the region, or has 4 GiB or more.
    pub fn piece(&self, offset: usize, len: usize) -> Result<Piece, Error> {
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.len);
        match u32::try_from(len) {
            Ok(length) if inside => Ok(Piece(Sge {
                addr: self.addr + offset as u64,
                length,
                lkey: self.local_key(),
            })),
            _ => Err(Error::Bounds {
                offset,
                len,
                size: self.len,
            }),
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: registered once, given up once.
        unsafe { (self.domain.library.verbs.ibv_dereg_mr)(self.raw.as_ptr()) };
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Region")
            .field("addr", &self.addr)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

/// A part of a [`Region`]. It does not keep the region: work with a piece whose
/// region is gone completes with an error.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub struct Piece(pub(crate) Sge);

impl Piece {
    /// How many bytes it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.length as usize
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.length == 0
    }
}

/// How many bytes this process may lock, if there is a limit.
fn lock_limit() -> Option<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: the struct is written.
    unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) };
    (limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}
