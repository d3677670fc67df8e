//! What an agent has the device do: few works, little to be told of, and nothing
//! that the server's processor has a part in.

use crate::{c_program, over_rdma, same};
use std::io::Write;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tmem_config::{AGENT_VARIABLE, Level};
use tmem_rdma::Agent;
use tmem_tests::memserver::{answer, ask, greet};
use tmem_tests::{MIB, MemServer};
use tmem_wire::{Header, Op, PAGE_SIZE, decode_slab_list};

/// What was done over a connection, as the agent says at its end.
#[derive(Debug, Default)]
struct Counts {
    read_pages: u64,
    reads: u64,
    written_pages: u64,
    writes: u64,
    signals: u64,
    completions: u64,
    most: u64,
}

impl Counts {
    fn add(&mut self, other: &Counts) {
        self.read_pages += other.read_pages;
        self.reads += other.reads;
        self.written_pages += other.written_pages;
        self.writes += other.writes;
        self.signals += other.signals;
        self.completions += other.completions;
        self.most = self.most.max(other.most);
    }
}

/// An agent within this test, and where its counts arrive.
fn agent() -> (Agent, Receiver<Counts>) {
    let (say, said) = channel();
    let say = Mutex::new(say);
    let log = move |level, text: &str| {
        assert_eq!(level, Level::Debug, "{text}");
        // The test may have heard enough.
        let _ = say
            .lock()
            .expect("nobody panics with it")
            .send(counts(text));
    };
    let agent = Agent::start(Arc::new(log)).expect("RDMA is there");
    (agent, said)
}

/// The numbers of `RDMA to …: 2048 pages by 32 READs, …`, in their order.
fn counts(text: &str) -> Counts {
    let (_, told) = text.split_once(": ").expect("it names the server first");
    let words = told.split_whitespace();
    let mut numbers = words.filter_map(|word| word.parse().ok());
    let mut next = || numbers.next().expect("seven are told");
    Counts {
        read_pages: next(),
        reads: next(),
        written_pages: next(),
        writes: next(),
        signals: next(),
        completions: next(),
        most: next(),
    }
}

fn hear(said: &Receiver<Counts>) -> Counts {
    let counts = said.recv_timeout(Duration::from_secs(60));
    counts.expect("the agent says what it did")
}

#[test]
#[ignore = "needs an RDMA device: scripts/test-rdma"]
fn runs_of_pages_are_one_work_each_few_are_signaled_and_the_server_does_nothing() {
    over_rdma();
    let server = MemServer::roomy();
    let (agent, said) = agent();
    // Strict, so that it does not begin before its engine has a server, and there for long
    // enough to be paged: in an emulated machine it could be over before that.
    let run = c_program("fill", &["48", "seq", "1", "4"]);
    let native = run.run().ok();
    let run = run.preload().env("TMEM_LOCAL", "32M");
    let run = run.env("TMEM_STRICT", "1");
    let run = run.env("TMEM_SERVERS", format!("rdma://{}", server.address()));
    let paged = run.env(AGENT_VARIABLE, agent.addr().to_string()).run().ok();
    assert_eq!(paged.digest(), native.digest());
    assert_eq!(paged.stderr(), "");
    // One connection carries everything until there is a second for many pages.
    let mut all = hear(&said);
    while all.read_pages <= 2000 || all.written_pages <= 2000 {
        all.add(&hear(&said));
    }
    // The program reads in order, and what leaves together left in order.
    assert!(all.reads * 4 < all.read_pages, "{all:?}");
    assert!(all.writes * 8 < all.written_pages, "{all:?}");
    assert!(all.signals < all.reads + all.writes, "{all:?}");
    assert_eq!(all.signals, all.completions, "{all:?}");
    let stats = server.stats();
    assert_eq!((stats.pages_read, stats.pages_written), (0, 0));
}

/// A page that no other number makes.
fn page(number: u32) -> Vec<u8> {
    let words = (0..PAGE_SIZE as u32 / 4).map(|i| number << 12 | i);
    words.flat_map(u32::to_le_bytes).collect()
}

#[test]
#[ignore = "needs an RDMA device: scripts/test-rdma"]
fn more_requests_than_a_queue_pair_takes_are_all_done() {
    const PAGES: u32 = 512;
    over_rdma();
    let server = MemServer::roomy();
    let (agent, said) = agent();
    let mut stream = agent.dial(server.address()).expect("the server is there");
    greet(&mut stream);
    let grant = Header {
        count: 1,
        ..Header::request(Op::Grant, 2)
    };
    let slab = decode_slab_list(&ask(&mut stream, grant, &[])).expect("a list of slabs")[0];
    let requests = |op: Op| {
        let of = |page| Header {
            slab,
            page,
            count: 1,
            ..Header::request(op, u64::from(page) + 10)
        };
        (0..PAGES).map(of).collect::<Vec<_>>()
    };
    // All of them, before any answer is read.
    let mut all = Vec::new();
    for write in requests(Op::Write) {
        let len = PAGE_SIZE as u32;
        all.extend(Header { len, ..write }.encode());
        all.extend(page(write.page));
    }
    stream.write_all(&all).expect("the agent takes them");
    for _ in 0..PAGES {
        answer(&mut stream, Op::Write);
    }
    let all: Vec<u8> = requests(Op::Read).iter().flat_map(Header::encode).collect();
    stream.write_all(&all).expect("the agent takes them");
    for number in 0..PAGES {
        assert!(
            answer(&mut stream, Op::Read) == page(number),
            "page {number}"
        );
    }
    drop(stream);
    let counts = hear(&said);
    // The queue was as full as it may be.
    assert_eq!(counts.most, 128, "{counts:?}");
    let pages = u64::from(PAGES);
    assert_eq!((counts.reads, counts.read_pages), (pages, pages));
    assert_eq!((counts.writes, counts.written_pages), (pages, pages));
    assert!(counts.signals < pages, "{counts:?}");
    assert_eq!(counts.signals, counts.completions);
    assert_eq!(server.stats().pages_read, 0);
}

#[test]
#[ignore = "needs an RDMA device: scripts/test-rdma"]
fn a_program_whose_many_threads_wait_for_pages_at_once_gets_them() {
    over_rdma();
    let run = c_program("fill", &["48", "random", "64", "1"]);
    let server = MemServer::roomy();
    same(&run, 32 * MIB, &[&server]);
    assert_eq!(server.stats().pages_read, 0);
}
