//! Random requests of several sessions against a model of what they have.

use crate::client::{Asks, Client, page, pages, run, server};
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use tmem_wire::{Op, PAGE_SIZE, Status, encode_slab_list};

const SLABS: usize = 12;
const PAGES: u32 = 64;

#[derive(Clone, Debug)]
enum Step {
    Open,
    Grant(u32),
    Release(u32),
    Write {
        slab: u32,
        page: u32,
        count: u32,
        seed: u64,
    },
    Read {
        slab: u32,
        page: u32,
        count: u32,
    },
    Discard {
        slab: u32,
        page: u32,
        count: u32,
    },
    Share,
    Reconnect,
    Bye,
}

fn step() -> impl Strategy<Value = Step> {
    let at = || (0..8u32, 0..PAGES + 2, 0..20u32);
    prop_oneof![
        1 => Just(Step::Open),
        3 => (0..4u32).prop_map(Step::Grant),
        2 => (0..8u32).prop_map(Step::Release),
        9 => (at(), any::<u32>()).prop_map(|((slab, page, count), seed)| Step::Write {
            slab, page, count: count.max(1), seed: seed.into(),
        }),
        6 => at().prop_map(|(slab, page, count)| Step::Read { slab, page, count }),
        4 => at().prop_map(|(slab, page, count)| Step::Discard { slab, page, count }),
        2 => Just(Step::Share),
        1 => Just(Step::Reconnect),
        1 => Just(Step::Bye),
    ]
}

/// What one session has of a slab; the `Rc` is the memory itself.
#[derive(Clone)]
struct Slab(Rc<()>, Vec<Option<u64>>);

struct Session {
    client: Client,
    slabs: HashMap<u32, Slab>,
}

impl Session {
    /// The status that a request is to have, and its pages in the model.
    fn expect(&mut self, slab: u32, page: u32, count: u32) -> (Status, &mut [Option<u64>]) {
        let Some(Slab(_, pages)) = self.slabs.get_mut(&slab) else {
            return (Status::NoSuchSlab, &mut []);
        };
        if count == 0 {
            return (Status::BadRequest, &mut []);
        }
        let run = page as usize..(page + count) as usize;
        match pages.get_mut(run) {
            Some(pages) => (Status::Ok, pages),
            None => (Status::OutOfRange, &mut []),
        }
    }

    fn check(&mut self, slab: u32, at: u32, count: u32) {
        let (expected, model) = self.expect(slab, at, count);
        let model = model.to_vec();
        let (status, got) = self.client.ask(run(Op::Read, slab, at, count), &[]);
        assert_eq!(status, expected);
        if status == Status::Ok {
            let bytes = model
                .iter()
                .flat_map(|p| p.map_or(vec![0; PAGE_SIZE], page));
            assert!(got == bytes.collect::<Vec<u8>>());
        }
    }
}

fn memories(sessions: &[Session]) -> HashSet<*const ()> {
    let slabs = sessions.iter().flat_map(|s| s.slabs.values());
    slabs.map(|s| Rc::as_ptr(&s.0)).collect()
}

fn stored(sessions: &[Session]) -> usize {
    let slabs = sessions.iter().flat_map(|s| s.slabs.values());
    let pages = slabs.flat_map(|Slab(memory, pages)| {
        let stored = pages.iter().enumerate().filter(|(_, p)| p.is_some());
        stored.map(|(at, _)| (Rc::as_ptr(memory), at))
    });
    pages.collect::<HashSet<_>>().len()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_server_does_what_the_model_does(
        steps in prop::collection::vec((0..4usize, step()), 1..80),
    ) {
        let server = server((SLABS as u64) * u64::from(PAGES));
        let open = || Session { client: Client::new(server.addr()), slabs: HashMap::new() };
        let mut sessions = vec![open()];
        for (who, step) in steps {
            if sessions.is_empty() {
                sessions.push(open());
            }
            let free = SLABS - memories(&sessions).len();
            let who = who % sessions.len();
            let s = &mut sessions[who];
            match step {
                Step::Open => sessions.push(open()),
                Step::Grant(n) => {
                    let (status, body) = s.client.ask(run(Op::Grant, 0, 0, n), &[]);
                    let expected = match (n, free) {
                        (0, _) => Status::BadRequest,
                        (_, 0) => Status::Full,
                        _ => Status::Ok,
                    };
                    prop_assert_eq!(status, expected);
                    if status == Status::Ok {
                        let list = tmem_wire::decode_slab_list(&body).unwrap();
                        prop_assert_eq!(list.len(), free.min(n as usize));
                        for number in list {
                            let slab = Slab(Rc::default(), vec![None; PAGES as usize]);
                            prop_assert!(s.slabs.insert(number, slab).is_none());
                        }
                    }
                }
                Step::Release(slab) => {
                    let had = s.slabs.remove(&slab).is_some();
                    let list = encode_slab_list(&[slab]);
                    let (status, _) = s.client.ask(run(Op::Release, 0, 0, 0), &list);
                    prop_assert_eq!(status == Status::Ok, had);
                }
                Step::Write { slab, page: at, count, seed } => {
                    let shared = s.slabs.get(&slab).is_some_and(|s| Rc::strong_count(&s.0) > 1);
                    let (mut expected, model) = s.expect(slab, at, count);
                    if expected == Status::Ok && shared {
                        expected = Status::Shared;
                    }
                    let seeds = seed..seed + u64::from(count);
                    if expected == Status::Ok {
                        model.iter_mut().zip(seeds.clone()).for_each(|(p, s)| *p = Some(s));
                    }
                    let (status, _) = s.client.ask(run(Op::Write, slab, at, count), &pages(seeds));
                    prop_assert_eq!(status, expected);
                }
                Step::Read { slab, page, count } => s.check(slab, page, count),
                Step::Discard { slab, page, count } => {
                    let (expected, model) = s.expect(slab, page, count);
                    model.fill(None);
                    let (status, _) = s.client.ask(run(Op::Discard, slab, page, count), &[]);
                    prop_assert_eq!(status, expected);
                }
                Step::Share => {
                    let (id, slabs) = (s.client.share(), s.slabs.clone());
                    let client = Client::join(server.addr(), id, 0);
                    sessions.push(Session { client, slabs });
                }
                Step::Reconnect => {
                    s.client.stream.shutdown(std::net::Shutdown::Both).unwrap();
                    s.client = Client::join(server.addr(), s.client.session(), 0);
                }
                Step::Bye => sessions.remove(who).client.bye(),
            }
            let stats = server.stats();
            prop_assert_eq!(stats.granted_pages, (memories(&sessions).len() as u64) * 64);
            prop_assert_eq!(stats.stored_pages, stored(&sessions) as u64);
            prop_assert_eq!(stats.sessions, sessions.len() as u64);
        }
        for s in &mut sessions {
            let slabs: Vec<u32> = s.slabs.keys().copied().collect();
            slabs.iter().for_each(|slab| s.check(*slab, 0, PAGES));
        }
    }
}
