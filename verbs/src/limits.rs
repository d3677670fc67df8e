//! How much of a connection may be under way at once.

use crate::abi::DeviceAttr;

/// How much of a connection may be under way at once. A device that does less
/// clips it; [`Connection::limits`](crate::Connection::limits) has what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Works posted and not yet completed. One that is not signaled counts until
    /// a signaled one that was posted later completes.
    pub sends: u32,
    /// Receives posted and not yet completed.
    pub receives: u32,
    /// A send or write of at most this many bytes takes them along when it is
    /// posted, so that the device need not fetch them.
    pub inline: u32,
    /// RDMA reads under way at once, in either direction. More may be posted:
    /// the device starts them when earlier ones are done.
    pub reads: u8,
}

impl Limits {
    /// What of this the device does, except for `inline`, of which a device does
    /// not tell its limit.
    pub(crate) fn clip(&self, device: &DeviceAttr) -> Limits {
        let depth = u32::try_from(device.max_qp_wr.min(device.max_cqe))
            .unwrap_or(0)
            .max(1);
        let reads = device.max_qp_rd_atom.min(device.max_qp_init_rd_atom);
        Limits {
            sends: self.sends.clamp(1, depth),
            receives: self.receives.clamp(1, depth),
            inline: self.inline,
            reads: self
                .reads
                .min(u8::try_from(reads.max(0)).unwrap_or(u8::MAX)),
        }
    }
}
