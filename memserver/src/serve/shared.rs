//! What all threads of a server share.

use crate::Config;
use crate::client::Client;
use crate::latency::Latency;
use crate::serve::attempts::Attempts;
use crate::serve::connection_limits::ConnectionLimits;
use crate::serve::outbox::Rations;
use crate::store::sessions::Sessions;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tmem_config::{Complaints, Level};
use tmem_wire::{Features, ServerStats};

/// How long the listener rests when the system cannot take a connection.
pub(super) const REST: Duration = Duration::from_millis(100);

/// How often the listener looks for clients whose machines are gone.
pub(super) const LOOK: Duration = Duration::from_secs(5);

/// What all threads of a server share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) sessions: Sessions,
    pub(crate) instance: [u8; 16],
    pub(crate) pages_read: AtomicU64,
    pub(crate) pages_written: AtomicU64,
    pub(crate) latency: Latency,
    pub(crate) warnings: Complaints,
    pub(crate) connections: ConnectionLimits,
    /// What is held of packed pages on their way out.
    pub(crate) rations: Arc<Rations>,
    pub(crate) attempts: Attempts,
    /// Of wrong secrets, which others must not hide.
    pub(super) secrets: Complaints,
    /// What every client is told that this server does.
    pub(crate) features: Features,
    /// Connections so far.
    pub(super) taken: AtomicU64,
    pub(super) start: Instant,
    pub(super) closing: AtomicBool,
    /// Wakes the listener.
    pub(super) wake: OwnedFd,
}

impl Shared {
    pub(crate) fn stats(&self) -> ServerStats {
        let pool = self.sessions.pool();
        let (sessions, connections) = self.sessions.count();
        ServerStats {
            capacity_pages: pool.capacity_pages(),
            granted_pages: pool.granted_pages(),
            stored_pages: pool.stored_pages(),
            sessions: sessions as u64,
            connections: connections as u64,
            pages_read: self.pages_read.load(Ordering::Relaxed),
            pages_written: self.pages_written.load(Ordering::Relaxed),
            uptime_ms: self.start.elapsed().as_millis() as u64,
        }
    }

    /// Says what clients may make happen again and again, not each time.
    pub(crate) fn warn(&self, text: &str) {
        if self.warnings.are_due(Instant::now()) {
            self.config.say(Level::Warn, text);
        }
    }

    /// Says that a client does not know the secret, though it has tried so often.
    pub(crate) fn warn_of_secrets(&self, client: Client, wrong: u64) {
        if self.secrets.are_due(Instant::now()) {
            let text = match wrong {
                1 => format!("a wrong secret came from {client}"),
                n => format!("{n} wrong secrets in a row came from {client}"),
            };
            self.config.say(Level::Warn, &text);
        }
    }

    /// Waits until something can be read, or for a while; `false` when it is
    /// time to end.
    pub(crate) fn wait(&self, listener: BorrowedFd<'_>) -> bool {
        let timeout = Timespec::try_from(LOOK).ok();
        let mut fds = [
            PollFd::from_borrowed_fd(listener, PollFlags::IN),
            PollFd::new(&self.wake, PollFlags::IN),
        ];
        if retry_on_intr(|| poll(&mut fds, timeout.as_ref())).is_err() {
            thread::sleep(REST);
        }
        !self.closing.load(Ordering::Acquire)
    }

    /// Ends the server soon.
    pub(super) fn shutdown(&self) {
        self.closing.store(true, Ordering::Release);
        // It can only fail when it is readable already.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }
}
