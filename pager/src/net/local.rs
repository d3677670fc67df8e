//! The local tier in the place of a server: requests to it wait in order, and are done some
//! pages at a time.
//!
//! Compressing a page takes microseconds of the engine's thread, in which a thread of the
//! program may wait for another page. So a turn of the event loop does few pages, reads
//! before writes.

use super::request::Request;
use super::{Completion, Lane, RequestError, server};
use crate::ServerId;
use crate::sys::fd::Fd;
use crate::sys::mem::Region;
use crate::sys::space::Space;
use crate::tier::{ReadError, SLAB_PAGES, Tier};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use rustix::fd::BorrowedFd;
use rustix::io::Errno;
use tmem_policy::placement::Speed;
use tmem_wire::{Op, PAGE_SIZE, PageBytes, Status, decode_slab_list};

/// Pages that one turn reads, and writes.
const READS: usize = 16;
const WRITES: usize = 8;

/// What the engine's placement is told of its speed: it takes less at a time than a server,
/// and pages leave it for servers that have room.
const PAGE_NS: u64 = 400_000;

/// The tier, and what is asked of it.
#[derive(Debug)]
pub struct LocalTier {
    tier: Tier,
    is_up: bool,
    /// A fork copies the memory: nothing changes.
    is_still: bool,
    reads: VecDeque<Request>,
    rest: VecDeque<Request>,
    /// Pages of the first request of `reads`, and of `rest`, that are done.
    done: [usize; 2],
    /// Bytes that requests of each lane under way move.
    bytes: [usize; 2],
}

impl LocalTier {
    /// A tier with up to `limit` bytes of memory in `space`, and more in files in `folder` if
    /// there is one.
    ///
    /// # Errors
    /// Those of the kernel, when there is no memory.
    pub fn new(
        space: &'static Space,
        limit: usize,
        folder: Option<Fd>,
    ) -> Result<LocalTier, Errno> {
        Ok(LocalTier::of(Tier::new(space, limit, folder)?, false))
    }

    fn of(tier: Tier, is_up: bool) -> LocalTier {
        LocalTier {
            tier,
            is_up,
            is_still: false,
            reads: VecDeque::new(),
            rest: VecDeque::new(),
            done: [0; 2],
            bytes: [0; 2],
        }
    }

    /// Returns the tier of a forked child, from its copy of the parent's.
    ///
    /// # Safety
    /// Nobody in this process uses the parent's any more.
    ///
    /// # Errors
    /// When a file is missing, or there is no memory.
    pub(super) unsafe fn inherited(
        &self,
        space: &'static Space,
        descriptors: Vec<Fd>,
    ) -> Result<LocalTier, Errno> {
        // SAFETY: by the caller.
        let tier = unsafe { self.tier.inherited(space, descriptors)? };
        Ok(LocalTier::of(tier, self.is_up))
    }

    pub(super) fn is_up(&self) -> bool {
        self.is_up
    }

    /// Can be used from now on.
    pub(super) fn begin(&mut self, id: ServerId) -> Option<Completion> {
        let was_up = core::mem::replace(&mut self.is_up, true);
        let free_pages = self.tier.free_pages();
        (!was_up).then_some(Completion::Up {
            server: id,
            slab_pages: SLAB_PAGES,
            capacity_pages: free_pages,
            free_pages,
        })
    }

    /// Changes nothing while a fork copies the memory.
    pub(super) fn keep_still(&mut self, is: bool) {
        self.is_still = is;
        if is {
            self.tier.share();
        }
    }

    /// Returns the descriptors that a forked child needs.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.tier.descriptors()
    }

    pub(super) fn regions(&self) -> impl Iterator<Item = Region> {
        self.tier.regions()
    }

    /// Returns the tier itself.
    pub(super) fn tier_mut(&mut self) -> &mut Tier {
        &mut self.tier
    }

    /// Returns the bytes of memory in use.
    pub(super) fn memory(&self) -> usize {
        self.tier.memory()
    }

    pub(super) fn push(&mut self, request: Request) {
        self.bytes[request.lane as usize] += request.page_bytes();
        match request.op {
            Op::Read => self.reads.push_back(request),
            _ => self.rest.push_back(request),
        }
    }

    /// Returns how many bytes requests of a lane under way move.
    pub(super) fn bytes(&self, lane: Lane) -> usize {
        self.bytes[lane as usize]
    }

    /// Returns how many requests of a lane are under way.
    pub(super) fn requests(&self, lane: Lane) -> usize {
        let of_lane = |r: &&Request| r.lane == lane;
        let reads = self.reads.iter().filter(of_lane);
        let rest = self.rest.iter().filter(|r| r.op != Op::Discard);
        reads.count() + rest.filter(of_lane).count()
    }

    /// Tells whether there is something to do now.
    pub(super) fn has_work(&self) -> bool {
        !self.reads.is_empty() || !self.rest.is_empty() && !self.is_still
    }

    pub(super) fn speed(&self) -> Speed {
        Speed {
            wait_ns: None,
            page_ns: Some(PAGE_NS),
        }
    }

    /// Does some of what is asked; appends what came of it to `out`.
    pub(super) fn work(&mut self, id: ServerId, out: &mut Vec<Completion>) {
        let mut left = READS;
        while left > 0
            && let Some(request) = self.reads.front()
        {
            let done = &mut self.done[0];
            let result = read(&mut self.tier, request, done, &mut left);
            let is_done = *done >= request.count as usize;
            if result.is_ok() && !is_done {
                break;
            }
            let token = request.token;
            out.push(Completion::Read { token, result });
            self.ended(0);
        }
        let mut left = WRITES;
        while left > 0
            && !self.is_still
            && let Some(request) = self.rest.front()
        {
            if request.op != Op::Write {
                out.extend(change(&mut self.tier, id, request));
                self.ended(1);
                continue;
            }
            let done = &mut self.done[1];
            let result = write(&mut self.tier, request, done, &mut left);
            let is_done = *done >= request.count as usize;
            if result.is_ok() && !is_done {
                break;
            }
            let token = request.token;
            out.extend(match result {
                Ok(()) => Some(Completion::Written { token, server: id }),
                Err(error) => server::failure(id, request, error),
            });
            self.ended(1);
        }
    }

    /// The first request of a queue has ended.
    fn ended(&mut self, queue: usize) {
        self.done[queue] = 0;
        let queue = match queue {
            0 => &mut self.reads,
            _ => &mut self.rest,
        };
        if let Some(request) = queue.pop_front() {
            self.bytes[request.lane as usize] -= request.page_bytes();
        }
    }
}

/// Reads pages of a request that are not done yet, at most `left`.
fn read(
    tier: &mut Tier,
    request: &Request,
    done: &mut usize,
    left: &mut usize,
) -> Result<(), RequestError> {
    while *done < request.count as usize && *left > 0 {
        let at = request.payload.page(*done).ok_or(SPOILT)?;
        // SAFETY: whoever asks for a read has nobody else use the frames until it has ended.
        let to = unsafe { &mut *(at as *mut PageBytes) };
        let page = request.page + *done as u32;
        tier.read(request.slab, page, to)
            .map_err(|error| match error {
                ReadError::Absent | ReadError::Spoilt => SPOILT,
                ReadError::File(_) => RequestError::Status(Status::Internal),
            })?;
        *done += 1;
        *left -= 1;
    }
    Ok(())
}

/// Asking again does not help.
const SPOILT: RequestError = RequestError::Status(Status::BadRequest);

/// Writes pages of a request that are not done yet, at most `left`.
fn write(
    tier: &mut Tier,
    request: &Request,
    done: &mut usize,
    left: &mut usize,
) -> Result<(), RequestError> {
    while *done < request.count as usize && *left > 0 {
        let at = request.payload.page(*done).ok_or(SPOILT)?;
        // SAFETY: whoever asks for a write changes nothing in the frames until it has ended.
        let bytes = unsafe { &*(at as *const PageBytes) };
        let page = request.page + *done as u32;
        let written = tier.write(request.slab, page, bytes);
        written.map_err(|_| RequestError::Status(Status::Full))?;
        *done += 1;
        *left -= 1;
    }
    Ok(())
}

/// Does what moves no page.
fn change(tier: &mut Tier, id: ServerId, request: &Request) -> Option<Completion> {
    match request.op {
        Op::Discard => {
            let pages = request.page..request.page.saturating_add(request.count);
            pages.for_each(|page| tier.discard(request.slab, page));
            None
        }
        Op::Grant => {
            let slabs: Vec<u32> = (0..request.count)
                .map_while(|_| tier.grant().ok())
                .collect();
            match slabs.is_empty() {
                false => Some(Completion::Granted { server: id, slabs }),
                true => {
                    let error = RequestError::Status(Status::Full);
                    Some(Completion::GrantRefused { server: id, error })
                }
            }
        }
        Op::Release => {
            let slabs = decode_slab_list(request.payload.own_bytes());
            slabs
                .into_iter()
                .flatten()
                .for_each(|slab| tier.release(slab));
            None
        }
        _ => None,
    }
}

const _: () = assert!(size_of::<PageBytes>() == PAGE_SIZE);
