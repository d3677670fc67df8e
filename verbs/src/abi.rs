//! The parts of the C libraries' binary interface that this crate uses.
//!
//! Structures that only the libraries allocate are declared as far as they are read here.
//! The layouts are those of 64-bit Linux; they have been the same since
//! rdma-core 17 and cannot change under the sonames that `library` opens.

use std::ffi::{c_int, c_uint, c_void};

/// A structure that only the libraries read: `ibv_device`, `ibv_pd`.
pub(crate) type Opaque = c_void;

pub(crate) type PollCq = unsafe extern "C" fn(*mut Cq, c_int, *mut Wc) -> c_int;
pub(crate) type ReqNotifyCq = unsafe extern "C" fn(*mut Cq, c_int) -> c_int;
pub(crate) type PostSend = unsafe extern "C" fn(*mut Qp, *mut SendWr, *mut *mut SendWr) -> c_int;
pub(crate) type PostRecv = unsafe extern "C" fn(*mut Qp, *mut RecvWr, *mut *mut RecvWr) -> c_int;

/// The head of `ibv_context`: an open device.
#[repr(C)]
pub(crate) struct Context {
    device: *mut Opaque,
    pub(crate) ops: Ops,
}

/// `ibv_context_ops`: the device's own functions for what has to be fast. The inline
/// functions of the C header call these.
#[repr(C)]
pub(crate) struct Ops {
    before_poll_cq: [*const c_void; 11],
    pub(crate) poll_cq: PollCq,
    pub(crate) req_notify_cq: ReqNotifyCq,
    before_post_send: [*const c_void; 12],
    pub(crate) post_send: PostSend,
    pub(crate) post_recv: PostRecv,
    rest: [*const c_void; 5],
}

/// `ibv_device_attr`.
#[repr(C)]
pub(crate) struct DeviceAttr {
    fw_ver: [u8; 64],
    node_guid: u64,
    sys_image_guid: u64,
    max_mr_size: u64,
    page_size_cap: u64,
    vendor_id: u32,
    vendor_part_id: u32,
    hw_ver: u32,
    max_qp: c_int,
    pub(crate) max_qp_wr: c_int,
    device_cap_flags: c_uint,
    pub(crate) max_sge: c_int,
    max_sge_rd: c_int,
    max_cq: c_int,
    pub(crate) max_cqe: c_int,
    max_mr: c_int,
    max_pd: c_int,
    pub(crate) max_qp_rd_atom: c_int,
    max_ee_rd_atom: c_int,
    max_res_rd_atom: c_int,
    pub(crate) max_qp_init_rd_atom: c_int,
    /// Not used here. The C library writes it.
    rest: [u32; 18],
}

/// `ibv_comp_channel`.
#[repr(C)]
pub(crate) struct CompChannel {
    context: *mut Context,
    pub(crate) fd: c_int,
    refcnt: c_int,
}

/// The head of `ibv_cq`: a completion queue.
#[repr(C)]
pub(crate) struct Cq {
    pub(crate) context: *mut Context,
}

/// The head of `ibv_qp`: a queue pair.
#[repr(C)]
pub(crate) struct Qp {
    pub(crate) context: *mut Context,
}

/// `ibv_mr`: registered memory.
#[repr(C)]
pub(crate) struct Mr {
    context: *mut Context,
    pd: *mut Opaque,
    addr: *mut c_void,
    length: usize,
    handle: u32,
    pub(crate) lkey: u32,
    pub(crate) rkey: u32,
}

/// `ibv_access_flags`.
pub(crate) const ACCESS_LOCAL_WRITE: c_int = 1;
pub(crate) const ACCESS_REMOTE_WRITE: c_int = 1 << 1;
pub(crate) const ACCESS_REMOTE_READ: c_int = 1 << 2;

/// `ibv_sge`: a piece of local memory.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sge {
    pub(crate) addr: u64,
    pub(crate) length: u32,
    pub(crate) lkey: u32,
}

/// `ibv_send_wr`. The unions are declared as this crate uses them.
#[repr(C)]
pub(crate) struct SendWr {
    pub(crate) wr_id: u64,
    pub(crate) next: *mut SendWr,
    pub(crate) sg_list: *const Sge,
    pub(crate) num_sge: c_int,
    pub(crate) opcode: c_int,
    pub(crate) send_flags: c_uint,
    pub(crate) imm_data: u32,
    pub(crate) remote_addr: u64,
    pub(crate) rkey: u32,
    /// The rest of the unions.
    pub(crate) rest: [u64; 9],
}

/// `ibv_wr_opcode`.
pub(crate) const WR_RDMA_WRITE: c_int = 0;
pub(crate) const WR_SEND: c_int = 2;
pub(crate) const WR_RDMA_READ: c_int = 4;

/// `ibv_send_flags`.
pub(crate) const SEND_FENCE: c_uint = 1;
pub(crate) const SEND_SIGNALED: c_uint = 1 << 1;
pub(crate) const SEND_INLINE: c_uint = 1 << 3;

/// `ibv_recv_wr`.
#[repr(C)]
pub(crate) struct RecvWr {
    pub(crate) wr_id: u64,
    pub(crate) next: *mut RecvWr,
    pub(crate) sg_list: *const Sge,
    pub(crate) num_sge: c_int,
}

/// `ibv_wc`: a completion.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct Wc {
    pub(crate) wr_id: u64,
    pub(crate) status: c_uint,
    opcode: c_uint,
    vendor_err: u32,
    pub(crate) byte_len: u32,
    imm_data: u32,
    qp_num: u32,
    src_qp: u32,
    wc_flags: c_uint,
    pkey_index: u16,
    slid: u16,
    sl: u8,
    dlid_path_bits: u8,
}

/// `ibv_qp_cap`.
#[repr(C)]
pub(crate) struct QpCap {
    pub(crate) max_send_wr: u32,
    pub(crate) max_recv_wr: u32,
    pub(crate) max_send_sge: u32,
    pub(crate) max_recv_sge: u32,
    pub(crate) max_inline_data: u32,
}

/// `ibv_qp_init_attr`.
#[repr(C)]
pub(crate) struct QpInitAttr {
    pub(crate) qp_context: *mut c_void,
    pub(crate) send_cq: *mut Cq,
    pub(crate) recv_cq: *mut Cq,
    pub(crate) srq: *mut c_void,
    pub(crate) cap: QpCap,
    pub(crate) qp_type: c_int,
    pub(crate) sq_sig_all: c_int,
}

/// `ibv_qp_attr`, of which one field is of interest.
#[repr(C, align(8))]
pub(crate) struct QpAttr {
    pub(crate) before: [u8; 128],
    pub(crate) min_rnr_timer: u8,
    pub(crate) rest: [u8; 15],
}

/// `IBV_QP_MIN_RNR_TIMER`: the field that is given.
pub(crate) const QP_MIN_RNR_TIMER: c_int = 1 << 15;

/// `IBV_QPT_RC`: a reliable connection.
pub(crate) const QPT_RC: c_int = 2;

/// `rdma_event_channel`.
#[repr(C)]
pub(crate) struct EventChannel {
    pub(crate) fd: c_int,
}

/// The head of `rdma_cm_id`.
#[repr(C)]
pub(crate) struct CmId {
    pub(crate) verbs: *mut Context,
    channel: *mut EventChannel,
    context: *mut c_void,
    pub(crate) qp: *mut Qp,
    pub(crate) src: libc::sockaddr_storage,
    pub(crate) dst: libc::sockaddr_storage,
}

/// `RDMA_PS_TCP`: the port space of reliable connections.
pub(crate) const PS_TCP: c_int = 0x0106;

/// `rdma_conn_param`.
#[repr(C)]
pub(crate) struct ConnParam {
    pub(crate) private_data: *const c_void,
    pub(crate) private_data_len: u8,
    pub(crate) responder_resources: u8,
    pub(crate) initiator_depth: u8,
    pub(crate) flow_control: u8,
    pub(crate) retry_count: u8,
    pub(crate) rnr_retry_count: u8,
    pub(crate) srq: u8,
    pub(crate) qp_num: u32,
}

/// The head of `rdma_cm_event`, with `param.conn`, the part of the union that
/// events of reliable connections have.
#[repr(C)]
pub(crate) struct CmEvent {
    pub(crate) id: *mut CmId,
    listen_id: *mut CmId,
    pub(crate) event: c_int,
    pub(crate) status: c_int,
    pub(crate) conn: ConnParam,
}

/// `rdma_cm_event_type`.
pub(crate) const EVENT_ADDR_RESOLVED: c_int = 0;
pub(crate) const EVENT_ROUTE_RESOLVED: c_int = 2;
pub(crate) const EVENT_CONNECT_REQUEST: c_int = 4;
pub(crate) const EVENT_CONNECT_ERROR: c_int = 6;
pub(crate) const EVENT_UNREACHABLE: c_int = 7;
pub(crate) const EVENT_REJECTED: c_int = 8;
pub(crate) const EVENT_ESTABLISHED: c_int = 9;
pub(crate) const EVENT_DISCONNECTED: c_int = 10;
pub(crate) const EVENT_DEVICE_REMOVAL: c_int = 11;
pub(crate) const EVENT_TIMEWAIT_EXIT: c_int = 15;

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::{offset_of, size_of};

    /// The numbers are what a C compiler says of rdma-core 44's headers.
    #[test]
    fn the_layouts_are_those_of_the_c_headers() {
        assert_eq!(offset_of!(Context, ops.poll_cq), 96);
        assert_eq!(offset_of!(Context, ops.req_notify_cq), 104);
        assert_eq!(offset_of!(Context, ops.post_send), 208);
        assert_eq!(offset_of!(Context, ops.post_recv), 216);
        assert_eq!(
            size_of::<Context>(),
            264,
            "cmd_fd, the first field left out"
        );

        assert_eq!(size_of::<DeviceAttr>(), 232);
        assert_eq!(offset_of!(DeviceAttr, max_qp_wr), 112);
        assert_eq!(offset_of!(DeviceAttr, max_sge), 120);
        assert_eq!(offset_of!(DeviceAttr, max_cqe), 132);
        assert_eq!(offset_of!(DeviceAttr, max_qp_rd_atom), 144);
        assert_eq!(offset_of!(DeviceAttr, max_qp_init_rd_atom), 156);

        assert_eq!(size_of::<CompChannel>(), 16);
        assert_eq!(offset_of!(CompChannel, fd), 8);
        assert_eq!(offset_of!(Cq, context), 0);
        assert_eq!(offset_of!(Qp, context), 0);
        assert_eq!(size_of::<Mr>(), 48);
        assert_eq!(offset_of!(Mr, addr), 16);
        assert_eq!(offset_of!(Mr, lkey), 36);
        assert_eq!(offset_of!(Mr, rkey), 40);
    }

    #[test]
    fn the_layouts_of_work_are_those_of_the_c_headers() {
        assert_eq!(size_of::<Sge>(), 16);
        assert_eq!(offset_of!(Sge, length), 8);
        assert_eq!(offset_of!(Sge, lkey), 12);

        assert_eq!(size_of::<SendWr>(), 128);
        assert_eq!(offset_of!(SendWr, next), 8);
        assert_eq!(offset_of!(SendWr, sg_list), 16);
        assert_eq!(offset_of!(SendWr, num_sge), 24);
        assert_eq!(offset_of!(SendWr, opcode), 28);
        assert_eq!(offset_of!(SendWr, send_flags), 32);
        assert_eq!(offset_of!(SendWr, imm_data), 36);
        assert_eq!(offset_of!(SendWr, remote_addr), 40);
        assert_eq!(offset_of!(SendWr, rkey), 48);

        assert_eq!(size_of::<RecvWr>(), 32);
        assert_eq!(offset_of!(RecvWr, next), 8);
        assert_eq!(offset_of!(RecvWr, sg_list), 16);
        assert_eq!(offset_of!(RecvWr, num_sge), 24);

        assert_eq!(size_of::<Wc>(), 48);
        assert_eq!(offset_of!(Wc, status), 8);
        assert_eq!(offset_of!(Wc, opcode), 12);
        assert_eq!(offset_of!(Wc, byte_len), 20);
        assert_eq!(offset_of!(Wc, wc_flags), 36);

        assert_eq!(size_of::<QpCap>(), 20);
        assert_eq!(size_of::<QpInitAttr>(), 64);
        assert_eq!(offset_of!(QpInitAttr, cap), 32);
        assert_eq!(offset_of!(QpInitAttr, qp_type), 52);
        assert_eq!(offset_of!(QpInitAttr, sq_sig_all), 56);
        assert_eq!(size_of::<QpAttr>(), 144);
        assert_eq!(offset_of!(QpAttr, min_rnr_timer), 128);
    }

    #[test]
    fn the_layouts_of_connecting_are_those_of_the_c_headers() {
        assert_eq!(offset_of!(EventChannel, fd), 0);
        assert_eq!(offset_of!(CmId, verbs), 0);
        assert_eq!(offset_of!(CmId, channel), 8);
        assert_eq!(offset_of!(CmId, qp), 24);
        assert_eq!(offset_of!(CmId, src), 32);
        assert_eq!(offset_of!(CmId, dst), 160);

        assert_eq!(size_of::<ConnParam>(), 24);
        assert_eq!(offset_of!(ConnParam, private_data_len), 8);
        assert_eq!(offset_of!(ConnParam, responder_resources), 9);
        assert_eq!(offset_of!(ConnParam, initiator_depth), 10);
        assert_eq!(offset_of!(ConnParam, flow_control), 11);
        assert_eq!(offset_of!(ConnParam, retry_count), 12);
        assert_eq!(offset_of!(ConnParam, rnr_retry_count), 13);
        assert_eq!(offset_of!(ConnParam, srq), 14);
        assert_eq!(offset_of!(ConnParam, qp_num), 16);

        assert_eq!(offset_of!(CmEvent, event), 16);
        assert_eq!(offset_of!(CmEvent, status), 20);
        assert_eq!(offset_of!(CmEvent, conn), 24);
    }
}
