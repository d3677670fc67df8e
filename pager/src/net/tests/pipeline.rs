//! The state machine of one connection against a scripted stream.

use super::super::Lane;
use super::super::conn::Pipeline;
use super::super::reason::Reason;
use super::super::request::{Payload, Request};
use super::super::transport::{Iov, Transport};
use super::{Frames, page};
use proptest::prelude::*;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::vec;
use std::vec::Vec;
use tmem_wire::{DecodeError, HEADER_LEN, Header, Op, PAGE_SIZE, Packer, Status, unpack};

/// Gives `input` and takes output in pieces of the sizes told, then says
/// `EAGAIN` once.
#[derive(Default)]
struct Script {
    input: Vec<u8>,
    taken: usize,
    output: Vec<u8>,
    sizes: Vec<usize>,
    calls: usize,
}

impl Script {
    fn size(&mut self) -> Option<usize> {
        self.calls += 1;
        if self.sizes.is_empty() {
            return Some(usize::MAX);
        }
        let n = self.calls % (2 * self.sizes.len());
        (n % 2 == 1).then(|| self.sizes[n / 2])
    }
}

impl Transport for Script {
    unsafe fn send(&mut self, iov: &[Iov]) -> Result<usize, Errno> {
        assert!(!iov.is_empty() && iov.len() <= 1024);
        let mut room = self.size().ok_or(Errno::AGAIN)?;
        let mut sent = 0;
        for piece in iov {
            let n = piece.len.min(room);
            // SAFETY: as the trait demands of the caller.
            let bytes = unsafe { core::slice::from_raw_parts(piece.base as *const u8, n) };
            self.output.extend_from_slice(bytes);
            room -= n;
            sent += n;
        }
        Ok(sent)
    }

    unsafe fn recv(&mut self, iov: &mut [Iov]) -> Result<usize, Errno> {
        let mut room = self
            .size()
            .ok_or(Errno::AGAIN)?
            .min(self.input.len() - self.taken);
        if room == 0 {
            return Err(Errno::AGAIN);
        }
        let mut got = 0;
        for piece in iov {
            let n = piece.len.min(room);
            let from = self.input[self.taken..].as_ptr();
            // SAFETY: as the trait demands of the caller.
            unsafe { core::ptr::copy_nonoverlapping(from, piece.base as *mut u8, n) };
            self.taken += n;
            room -= n;
            got += n;
        }
        Ok(got)
    }
}

fn send_all(pipe: &mut Pipeline, script: &mut Script) {
    while pipe.unsent() {
        pipe.send(script, 1 << 20).unwrap();
    }
}

/// Operation, status and body by token.
type Answered = BTreeMap<u64, (Op, Status, Vec<u8>)>;

/// Receives everything; the answers by token.
fn receive_all(pipe: &mut Pipeline, script: &mut Script) -> Result<Answered, Reason> {
    let mut answers = BTreeMap::new();
    while script.taken < script.input.len() {
        pipe.receive(script, 1 << 20, |r, status, body| {
            assert!(
                answers
                    .insert(r.token, (r.op, status, body.to_vec()))
                    .is_none()
            );
            Ok(())
        })?;
    }
    Ok(answers)
}

fn sent(bytes: &[u8]) -> Vec<(Header, Vec<u8>)> {
    let (mut rest, mut out) = (bytes, vec![]);
    while let Some((head, tail)) = rest.split_first_chunk::<HEADER_LEN>() {
        let header = Header::decode(head).unwrap();
        let (body, tail) = tail.split_at(header.len as usize);
        out.push((header, body.to_vec()));
        rest = tail;
    }
    assert!(rest.is_empty());
    out
}

fn discard(token: u64, page: u32, count: u32) -> Request {
    Request {
        token,
        page,
        count,
        ..Request::new(Op::Discard)
    }
}

fn packed(pages: &[u8]) -> Option<Vec<u8>> {
    let pages = pages.as_chunks::<PAGE_SIZE>().0;
    let mut packer = Packer::new(pages.len());
    pages.iter().all(|page| packer.add(page)).then_some(())?;
    packer.finish()
}

fn unpacked(bytes: &[u8], count: u32) -> Vec<u8> {
    let mut pages = vec![];
    unpack(bytes, count as usize, |_, page| {
        pages.extend_from_slice(page);
    })
    .unwrap();
    pages
}

/// What a test asks for: a READ or WRITE of frames in this order, a DISCARD, or
/// a GRANT.
#[derive(Clone, Debug)]
enum Ask {
    Read(Vec<usize>),
    Write(Vec<usize>),
    Discard(u32),
    Grant(u32),
}

fn ask() -> impl Strategy<Value = Ask> {
    let order = prop_oneof![
        Just((0..1).collect()),
        (1..9usize).prop_map(|n| (0..n).collect()),
        Just((0..6usize).collect::<Vec<_>>()).prop_shuffle(),
    ];
    (order, 0..6u8, 1..9u32).prop_map(|(order, kind, n)| match kind {
        0 => Ask::Discard(n),
        1 => Ask::Grant(n),
        2 | 3 => Ask::Write(order),
        _ => Ask::Read(order),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever the sizes of the pieces that a stream is cut into, and whatever
    /// the order of the answers, packed or not: requests go out whole and in order,
    /// each is answered once, and every page ends in its frame.
    #[test]
    fn any_cutting_and_any_order_of_answers_gives_the_same(
        asks in prop::collection::vec(ask(), 1..20),
        order in any::<prop::sample::Index>(),
        sizes in prop::collection::vec(prop_oneof![
            1..40usize, 4000..4200usize, 1..9000usize, Just(usize::MAX),
        ], 1..12),
        errors in 0..4u8,
        packs: bool,
    ) {
        let mut frames = Frames::new(asks.len() * 10);
        let mut pipe = Pipeline::new();
        for (i, ask) in asks.iter().enumerate() {
            let mut addresses = |order: &[usize]| -> Vec<usize> {
                order.iter().map(|f| frames.address(i * 10 + f)).collect()
            };
            let with = |op, frames: &[usize]| Request {
                token: i as u64, slab: 3, count: frames.len() as u32,
                payload: Payload::frames(frames), ..Request::new(op)
            };
            let mut request = match ask {
                Ask::Read(order) => with(Op::Read, &addresses(order)),
                Ask::Write(order) => {
                    let list = addresses(order);
                    for f in order {
                        frames.set(i * 10 + f, (i * 10 + f) as u64);
                    }
                    with(Op::Write, &list)
                }
                Ask::Discard(n) => discard(i as u64, 0, *n),
                Ask::Grant(n) => Request { token: i as u64, count: *n, ..Request::new(Op::Grant) },
            };
            if packs {
                // SAFETY: the frames can be read.
                unsafe { request.pack() };
            }
            pipe.push(request);
        }
        let mut script = Script { sizes, ..Script::default() };
        send_all(&mut pipe, &mut script);
        let got = sent(&script.output);
        prop_assert_eq!(got.len(), asks.len());
        let mut replies = vec![];
        for (i, (ask, (header, body))) in asks.iter().zip(&got).enumerate() {
            let fails = errors > 0 && i % usize::from(errors) == 1;
            let mut answer = vec![];
            match ask {
                Ask::Write(order) => {
                    let want: Vec<u8> =
                        order.iter().flat_map(|f| page((i * 10 + f) as u64)).collect();
                    prop_assert_eq!(header.packed, packs);
                    let plain = if packs { unpacked(body, header.count) } else { body.clone() };
                    prop_assert_eq!(plain, want);
                }
                Ask::Read(order) => {
                    prop_assert!(body.is_empty());
                    prop_assert_eq!(header.packed, packs);
                    answer = order.iter().flat_map(|f| page((i * 10 + f) as u64)).collect();
                }
                Ask::Grant(n) => answer = vec![5; *n as usize * 4],
                Ask::Discard(_) => {}
            }
            let status = if fails { Status::NoSuchSlab } else { Status::Ok };
            if fails {
                answer = b"no such slab here".to_vec();
            }
            let is_packed = header.packed && header.op == Op::Read && !fails && i % 3 > 0;
            if is_packed {
                answer = packed(&answer).unwrap();
            }
            let reply = header.reply(status, answer.len() as u32);
            let mut bytes = Header { packed: is_packed, ..reply }.encode().to_vec();
            bytes.extend(answer);
            replies.push(bytes);
        }
        // Some other order than that of the requests.
        let turn = order.index(replies.len());
        replies.rotate_left(turn);
        if turn % 2 == 1 {
            replies.reverse();
        }
        script.input = replies.concat();
        let answers = receive_all(&mut pipe, &mut script).unwrap();
        prop_assert_eq!(answers.len(), asks.len());
        prop_assert!(!pipe.waiting());
        for (i, ask) in asks.iter().enumerate() {
            let (_, status, body) = &answers[&(i as u64)];
            match (ask, status) {
                (Ask::Read(order), Status::Ok) => for f in order {
                    prop_assert_eq!(frames.page(i * 10 + f), &page((i * 10 + f) as u64)[..]);
                },
                (Ask::Grant(n), Status::Ok) => prop_assert_eq!(body.len(), *n as usize * 4),
                (_, Status::Ok) => prop_assert!(body.is_empty()),
                (_, _) => prop_assert_eq!(&body[..], b"no such slab here"),
            }
        }
    }

    /// Bytes of any kind give answers or an error, never a panic, and nothing
    /// outside the frames is written.
    #[test]
    fn any_bytes_received_are_survived(
        noise in prop::collection::vec(any::<u8>(), 0..200),
        damage in prop::collection::vec((0..400usize, any::<u8>()), 0..6),
        sizes in prop::collection::vec(1..200usize, 1..5),
        packs: bool,
    ) {
        let mut frames = Frames::new(4);
        let mut pipe = Pipeline::new();
        let list: Vec<usize> = [1, 2].map(|f| frames.address(f)).to_vec();
        for token in 0..4 {
            let payload = Payload::frames(&list);
            pipe.push(Request { token, count: 2, packed: packs, payload, ..Request::new(Op::Read) });
            pipe.push(Request { token: token + 10, count: 2, ..Request::new(Op::Grant) });
        }
        let mut script = Script::default();
        send_all(&mut pipe, &mut script);
        let mut input = vec![];
        for (header, _) in sent(&script.output) {
            let mut body = vec![1; if header.op == Op::Read { 2 * PAGE_SIZE } else { 8 }];
            if header.packed {
                body = packed(&body).unwrap();
            }
            let reply = header.reply(Status::Ok, body.len() as u32);
            input.extend(Header { packed: header.packed, ..reply }.encode());
            input.extend(body);
        }
        for (at, byte) in damage {
            let at = at % input.len();
            input[at] = byte;
        }
        input.extend(noise);
        script = Script { input, sizes, ..Script::default() };
        let _ = receive_all(&mut pipe, &mut script);
        prop_assert!(frames.page(0).iter().chain(frames.page(3)).all(|b| *b == 0xee));
    }
}

/// A pipeline with one READ of one page sent under the name 1.
fn one_read(frames: &mut Frames) -> Pipeline {
    let mut pipe = Pipeline::new();
    let payload = Payload::frames(&[frames.address(0)]);
    pipe.push(Request {
        token: 1,
        count: 1,
        payload,
        lane: Lane::Demand,
        ..Request::new(Op::Read)
    });
    send_all(&mut pipe, &mut Script::default());
    pipe
}

#[test]
fn replies_that_answer_nothing_asked_are_named() {
    let ask = Header {
        count: 1,
        ..Header::request(Op::Read, 1)
    };
    let page_reply = ask.reply(Status::Ok, PAGE_SIZE as u32);
    for (reply, error) in [
        (
            Header {
                id: 2,
                ..page_reply
            },
            Reason::Unexpected("an answer to no request"),
        ),
        (
            Header {
                id: 0,
                ..page_reply
            },
            Reason::Unexpected("an answer to no request"),
        ),
        (
            Header {
                count: 2,
                len: 2 * PAGE_SIZE as u32,
                ..page_reply
            },
            Reason::Unexpected("another number of pages than was asked for"),
        ),
        (
            Header {
                op: Op::Ping,
                len: 0,
                ..page_reply
            },
            Reason::Unexpected("an answer to another operation than was asked for"),
        ),
        (
            Header {
                reply: false,
                len: 0,
                ..page_reply
            },
            Reason::Unexpected("a request where a reply was due"),
        ),
        (
            Header {
                count: 9999,
                len: 0,
                ..page_reply
            },
            Reason::Protocol(DecodeError::RunLength(9999)),
        ),
    ] {
        let mut frames = Frames::new(1);
        let mut pipe = one_read(&mut frames);
        let mut script = Script {
            input: reply.encode().to_vec(),
            ..Script::default()
        };
        assert_eq!(receive_all(&mut pipe, &mut script), Err(error), "{reply:?}");
    }
}

#[test]
fn an_answer_given_twice_is_refused() {
    let mut frames = Frames::new(1);
    let mut pipe = one_read(&mut frames);
    pipe.push(discard(2, 0, 1));
    send_all(&mut pipe, &mut Script::default());
    let reply = Header::request(Op::Discard, 2)
        .reply(Status::Ok, 0)
        .encode();
    let mut script = Script {
        input: [reply, reply].concat(),
        ..Script::default()
    };
    let error = Reason::Unexpected("an answer to no request");
    assert_eq!(receive_all(&mut pipe, &mut script), Err(error));
}

#[test]
fn a_run_of_frames_is_one_piece_however_long() {
    let mut frames = Frames::new(512);
    let list: Vec<usize> = (0..512).map(|i| frames.address(i)).collect();
    assert_eq!(Payload::frames(&list).pieces(), 1);
    let backward: Vec<usize> = list.iter().rev().copied().collect();
    assert_eq!(Payload::frames(&backward).pieces(), 512);
    assert_eq!(Payload::frames(&backward).len(), 512 * PAGE_SIZE);
}

#[test]
fn what_a_later_answer_proves_done_is_not_done_again() {
    let mut frames = Frames::new(1);
    let mut write = |token, slab, page| Request {
        token,
        slab,
        page,
        count: 1,
        payload: Payload::frames(&[frames.address(0)]),
        ..Request::new(Op::Write)
    };
    let mut pipe = Pipeline::new();
    pipe.push(write(1, 0, 8));
    pipe.push(write(2, 0, 4));
    pipe.push(discard(3, 0, 9));
    pipe.push(write(4, 1, 4));
    pipe.push(write(5, 0, 4));
    pipe.push(discard(6, 0, 9));
    send_all(&mut pipe, &mut Script::default());
    // Only the last write is answered: before it came the discard, and before
    // that the writes of all that it covers. The last discard may not be done.
    let input = Header::request(Op::Write, 5)
        .reply(Status::Ok, 0)
        .encode()
        .to_vec();
    receive_all(
        &mut pipe,
        &mut Script {
            input,
            ..Script::default()
        },
    )
    .unwrap();
    let mut proved = vec![];
    pipe.restart(|r, status, _| {
        assert_eq!(status, Status::Ok);
        proved.push(r.token);
        Ok(())
    })
    .unwrap();
    assert_eq!(proved, [1, 2, 3]);
    let mut script = Script::default();
    send_all(&mut pipe, &mut script);
    let again: Vec<_> = sent(&script.output)
        .iter()
        .map(|(h, _)| (h.op, h.slab))
        .collect();
    assert_eq!(again, [(Op::Write, 1), (Op::Discard, 0)]);
}

proptest! {
    /// Wherever the first connection ends, in a request or in an answer: on
    /// the second everything not answered goes out whole and in order, and is
    /// answered.
    #[test]
    fn a_second_connection_begins_with_whole_messages(
        sent_of_it in 0..9000usize, received in 0..9000usize,
    ) {
        let mut frames = Frames::new(4);
        let mut pipe = Pipeline::new();
        frames.set(3, 33);
        for token in 0..3 {
            let payload = Payload::frames(&[frames.address(token)]);
            pipe.push(Request { token: token as u64, count: 1, payload, ..Request::new(Op::Read) });
        }
        let payload = Payload::frames(&[frames.address(3)]);
        pipe.push(Request { token: 3, count: 1, payload, ..Request::new(Op::Write) });
        let mut script = Script { sizes: vec![sent_of_it.max(1)], ..Script::default() };
        pipe.send(&mut script, 1 << 20).unwrap();
        let replies = |headers: &[Header]| -> Vec<u8> {
            headers.iter().flat_map(|h| match h.op {
                Op::Read => {
                    let head = h.reply(Status::Ok, PAGE_SIZE as u32).encode();
                    [&head[..], &page(h.id)].concat()
                }
                _ => h.reply(Status::Ok, 0).encode().to_vec(),
            }).collect()
        };
        let whole = script.output.len() / HEADER_LEN;
        let first: Vec<Header> = (0..whole.min(3))
            .map(|i| Header { count: 1, ..Header::request(Op::Read, 1 + i as u64) }).collect();
        let mut input = replies(&first);
        input.truncate(received);
        let early = receive_all(&mut pipe, &mut Script { input, ..Script::default() }).unwrap();
        pipe.restart(|_, _, _| Ok(())).unwrap();
        let mut script = Script::default();
        send_all(&mut pipe, &mut script);
        let again = sent(&script.output);
        prop_assert_eq!(again.len(), 4 - early.len());
        let written = page(33);
        prop_assert_eq!(&again.last().unwrap().1, &written);
        let headers: Vec<Header> = again.iter().map(|(h, _)| *h).collect();
        let input = replies(&headers);
        let late = receive_all(&mut pipe, &mut Script { input, ..Script::default() }).unwrap();
        prop_assert_eq!(early.len() + late.len(), 4);
        for (header, token) in headers.iter().zip(early.len()..3) {
            prop_assert_eq!(frames.page(token), &page(header.id)[..]);
        }
    }
}
