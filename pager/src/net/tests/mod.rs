mod agents;
mod fake;
mod lost;
mod once;
mod pipeline;
mod second;
mod sessions;
mod trouble;

use super::*;
use fake::Fake;
use std::boxed::Box;
use std::time::{Duration, Instant};
use std::vec;
use tmem_wire::PAGE_SIZE;

/// A client of fake servers. Its clock runs far slower than the real one, so
/// that a busy machine changes nothing, and can be put forward.
struct Client {
    servers: Servers,
    now_ns: u64,
    seen: Vec<Completion>,
}

impl Client {
    fn new(fakes: &[&Fake], options: Options) -> Client {
        let endpoints = fakes.iter().map(|f| Endpoint {
            name: "fake".into(),
            addrs: vec![f.addr()],
            agent: None,
        });
        Client::of(endpoints.collect(), options)
    }

    fn of(endpoints: Vec<Endpoint>, options: Options) -> Client {
        let mut servers = Servers::new(endpoints, options);
        servers.connect(0);
        Client {
            servers,
            now_ns: 0,
            seen: Vec::new(),
        }
    }

    /// A client whose only server is up.
    fn up(fake: &Fake) -> Client {
        let mut client = Client::new(&[fake], Options::default());
        client.until(|c| matches!(c, Completion::Up { .. }));
        client
    }

    /// A client whose only server is up and has its second connection.
    fn with_second(fake: &Fake) -> Client {
        let mut client = Client::up(fake);
        let mut frames = Frames::new(1);
        client.write(0, at(0, 0), &mut frames, &[0]);
        client.until_second();
        client
    }

    /// Drives until the first server's second connection carries the bulk lane, and nothing
    /// is under way.
    fn until_second(&mut self) {
        let begin = Instant::now();
        while !self.servers.servers[0].has_both() {
            assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", self.seen);
            self.wait();
            self.drive();
        }
        self.finish();
        self.seen.clear();
    }

    /// Lets time pass, with a look every second, as an engine looks.
    fn skip(&mut self, ms: u64) {
        for _ in 0..ms / 1000 {
            self.now_ns += 1_000_000_000;
            self.drive();
        }
        self.now_ns += ms % 1000 * 1_000_000;
    }

    /// Does not run for so long.
    fn is_absent(&mut self, ms: u64) {
        self.now_ns += ms * 1_000_000;
    }

    fn drive(&mut self) {
        self.servers.drive(self.now_ns, &mut self.seen);
    }

    /// Drives until a completion that `wanted` accepts, which is returned.
    fn until(&mut self, wanted: impl Fn(&Completion) -> bool) -> Completion {
        let begin = Instant::now();
        loop {
            if let Some(at) = self.seen.iter().position(&wanted) {
                return self.seen.remove(at);
            }
            assert!(
                begin.elapsed() < Duration::from_secs(60),
                "seen only {:?}",
                self.seen
            );
            self.wait();
            self.drive();
        }
    }

    /// Drives until nothing is under way.
    fn finish(&mut self) {
        let begin = Instant::now();
        while self.servers.outstanding(Lane::Demand) + self.servers.outstanding(Lane::Bulk) > 0 {
            assert!(
                begin.elapsed() < Duration::from_secs(60),
                "seen only {:?}",
                self.seen
            );
            self.wait();
            self.drive();
        }
    }

    /// Drives until the server has answered the attempts to join that are due, so that no
    /// time passes for the client while a busy machine keeps the server waiting.
    fn until_answered(&mut self) {
        let begin = Instant::now();
        loop {
            self.drive();
            let mut open = Vec::new();
            self.servers.interests(&mut open);
            if open.is_empty() || !self.servers.is_resuming() {
                return;
            }
            assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", self.seen);
            self.wait();
        }
    }

    /// Waits a moment for a socket to be ready.
    fn wait(&mut self) {
        self.now_ns += 200_000;
        use rustix::event::{PollFd, PollFlags, Timespec};
        let mut fds = Vec::new();
        self.servers.interests(&mut fds);
        let mut polls: Vec<_> = fds
            .iter()
            .map(|interest| {
                let write = if interest.write {
                    PollFlags::OUT
                } else {
                    PollFlags::empty()
                };
                // SAFETY: the client keeps the socket open meanwhile.
                let fd = unsafe { rustix::fd::BorrowedFd::borrow_raw(interest.fd) };
                PollFd::from_borrowed_fd(fd, PollFlags::IN | write)
            })
            .collect();
        let moment = Timespec {
            tv_sec: 0,
            tv_nsec: 2_000_000,
        };
        rustix::event::poll(&mut polls, Some(&moment)).unwrap();
    }

    fn grant(&mut self, n: u32) -> Vec<u32> {
        self.servers.grant(ServerId::new(0), n);
        match self.until(|c| matches!(c, Completion::Granted { .. })) {
            Completion::Granted { slabs, .. } => slabs,
            _ => unreachable!(),
        }
    }

    fn read(&mut self, lane: Lane, token: u64, at: At, frames: &mut Frames, which: &[usize]) {
        let dest: Vec<usize> = which.iter().map(|i| frames.address(*i)).collect();
        // SAFETY: the frames outlive the client in every test, and each is used
        // for one request at a time.
        unsafe { self.servers.read(lane, token, at, &dest) };
    }

    fn write(&mut self, token: u64, at: At, frames: &mut Frames, which: &[usize]) {
        let src: Vec<usize> = which.iter().map(|i| frames.address(*i)).collect();
        // SAFETY: as in `read`.
        unsafe { self.servers.write(token, at, &src) };
    }
}

/// The only server has taken a page.
fn written(token: u64) -> Completion {
    let server = ServerId::new(0);
    Completion::Written { token, server }
}

/// Page frames that a test owns.
struct Frames(Box<[u8]>);

impl Frames {
    fn new(n: usize) -> Frames {
        Frames(vec![0xee; n * PAGE_SIZE].into())
    }

    fn address(&mut self, i: usize) -> usize {
        self.page_mut(i).as_mut_ptr() as usize
    }

    fn page(&self, i: usize) -> &[u8] {
        &self.0[i * PAGE_SIZE..][..PAGE_SIZE]
    }

    fn page_mut(&mut self, i: usize) -> &mut [u8] {
        &mut self.0[i * PAGE_SIZE..][..PAGE_SIZE]
    }

    fn set(&mut self, i: usize, seed: u64) {
        self.page_mut(i).copy_from_slice(&page(seed));
    }
}

/// A page that no other seed gives.
fn lost(c: &mut Client) -> Reason {
    match c.until(|x| matches!(x, Completion::Lost { .. })) {
        Completion::Lost { reason, .. } => reason,
        _ => unreachable!(),
    }
}

fn page(seed: u64) -> Vec<u8> {
    (0..PAGE_SIZE as u64 / 8)
        .flat_map(|i| (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (i << 17)).to_le_bytes())
        .collect()
}

fn at(slab: u32, page: u32) -> At {
    At {
        server: ServerId::new(0),
        slab,
        page,
    }
}
