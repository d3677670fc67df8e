//! What happens to a connection.

use crate::abi;

/// What happens to a connection, other than completions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The accepted connection is established. Receives may complete before this.
    Established,
    /// The other end is gone, or is about to go. All work still under way is
    /// completed with [`Status::Flushed`](crate::Status::Flushed).
    Disconnected,
    /// The accepted connection was not established: the other end gave up.
    Failed(i32),
    /// The device is being removed: the connection has to be dropped.
    DeviceRemoval,
    /// Nothing of the ended connection is on the network any more.
    TimewaitExit,
    /// Anything else, by its number in librdmacm.
    Other(i32),
}

impl Event {
    /// From librdmacm's number and status.
    pub(crate) fn from_c(event: i32, status: i32) -> Event {
        match event {
            abi::EVENT_ESTABLISHED => Event::Established,
            abi::EVENT_DISCONNECTED => Event::Disconnected,
            abi::EVENT_CONNECT_ERROR | abi::EVENT_UNREACHABLE | abi::EVENT_REJECTED => {
                Event::Failed(status)
            }
            abi::EVENT_DEVICE_REMOVAL => Event::DeviceRemoval,
            abi::EVENT_TIMEWAIT_EXIT => Event::TimewaitExit,
            other => Event::Other(other),
        }
    }
}
