//! Two connected ends, and memory for them.

use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use tmem_verbs::{
    Access, Completion, Connection, Domain, Event, Kind, Limits, Listener, Op, Pieces, Region,
    Status, Work,
};

pub(crate) const LIMITS: Limits = Limits {
    sends: 64,
    receives: 64,
    inline: 64,
    reads: 16,
};

/// Longer than anything here takes, even in an emulated machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The device's address: that of the VM, unless the environment has another.
pub(crate) fn addr() -> SocketAddr {
    let ip = std::env::var("TMEM_TEST_RDMA_ADDR").unwrap_or_else(|_| "10.77.0.1".into());
    SocketAddr::new(ip.parse().unwrap(), 0)
}

pub(crate) fn listen() -> Listener {
    Listener::bind(addr(), 8).unwrap()
}

/// The two ends of a connection: the one that connected, the one that accepted.
pub(crate) fn ends() -> (Connection, Connection) {
    let mut listener = listen();
    let to = listener.local_addr();
    let client = thread::spawn(move || Connection::connect(to, PATIENCE, &LIMITS, b"").unwrap());
    wait(listener.fd());
    let incoming = listener.next().unwrap().unwrap();
    let mut server = incoming.accept(&LIMITS, b"").unwrap();
    assert_eq!(event(&mut server), Event::Established);
    (client.join().unwrap(), server)
}

/// Waits until a descriptor is readable.
pub(crate) fn wait(fd: RawFd) {
    let mut poll = libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one descriptor, as said.
    let ready = unsafe { libc::poll(&raw mut poll, 1, PATIENCE.as_millis() as i32) };
    assert_eq!(ready, 1, "nothing came");
}

/// The next event.
pub(crate) fn event(connection: &mut Connection) -> Event {
    loop {
        if let Some(event) = connection.next_event().unwrap() {
            return event;
        }
        wait(connection.event_fd());
    }
}

/// Polls until so many completions are there.
pub(crate) fn completions(connection: &mut Connection, count: usize) -> Vec<Completion> {
    let mut out = Vec::new();
    let begin = Instant::now();
    while out.len() < count {
        assert!(begin.elapsed() < PATIENCE, "only {out:?}");
        if connection.poll(&mut out).unwrap() == 0 {
            thread::yield_now();
        }
    }
    assert_eq!(out.len(), count, "{out:?}");
    out
}

/// Posts a work alone and says how it ended.
pub(crate) fn run(connection: &mut Connection, op: Op, pieces: Pieces) -> Result<(), Status> {
    let work = Work {
        id: 77,
        op,
        pieces,
        signaled: true,
        fence: false,
    };
    connection.post(&[work]).unwrap();
    let done = completions(connection, 1)[0];
    assert_eq!((done.id, done.kind), (77, Kind::Work));
    done.status
}

pub(crate) const ALL: Access = Access {
    local_write: true,
    remote_read: true,
    remote_write: true,
};

/// Registered memory.
pub(crate) struct Memory {
    region: Option<Region>,
    at: *mut u8,
    len: usize,
}

// SAFETY: nothing of it is bound to a thread.
unsafe impl Send for Memory {}

impl Memory {
    pub(crate) fn new(domain: &Arc<Domain>, bytes: &[u8], access: Access) -> Memory {
        let len = bytes.len();
        let at = Box::into_raw(Box::<[u8]>::from(bytes)).cast::<u8>();
        // SAFETY: freed only when the region is gone, and looked at only by
        // copying.
        let region = unsafe { domain.register(at, len, access) }.unwrap();
        let region = Some(region);
        Memory { region, at, len }
    }

    pub(crate) fn region(&self) -> &Region {
        self.region.as_ref().unwrap()
    }

    /// All of it.
    pub(crate) fn whole(&self) -> Pieces {
        self.region().piece(0, self.len).unwrap().into()
    }

    /// Ends the region; the memory stays.
    pub(crate) fn give_up(&mut self) {
        self.region = None;
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        // SAFETY: the memory is there, and no work on it is under way when a
        // test looks.
        unsafe { std::slice::from_raw_parts(self.at, self.len) }.to_vec()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.region = None;
        let all = std::ptr::slice_from_raw_parts_mut(self.at, self.len);
        // SAFETY: from a box of that length, and nothing uses it any more.
        drop(unsafe { Box::from_raw(all) });
    }
}

/// Bytes that are all different from their neighbours.
pub(crate) fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len)
        .map(|at| (at * 7 + at / 256 + seed) as u8)
        .collect()
}
