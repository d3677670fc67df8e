//! The device that a connection is on.

use crate::abi::{Context, DeviceAttr};
use crate::error::Error;
use crate::library::Library;
use std::io;
use std::mem::zeroed;
use std::ptr::NonNull;

/// Keeps librdmacm's devices open. The library closes a device that was
/// unplugged when the last connection on it goes; registered memory may stay
/// longer than its connection, and would then point to a device that is not
/// there.
pub(crate) struct Devices {
    list: NonNull<*mut Context>,
    library: &'static Library,
}

impl Devices {
    pub(crate) fn hold(library: &'static Library) -> Result<Devices, Error> {
        // SAFETY: the count is optional.
        let list = unsafe { (library.manager.rdma_get_devices)(std::ptr::null_mut()) };
        match NonNull::new(list) {
            Some(list) => Ok(Devices { list, library }),
            None => Err(Error::call("rdma_get_devices")),
        }
    }
}

impl Drop for Devices {
    fn drop(&mut self) {
        // SAFETY: the list is the library's own, given back once.
        unsafe { (self.library.manager.rdma_free_devices)(self.list.as_ptr()) };
    }
}

/// What the device can do.
///
/// # Safety
///
/// The context is open.
pub(crate) unsafe fn query(
    library: &'static Library,
    context: NonNull<Context>,
) -> Result<DeviceAttr, Error> {
    // SAFETY: all zeros are a value of this plain struct.
    let mut device: DeviceAttr = unsafe { zeroed() };
    // SAFETY: the context is open, as the caller says, and the struct has the
    // size that the library writes.
    match unsafe { (library.verbs.ibv_query_device)(context.as_ptr(), &raw mut device) } {
        0 => Ok(device),
        errno => Err(Error::Call {
            call: "ibv_query_device",
            error: io::Error::from_raw_os_error(errno),
        }),
    }
}
