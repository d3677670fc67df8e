//! Messages of a userfaultfd.

/// A message of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Msg {
    /// A thread waits for a page.
    Fault {
        /// The address of the access, or of its page if the kernel tells no more.
        addr: usize,
        /// The access is a write.
        write: bool,
        /// The page is present, but write-protected.
        protected: bool,
        /// The thread, or 0 if the kernel does not tell.
        tid: u32,
    },
    /// `mremap` moved `len` bytes.
    Remap {
        /// Old address.
        from: usize,
        /// New address.
        to: usize,
        /// Bytes.
        len: usize,
    },
    /// The program gives up the contents of the range. The kernel zaps it after this
    /// message was read.
    Remove {
        /// First address.
        start: usize,
        /// The end.
        end: usize,
    },
    /// The range was unmapped.
    Unmap {
        /// First address.
        start: usize,
        /// The end.
        end: usize,
    },
    /// The process was forked. The file descriptor came with the message, and has to be
    /// closed.
    Fork {
        /// A userfaultfd of the child's memory.
        fd: i32,
    },
    /// A message of another kind.
    Unknown(u8),
}

/// A message as the kernel writes it.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub struct RawMsg {
    event: u8,
    pad: [u8; 7],
    arg: [u64; 3],
}

impl RawMsg {
    /// Encodes a message for a test, as the kernel would.
    #[cfg(test)]
    pub(crate) fn encode(msg: &Msg) -> RawMsg {
        let (event, arg) = match *msg {
            Msg::Fault {
                addr,
                write,
                protected,
                tid,
            } => {
                let flags = u64::from(write) | u64::from(protected) << 1;
                (0x12, [flags, addr as u64, u64::from(tid)])
            }
            Msg::Remap { from, to, len } => (0x14, [from as u64, to as u64, len as u64]),
            Msg::Remove { start, end } => (0x15, [start as u64, end as u64, 0]),
            Msg::Unmap { start, end } => (0x16, [start as u64, end as u64, 0]),
            Msg::Fork { fd } => (0x13, [fd as u64, 0, 0]),
            Msg::Unknown(event) => (event, [0; 3]),
        };
        RawMsg {
            event,
            arg,
            ..RawMsg::default()
        }
    }

    /// Decodes the message.
    pub fn decode(&self) -> Msg {
        let [a, b, c] = self.arg;
        match self.event {
            0x12 => Msg::Fault {
                addr: b as usize,
                write: a & 1 != 0,
                protected: a & 2 != 0,
                tid: c as u32,
            },
            0x13 => Msg::Fork { fd: a as i32 },
            0x14 => Msg::Remap {
                from: a as usize,
                to: b as usize,
                len: c as usize,
            },
            0x15 => Msg::Remove {
                start: a as usize,
                end: b as usize,
            },
            0x16 => Msg::Unmap {
                start: a as usize,
                end: b as usize,
            },
            other => Msg::Unknown(other),
        }
    }
}
