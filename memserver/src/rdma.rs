//! Connections over RDMA: how they are taken.

use crate::client::Client;
use crate::config::Config;
use crate::conn::Conn;
use crate::link::Link;
use crate::pump::{LIMITS, Pump};
use crate::server::Shared;
use crate::sessions::Cut;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use tmem_config::Level;
use tmem_verbs::{Error, Incoming, Listener};

/// Requests to connect that the kernel keeps until they are taken.
const BACKLOG: i32 = 128;

/// Stack of a pump's thread.
const STACK: usize = 256 * 1024;

/// The number of the capability that makes the limit on locked memory void.
const CAP_IPC_LOCK: u32 = 14;

/// Listens; with port 0 where TCP listens, if that is free.
pub(crate) fn listen(at: SocketAddr, tcp_port: u16) -> Result<Listener, Error> {
    if at.port() == 0 {
        let same = SocketAddr::new(at.ip(), tcp_port);
        if let Ok(listener) = Listener::bind(same, BACKLOG) {
            return Ok(listener);
        }
    }
    Listener::bind(at, BACKLOG)
}

/// Takes connections until the server ends.
pub(crate) fn take_connections(shared: &Arc<Shared>, mut listener: Listener) {
    while shared.wait(listener.fd()) {
        loop {
            match listener.next() {
                Ok(Some(incoming)) => {
                    if let Err(text) = serve(shared, incoming) {
                        shared.complain(&text);
                    }
                }
                Ok(None) => break,
                Err(error @ Error::DeviceRemoved) => {
                    let text = format!("no more connections over RDMA: {error}");
                    shared.config.say(Level::Error, &text);
                    return;
                }
                Err(error) => {
                    shared.complain(&format!("cannot take a connection over RDMA: {error}"));
                    break;
                }
            }
        }
    }
}

/// Has two threads serve a client: one does what it asks, as over TCP, the
/// other carries the bytes.
fn serve(shared: &Arc<Shared>, incoming: Incoming) -> Result<(), String> {
    if let Err(text) = shared.places.check_room() {
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
            buffers = Some(Pump::prepare(connection)?);
            Ok(())
        })
        .map_err(|e| failed(&e))?;
    let Some(buffers) = buffers else {
        return Err(failed(&"it was not prepared"));
    };
    let domain = connection.domain();
    let pump = Pump::new(connection, buffers, theirs);
    shared.serve(Link::pumped(ours, client), Some(domain), |conn| {
        run(conn, pump);
    })
}

/// Serves one client until it or the server has enough.
fn run(conn: Conn, pump: Pump) {
    let (link, shared) = (conn.link.clone(), conn.shared.clone());
    let pump = {
        let link = link.clone();
        thread::Builder::new()
            .name(format!("pump {}", conn.key))
            .stack_size(STACK)
            .spawn(move || pump.run(&link))
    };
    match pump {
        Ok(pump) => {
            let _pumping = Pumping(link, Some(pump));
            conn.run();
        }
        Err(e) => shared.complain(&format!("cannot serve a connection over RDMA: {e}")),
    }
}

/// A pump that is ended, and waited for, however its client's thread ends.
struct Pumping(Arc<Link>, Option<thread::JoinHandle<()>>);

impl Drop for Pumping {
    fn drop(&mut self) {
        // It sends what is left before it ends.
        self.0.cut();
        // A panic there was reported when it happened.
        let _ = self.1.take().map(thread::JoinHandle::join);
    }
}

/// Says it when this process may not lock as much memory as it is to give.
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
    let mut limit = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: room for the answer.
    unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) };
    (limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

/// Whether `/proc/self/status` tells of the capability.
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
