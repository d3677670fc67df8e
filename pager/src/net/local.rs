//! The local tier in the place of a server: requests to it wait in order, and are done some
//! pages at a time.
//!
//! Compressing a page takes microseconds of the engine's thread, in which a thread of the
//! program may wait for another page. So a turn of the event loop does few pages, reads
//! before writes.

use super::request::Request;
use super::{Completion, Lane, RequestError, Servers, server};
use crate::ServerId;
use crate::sys::fd::Fd;
use crate::sys::mem::Region;
use crate::sys::space::Space;
use crate::tier::{ReadError, SLAB_PAGES, Tier};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
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
            let (tier, slab) = (&mut self.tier, request.slab);
            let result = pages(request, done, &mut left, |at, page| {
                read(tier, at, slab, page)
            });
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
            let (tier, slab) = (&mut self.tier, request.slab);
            let result = pages(request, done, &mut left, |at, page| {
                write(tier, at, slab, page)
            });
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

/// Where a forked child finds its copy of the local tier.
#[derive(Debug)]
pub struct LocalCopy(usize);

impl Servers {
    /// Uses the local tier as well.
    pub fn add_local(&mut self, local: LocalTier) {
        self.local = Some(Box::new(local));
    }

    /// The number of the local tier, if there is one.
    pub fn local(&self) -> Option<ServerId> {
        let number = ServerId::new(self.servers.len() as u16);
        self.local.is_some().then_some(number)
    }

    /// Changes nothing in the local tier while a fork copies the memory. Returns where the
    /// child finds its copy.
    pub fn keep_local_still(&mut self, is: bool) -> Option<LocalCopy> {
        let local = self.local.as_deref_mut()?;
        local.keep_still(is);
        Some(LocalCopy(core::ptr::from_ref(local).addr()))
    }

    /// Takes over the local tier that the parent process had when it forked, with its files.
    ///
    /// # Errors
    /// When a file is missing, or there is no memory.
    ///
    /// # Safety
    /// This is the child of a process in which [`Servers::keep_local_still`] gave `copy`, and
    /// of the fork that it was called for.
    pub unsafe fn inherit_local(
        &mut self,
        copy: &LocalCopy,
        space: &'static Space,
        files: Vec<Fd>,
    ) -> Result<(), Errno> {
        // SAFETY: the parent's value was copied whole with the rest of its memory, and the
        // parent's engine does not run in this process.
        let local = unsafe { (*(copy.0 as *const LocalTier)).inherited(space, files)? };
        self.local = Some(Box::new(local));
        Ok(())
    }

    /// The files of the local tier, which a forked child needs.
    pub fn local_files(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.local.iter().flat_map(|local| local.descriptors())
    }

    /// The address space of the local tier.
    pub fn local_regions(&self) -> impl Iterator<Item = Region> {
        self.local.iter().flat_map(|local| local.regions())
    }

    /// Bytes of memory that the local tier takes.
    pub fn local_memory(&self) -> usize {
        self.local.as_deref().map_or(0, LocalTier::memory)
    }

    /// The local tier itself.
    pub(crate) fn tier_mut(&mut self) -> Option<&mut Tier> {
        self.local.as_deref_mut().map(LocalTier::tier_mut)
    }

    /// The local tier, if this is its number.
    pub(super) fn local_mut(&mut self, server: ServerId) -> Option<&mut LocalTier> {
        let is_it = self.local() == Some(server);
        self.local.as_deref_mut().filter(|_| is_it)
    }

    /// Whether the number is that of the local tier, and it is up.
    pub(super) fn is_local_up(&self, server: ServerId) -> bool {
        let is_it = self.local() == Some(server);
        is_it && self.local.as_deref().is_some_and(LocalTier::is_up)
    }

    /// What messages call the server.
    pub fn called(&self, server: ServerId) -> String {
        match self.local() == Some(server) {
            true => String::from("the local tier"),
            false => format!("server {}", self.name(server)),
        }
    }
}

/// Has `each` do a page at a time of those that are not done yet, at most `left`: the address of
/// its frame, and its number.
fn pages(
    request: &Request,
    done: &mut usize,
    left: &mut usize,
    mut each: impl FnMut(usize, u32) -> Result<(), Status>,
) -> Result<(), RequestError> {
    while *done < request.count as usize && *left > 0 {
        let at = request.payload.page(*done);
        let at = at.ok_or(RequestError::Status(Status::BadRequest))?;
        each(at, request.page + *done as u32).map_err(RequestError::Status)?;
        *done += 1;
        *left -= 1;
    }
    Ok(())
}

/// Reads a page into the frame at an address.
fn read(tier: &mut Tier, at: usize, slab: u32, page: u32) -> Result<(), Status> {
    // SAFETY: whoever asks for a read has nobody else use the frames until it has ended.
    let to = unsafe { &mut *(at as *mut PageBytes) };
    tier.read(slab, page, to).map_err(|error| match error {
        // Asking again does not help.
        ReadError::Absent | ReadError::Spoilt => Status::BadRequest,
        ReadError::File(_) => Status::Internal,
    })
}

/// Writes the page in the frame at an address.
fn write(tier: &mut Tier, at: usize, slab: u32, page: u32) -> Result<(), Status> {
    // SAFETY: whoever asks for a write changes nothing in the frames until it has ended.
    let bytes = unsafe { &*(at as *const PageBytes) };
    tier.write(slab, page, bytes).map_err(|_| Status::Full)
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
