//! Serves KEYS: gives a client's device access to a slab.

use crate::serve::connection::Conn;
use crate::store::keys::Region;
use crate::store::session::Session;
use std::sync::{Arc, PoisonError};
use tmem_verbs::{Access, Domain, Error};
use tmem_wire::{ACCESS_READ, ACCESS_WRITE, Header, Status};

/// The payload of the reply to KEYS.
pub(crate) fn key(conn: &Conn, header: &Header, session: &Session) -> Result<Vec<u8>, Status> {
    let domain = conn.domain.as_ref().ok_or(Status::BadRequest)?;
    let slab = session.slab(header.slab).ok_or(Status::NoSuchSlab)?;
    let write = match (header.page, header.count) {
        (ACCESS_READ, 0) => false,
        (ACCESS_WRITE, 0) => true,
        _ => return Err(Status::BadRequest),
    };
    // A slab must not get a key for writing while it is being shared.
    let writing = session.writing.read();
    let _writing = writing.unwrap_or_else(PoisonError::into_inner);
    let key = slab.key(conn.key, write, |base, len| {
        // SAFETY: the slab's memory, which it keeps as long as its keys, and
        // to which nobody has references.
        unsafe { register(domain, base, len, write) }.map_err(|error| refusal(conn, &error))
    })?;
    Ok(key.encode().to_vec())
}

/// Registers memory for the client. Returns its key.
///
/// # Safety
/// As [`Domain::register`].
unsafe fn register(
    domain: &Arc<Domain>,
    base: *mut u8,
    len: usize,
    write: bool,
) -> Result<(u32, Region), Error> {
    let access = Access {
        local_write: false,
        remote_read: true,
        remote_write: write,
    };
    // SAFETY: by the caller.
    let region = unsafe { domain.register(base, len, access)? };
    Ok((region.remote_key(), Box::new(region)))
}

/// What the client is told, after what the server's owner is.
fn refusal(conn: &Conn, error: &Error) -> Status {
    conn.shared.warn(&format!(
        "a client's pages go through its connection only: {error}"
    ));
    status(error)
}

fn status(error: &Error) -> Status {
    match error {
        Error::Pin { error, .. } if error.raw_os_error() == Some(libc::ENOMEM) => Status::Full,
        _ => Status::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_lockable_memory_is_full_and_all_else_is_the_servers_fault() {
        let pin = |errno| Error::Pin {
            len: 4096,
            limit: Some(65536),
            error: std::io::Error::from_raw_os_error(errno),
        };
        assert_eq!(status(&pin(libc::ENOMEM)), Status::Full);
        assert_eq!(status(&pin(libc::EINVAL)), Status::Internal);
        assert_eq!(status(&Error::NoDevice), Status::Internal);
    }
}
