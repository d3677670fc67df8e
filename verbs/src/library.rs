//! The C libraries, opened when they are first needed and never closed.

use crate::abi::*;
use crate::error::Error;
use std::ffi::{CStr, c_int, c_uint, c_void};
use std::sync::OnceLock;

/// What could not be loaded, and why.
struct Missing {
    name: &'static str,
    reason: String,
}

/// Declares a struct of a library's functions, and how to fill it.
macro_rules! library {
    ($(#[$doc:meta])* $name:ident from $file:literal: $(fn $f:ident($($arg:ty),*) -> $ret:ty;)*) => {
        $(#[$doc])*
        pub(crate) struct $name {
            $(pub(crate) $f: unsafe extern "C" fn($($arg),*) -> $ret,)*
        }

        impl $name {
            fn open() -> Result<$name, Missing> {
                let missing = |reason| Missing { name: $file, reason };
                let name = concat!($file, "\0");
                // SAFETY: the name ends with a zero byte. The library is the
                // one that the system's dynamic linker finds for programs that
                // are linked with it; its initialisers are made for that.
                let handle = unsafe { libc::dlopen(name.as_ptr().cast(), libc::RTLD_NOW) };
                if handle.is_null() {
                    return Err(missing(last_error()));
                }
                Ok($name {
                    $($f: {
                        let name = concat!(stringify!($f), "\0");
                        // SAFETY: the name ends with a zero byte, the handle is open.
                        let found = unsafe { libc::dlsym(handle, name.as_ptr().cast()) };
                        if found.is_null() {
                            return Err(missing(last_error()));
                        }
                        // SAFETY: the library's headers declare the function
                        // so, and never change that under this soname.
                        unsafe {
                            std::mem::transmute::<
                                *mut c_void,
                                unsafe extern "C" fn($($arg),*) -> $ret,
                            >(found)
                        }
                    },)*
                })
            }
        }
    };
}

library! {
    /// libibverbs: devices, memory, queues.
    Verbs from "libibverbs.so.1":
    fn ibv_get_device_list(*mut c_int) -> *mut *mut Opaque;
    fn ibv_free_device_list(*mut *mut Opaque) -> ();
    fn ibv_query_device(*mut Context, *mut DeviceAttr) -> c_int;
    fn ibv_alloc_pd(*mut Context) -> *mut Opaque;
    fn ibv_dealloc_pd(*mut Opaque) -> c_int;
    fn ibv_reg_mr(*mut Opaque, *mut c_void, usize, c_int) -> *mut Mr;
    fn ibv_dereg_mr(*mut Mr) -> c_int;
    fn ibv_create_comp_channel(*mut Context) -> *mut CompChannel;
    fn ibv_destroy_comp_channel(*mut CompChannel) -> c_int;
    fn ibv_create_cq(*mut Context, c_int, *mut c_void, *mut CompChannel, c_int) -> *mut Cq;
    fn ibv_destroy_cq(*mut Cq) -> c_int;
    fn ibv_get_cq_event(*mut CompChannel, *mut *mut Cq, *mut *mut c_void) -> c_int;
    fn ibv_modify_qp(*mut Qp, *mut QpAttr, c_int) -> c_int;
    fn ibv_ack_cq_events(*mut Cq, c_uint) -> ();
}

library! {
    /// librdmacm: connecting.
    Manager from "librdmacm.so.1":
    fn rdma_get_devices(*mut c_int) -> *mut *mut Context;
    fn rdma_free_devices(*mut *mut Context) -> ();
    fn rdma_create_event_channel() -> *mut EventChannel;
    fn rdma_destroy_event_channel(*mut EventChannel) -> ();
    fn rdma_get_cm_event(*mut EventChannel, *mut *mut CmEvent) -> c_int;
    fn rdma_ack_cm_event(*mut CmEvent) -> c_int;
    fn rdma_create_id(*mut EventChannel, *mut *mut CmId, *mut c_void, c_int) -> c_int;
    fn rdma_destroy_id(*mut CmId) -> c_int;
    fn rdma_migrate_id(*mut CmId, *mut EventChannel) -> c_int;
    fn rdma_bind_addr(*mut CmId, *mut libc::sockaddr) -> c_int;
    fn rdma_listen(*mut CmId, c_int) -> c_int;
    fn rdma_resolve_addr(*mut CmId, *mut libc::sockaddr, *mut libc::sockaddr, c_int) -> c_int;
    fn rdma_resolve_route(*mut CmId, c_int) -> c_int;
    fn rdma_create_qp(*mut CmId, *mut Opaque, *mut QpInitAttr) -> c_int;
    fn rdma_destroy_qp(*mut CmId) -> ();
    fn rdma_connect(*mut CmId, *mut ConnParam) -> c_int;
    fn rdma_accept(*mut CmId, *mut ConnParam) -> c_int;
    fn rdma_reject(*mut CmId, *const c_void, u8) -> c_int;
    fn rdma_disconnect(*mut CmId) -> c_int;
}

/// Both libraries.
pub(crate) struct Library {
    pub(crate) verbs: Verbs,
    pub(crate) manager: Manager,
}

/// The libraries, which are loaded at the first call.
pub(crate) fn library() -> Result<&'static Library, Error> {
    static LIBRARY: OnceLock<Result<Library, Missing>> = OnceLock::new();
    let opened = LIBRARY.get_or_init(|| {
        Ok(Library {
            verbs: Verbs::open()?,
            manager: Manager::open()?,
        })
    });
    opened.as_ref().map_err(|missing| Error::Library {
        name: missing.name,
        reason: missing.reason.clone(),
    })
}

/// What the dynamic linker says of its last failure.
fn last_error() -> String {
    // SAFETY: dlerror has no preconditions; what it returns is a string that
    // stays until this thread's next call of the dynamic linker.
    unsafe {
        let text = libc::dlerror();
        if text.is_null() {
            return "no reason given".into();
        }
        CStr::from_ptr(text).to_string_lossy().into_owned()
    }
}
