//! What all threads of a server share.

use crate::Config;
use crate::client::Client;
use crate::serve::attempts::Attempts;
use crate::serve::connection_limits::ConnectionLimits;
use crate::serve::outbox::Rations;
use crate::store::sessions::{Disconnect, Sessions};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tmem_config::{Complaints, Level};
use tmem_wire::{Features, NOTICE_DRAIN, NOTICE_GIVE_BACK, ServerStats};

/// How long the listener rests when the system cannot take a connection.
pub(super) const REST: Duration = Duration::from_millis(100);

/// How often the listener looks for clients whose machines are gone.
pub(super) const LOOK: Duration = Duration::from_secs(5);

/// Bytes that the kernel could give to programs without swapping.
fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib << 10)
}

/// How a server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// What clients have is gone, and they are told.
    Gone,
    /// What clients have stays where it is for a server that is started later.
    Kept,
    /// This process goes on.
    HandedOver(i32),
}

/// A server that has stopped to take connections and to serve them, and goes on when this is
/// dropped.
pub(crate) struct Stopped<'a> {
    shared: &'a Shared,
    _taking: MutexGuard<'a, ()>,
}

impl Stopped<'_> {
    /// Ends the server: the process of this number goes on with what it has.
    pub(crate) fn for_good(self, process: i32) {
        self.shared.shutdown(Ending::HandedOver(process));
    }
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        if !self.shared.is_closing() {
            self.shared.sessions.thaw();
        }
    }
}

/// What all threads of a server share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) sessions: Sessions,
    pub(crate) instance: [u8; 16],
    pub(crate) pages_read: AtomicU64,
    pub(crate) pages_written: AtomicU64,
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
    /// How the server ends.
    pub(super) how: OnceLock<Ending>,
    /// Requests to give empty slabs back.
    pub(super) asked_back: Complaints,
    /// Nothing more is granted, and the server ends when it holds nothing.
    pub(super) draining: AtomicBool,
    /// Held while a connection is taken.
    pub(super) taking: Mutex<()>,
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

    /// Whether the server ends.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Ends the server soon. How it ends the first call says.
    pub(crate) fn shutdown(&self, how: Ending) {
        let _ = self.how.set(how);
        self.closing.store(true, Ordering::Release);
        // It can only fail when it is readable already.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Whether a grant would leave others on this machine with less than is reserved for them.
    pub(crate) fn is_reserved(&self) -> bool {
        let reserve = self.config.reserve;
        reserve > 0 && available_memory().is_some_and(|bytes| bytes < reserve)
    }

    /// Asks clients for the slabs in which they have nothing.
    pub(crate) fn ask_back(&self) {
        if self.asked_back.are_due(Instant::now()) {
            self.connections
                .each(|socket| socket.notify(NOTICE_GIVE_BACK));
        }
    }

    /// Whether nothing more is granted.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Grants nothing more from now on, has clients move what they have to other servers, and ends
    /// the server when it holds nothing.
    pub(crate) fn drain(self: &Arc<Shared>) {
        if !self.draining.swap(true, Ordering::AcqRel) {
            let stats = self.stats();
            let text = format!(
                "this server drains: it grants nothing more, and ends once its clients have moved \
                 {} pages of {} sessions to others",
                stats.stored_pages, stats.sessions
            );
            self.config.say(Level::Info, &text);
            let shared = self.clone();
            thread::spawn(move || shared.end_when_drained());
        }
        self.connections.each(|socket| socket.notify(NOTICE_DRAIN));
    }

    /// Ends the server once it holds nothing.
    fn end_when_drained(&self) {
        while self.sessions.pool().granted_pages() > 0 {
            if self.is_closing() {
                return;
            }
            thread::sleep(REST);
        }
        self.config
            .say(Level::Info, "this server holds nothing any more, and ends");
        // Whoever has asked for it hears the answer first.
        thread::sleep(REST);
        self.shutdown(Ending::Gone);
    }

    /// How it ends.
    pub(super) fn ending(&self) -> Ending {
        self.how.get().copied().unwrap_or(Ending::Gone)
    }

    /// No connection is taken as long as this is held.
    pub(super) fn taking(&self) -> MutexGuard<'_, ()> {
        self.taking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Cuts all connections, without a word to clients, and takes no others: nothing of what is
    /// stored changes any more.
    pub(crate) fn stop(&self) -> Stopped<'_> {
        let taking = self.taking();
        // Nothing that a connection waits for comes then.
        self.sessions.freeze();
        self.connections.clear(None, |socket| socket.cut());
        // Sessions may have ended with their connections.
        self.sessions.freeze();
        Stopped {
            shared: self,
            _taking: taking,
        }
    }
}
