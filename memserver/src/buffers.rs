//! Registered memory for the messages of one connection.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::sync::Arc;
use tmem_verbs::{Access, Domain, Error, Piece, Region};
use tmem_wire::RDMA_SEND;

/// Buffers of the largest message, which the device reads and writes.
#[derive(Debug)]
pub(crate) struct Buffers {
    // It goes before the memory.
    region: Region,
    memory: Memory,
}

impl Buffers {
    /// So many.
    pub(crate) fn new(domain: &Arc<Domain>, count: usize) -> Result<Buffers, Error> {
        let memory = Memory::new(count);
        let access = Access {
            local_write: true,
            ..Access::default()
        };
        let (base, len) = (memory.base.as_ptr(), memory.layout.size());
        // SAFETY: this value's memory, which goes after the region. References
        // to it are made by `bytes_mut` only.
        let region = unsafe { domain.register(base, len, access)? };
        Ok(Buffers { region, memory })
    }

    /// The first `len` bytes of a buffer, for the device.
    pub(crate) fn piece(&self, number: usize, len: usize) -> Result<Piece, Error> {
        self.region.piece(number * RDMA_SEND, len)
    }

    /// A buffer.
    ///
    /// # Safety
    /// The device has nothing to do with it at this time.
    pub(crate) unsafe fn bytes_mut(&mut self, number: usize) -> &mut [u8] {
        let at = number * RDMA_SEND;
        assert!(at + RDMA_SEND <= self.memory.layout.size());
        // SAFETY: within the memory, and by the caller nobody else uses it.
        unsafe { std::slice::from_raw_parts_mut(self.memory.base.as_ptr().add(at), RDMA_SEND) }
    }
}

#[derive(Debug)]
struct Memory {
    base: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the memory is this value's own.
unsafe impl Send for Memory {}

impl Memory {
    fn new(count: usize) -> Memory {
        let size = count.max(1) * RDMA_SEND;
        let layout = Layout::from_size_align(size, 4096);
        let layout = layout.unwrap_or_else(|_| unreachable!("a few buffers have a layout"));
        // SAFETY: the size is not 0.
        let base = unsafe { alloc_zeroed(layout) };
        let Some(base) = NonNull::new(base) else {
            std::alloc::handle_alloc_error(layout)
        };
        Memory { base, layout }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated so, and no device has it any more.
        unsafe { dealloc(self.base.as_ptr(), self.layout) };
    }
}
