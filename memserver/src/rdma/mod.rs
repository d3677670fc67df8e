//! Accepts connections over RDMA.

pub(crate) mod one_sided;
pub(crate) mod relay;

use crate::client::Client;
use crate::config::Config;
use crate::serve::client_thread;
use crate::serve::connection::Conn;
use crate::serve::shared::Shared;
use crate::serve::socket::Socket;
use crate::store::sessions::Disconnect;
use relay::{LIMITS, Relay};
use rustix::process::{Resource, getrlimit};
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use tmem_config::Level;
use tmem_verbs::{Error, Incoming, Listener};

/// The length of the kernel's queue of requests to connect.
const BACKLOG: i32 = 128;

/// Stack of a relay's thread.
const STACK: usize = 256 * 1024;

/// The number of the capability (CAP_IPC_LOCK) that lifts the limit on locked memory.
const CAP_IPC_LOCK: u32 = 14;

/// Listens. With port 0, on TCP's port if that is free.
pub(crate) fn listen(at: SocketAddr, tcp_port: u16) -> Result<Listener, Error> {
    if at.port() == 0 {
        let same = SocketAddr::new(at.ip(), tcp_port);
        if let Ok(listener) = Listener::bind(same, BACKLOG) {
            return Ok(listener);
        }
    }
    Listener::bind(at, BACKLOG)
}

/// Accepts connections until the server ends.
pub(crate) fn take_connections(shared: &Arc<Shared>, mut listener: Listener) {
    // SAFETY: the listener, and with it the descriptor, lives as long as this loop.
    while shared.wait(unsafe { BorrowedFd::borrow_raw(listener.fd()) }) {
        loop {
            match listener.next() {
                Ok(Some(incoming)) => {
                    if let Err(text) = serve(shared, incoming) {
                        shared.warn(&text);
                    }
                }
                Ok(None) => break,
                Err(error @ Error::DeviceRemoved) => {
                    let text = format!("no more connections over RDMA: {error}");
                    shared.config.say(Level::Error, &text);
                    return;
                }
                Err(error) => {
                    shared.warn(&format!("cannot take a connection over RDMA: {error}"));
                    break;
                }
            }
        }
    }
}

/// Has two threads serve a client: one serves requests as over TCP, the other is the relay.
fn serve(shared: &Arc<Shared>, incoming: Incoming) -> Result<(), String> {
    if let Err(text) = shared.connections.check_room() {
        incoming.reject();
        return Err(text);
    }
    let failed = |e: &dyn std::fmt::Display| format!("cannot serve a connection over RDMA: {e}");
    let (ours, theirs) = UnixStream::pair().map_err(|e| failed(&e))?;
    theirs.set_nonblocking(true).map_err(|e| failed(&e))?;
    let client = Client::at(incoming.peer());
    let mut buffers = None;
    // The client may send as soon as it is accepted.
    let connection = incoming
        .accept_with(&LIMITS, &[], |connection| {
            buffers = Some(Relay::prepare(connection)?);
            Ok(())
        })
        .map_err(|e| failed(&e))?;
    let Some(buffers) = buffers else {
        return Err(failed(&"it was not prepared"));
    };
    let domain = connection.domain();
    let relay = Relay::new(connection, buffers, theirs);
    let socket = Socket::relayed(ours, client);
    client_thread::spawn(shared, socket, Some(domain), |conn| run(conn, relay))
}

/// Serves one client until it or the server ends the connection.
fn run(conn: Conn, relay: Relay) {
    let (socket, shared) = (conn.socket.clone(), conn.shared.clone());
    let relay = {
        let socket = socket.clone();
        thread::Builder::new()
            .name(format!("relay {}", conn.key))
            .stack_size(STACK)
            .spawn(move || relay.run(&socket))
    };
    match relay {
        Ok(relay) => {
            let _pumping = Relaying(socket, Some(relay));
            client_thread::run(conn);
        }
        Err(e) => shared.warn(&format!("cannot serve a connection over RDMA: {e}")),
    }
}

/// A relay. Dropping it ends it and waits for it, however its client's thread ends.
struct Relaying(Arc<Socket>, Option<thread::JoinHandle<()>>);

impl Drop for Relaying {
    fn drop(&mut self) {
        // It sends the remaining bytes before it ends.
        self.0.cut();
        // A panic there was reported when it happened.
        let _ = self.1.take().map(thread::JoinHandle::join);
    }
}

/// Warns if this process may not lock as much memory as it is to serve.
pub(crate) fn check_lock_limit(config: &Config) {
    let Some(limit) = lock_limit() else { return };
    if limit < config.capacity {
        let text = format!(
            "this process may lock {limit} bytes, less than the capacity of {} that clients over RDMA may \
             want in place: `ulimit -l unlimited`, or LimitMEMLOCK=infinity in its systemd unit",
            config.capacity
        );
        config.say(Level::Warn, &text);
    }
}

/// How many bytes this process may lock, if there is a limit.
fn lock_limit() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if may_lock_all(&status) {
        return None;
    }
    getrlimit(Resource::Memlock).current
}

/// Whether this process has the capability, by `/proc/self/status`.
fn may_lock_all(status: &str) -> bool {
    let mut lines = status.lines();
    let effective = lines.find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    bits.is_some_and(|bits| bits & (1 << CAP_IPC_LOCK) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_capability_is_found() {
        assert!(may_lock_all(
            "CapPrm:\t0\nCapEff:\t000001ffffffffff\nCapBnd:\t0\n"
        ));
        assert!(may_lock_all("CapEff:\t0000000000004000\n"));
        assert!(!may_lock_all("CapEff:\t000001ffffffbfff\n"));
        assert!(!may_lock_all("CapPrm:\t000001ffffffffff\n"));
        assert!(!may_lock_all(""));
    }
}
