//! The queue pair: where work and receives are posted.

use crate::abi::{CmId, QP_MIN_RNR_TIMER, QPT_RC, Qp, QpAttr, QpCap, QpInitAttr, RecvWr, SendWr};
use crate::error::Error;
use crate::library::Library;
use crate::limits::Limits;
use crate::manager::Endpoint;
use crate::memory::Domain;
use crate::queue::CompletionQueue;
use crate::work::MAX_PIECES;
use std::ffi::c_int;
use std::io;
use std::mem::size_of;
use std::ptr::{NonNull, null_mut};

/// 0.64 ms, as InfiniBand counts it.
const RETRY_AFTER: u8 = 12;

/// An id's queue pair.
pub(crate) struct Pair {
    raw: NonNull<Qp>,
    id: *mut CmId,
    library: &'static Library,
}

// SAFETY: the library's queue pairs are not bound to a thread.
unsafe impl Send for Pair {}

impl Pair {
    /// Makes the endpoint's queue pair, and says in `limits` what inline bytes
    /// it does.
    ///
    /// # Safety
    ///
    /// All that is given stays as long as the pair.
    pub(crate) unsafe fn new(
        endpoint: &Endpoint,
        domain: &Domain,
        sends: &CompletionQueue,
        receives: &CompletionQueue,
        pieces: u32,
        limits: &mut Limits,
    ) -> Result<Pair, Error> {
        let library = endpoint.library();
        let id = endpoint.raw();
        let pieces = pieces.min(MAX_PIECES as u32);
        loop {
            let mut wanted = QpInitAttr {
                qp_context: null_mut(),
                send_cq: sends.raw(),
                recv_cq: receives.raw(),
                srq: null_mut(),
                cap: QpCap {
                    max_send_wr: limits.sends,
                    max_recv_wr: limits.receives,
                    max_send_sge: pieces,
                    max_recv_sge: 1,
                    max_inline_data: limits.inline,
                },
                qp_type: QPT_RC,
                sq_sig_all: 0,
            };
            let create = library.manager.rdma_create_qp;
            // SAFETY: the id has a device and no queue pair yet; domain and
            // queues are of the same device.
            if unsafe { create(id, domain.raw(), &raw mut wanted) } == 0 {
                // SAFETY: the id is there and has a queue pair now.
                let raw = NonNull::new(unsafe { (*id).qp });
                let raw = raw.ok_or_else(|| Error::call("rdma_create_qp"))?;
                // A device may do more than was asked for; what is inline stays
                // as the caller wanted it.
                limits.inline = limits.inline.min(wanted.cap.max_inline_data);
                return Ok(Pair { raw, id, library });
            }
            let error = Error::call("rdma_create_qp");
            // A device does not say how many inline bytes are too many for it.
            if limits.inline == 0 {
                return Err(error);
            }
            limits.inline /= 2;
        }
    }

    /// Lets a message that came before its receive come again soon. librdmacm
    /// leaves it at the longest time there is, 655 ms. For a connected pair.
    pub(crate) fn hurry(&mut self) {
        let mut attr = QpAttr {
            before: [0; 128],
            min_rnr_timer: RETRY_AFTER,
            rest: [0; 15],
        };
        let modify = self.library.verbs.ibv_modify_qp;
        // SAFETY: the pair is there; of the struct one field is used. Where a
        // device does not do it, the connection works all the same.
        unsafe { modify(self.raw.as_ptr(), &raw mut attr, QP_MIN_RNR_TIMER) };
    }

    /// Posts a chain of works.
    ///
    /// # Safety
    ///
    /// The works are linked, the last to nothing, and point to pieces that are
    /// there. They are one after the other in memory.
    pub(crate) unsafe fn post_works(&mut self, first: *mut SendWr) -> Result<(), Error> {
        let mut bad = null_mut();
        // SAFETY: the pair and its device are there; the chain is good.
        let errno = unsafe {
            let post = (*self.raw.as_ref().context).ops.post_send;
            post(self.raw.as_ptr(), first, &raw mut bad)
        };
        posted(errno, first.addr(), bad.addr(), size_of::<SendWr>())
    }

    /// Posts a chain of receives.
    ///
    /// # Safety
    ///
    /// As for [`Pair::post_works`].
    pub(crate) unsafe fn post_receives(&mut self, first: *mut RecvWr) -> Result<(), Error> {
        let mut bad = null_mut();
        // SAFETY: the pair and its device are there; the chain is good.
        let errno = unsafe {
            let post = (*self.raw.as_ref().context).ops.post_recv;
            post(self.raw.as_ptr(), first, &raw mut bad)
        };
        posted(errno, first.addr(), bad.addr(), size_of::<RecvWr>())
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // SAFETY: the id is there, and its queue pair is destroyed once.
        unsafe { (self.library.manager.rdma_destroy_qp)(self.id) };
    }
}

/// What posting a chain came to, when `bad` is the first that was not taken.
fn posted(errno: c_int, first: usize, bad: usize, size: usize) -> Result<(), Error> {
    if errno == 0 {
        return Ok(());
    }
    // Some drivers give errno negated.
    let error = io::Error::from_raw_os_error(errno.abs());
    Err(Error::Post {
        posted: bad.saturating_sub(first) / size,
        error,
    })
}
