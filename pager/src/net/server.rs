//! One memory server: a session, and the connections that carry it.

use super::conn::Packed;
use super::link::{Link, Phase};
use super::packing::Learner;
use super::reason::{Reason, RequestError};
use super::request::Request;
use super::retry::Retries;
use super::second::Second;
use super::transport::{Iov, Network, Ready, Stream};
use super::{Completion, Endpoint, Lane, Options};
use crate::ServerId;
use crate::When;
use crate::sys::wait::Interest;
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use tmem_policy::placement::{Rate, Speed, Wait};
use tmem_policy::replica::Tail;
use tmem_wire::{
    BYE_ID, FEATURE_LEAVE, FEATURE_LZ4, Header, HelloReply, NOTICE_DRAIN, NOTICE_GIVE_BACK, Op,
    PAGE_SIZE, SessionId, Status, decode_slab_list,
};

/// That a server is away is told this often.
const TELL_AWAY_NS: u64 = 60_000_000_000;

/// A server and what is known of it.
#[derive(Debug)]
pub(super) struct Server {
    id: ServerId,
    pub(super) endpoint: Endpoint,
    state: State,
    session: Option<HelloReply>,
    /// The first, which is always there, and the second.
    links: [Link; 2],
    second: Second,
    /// The second may be opened.
    pub(super) may_open: bool,
    /// Of each lane.
    load: [Load; 2],
    /// Connections that were made again.
    reconnects: u64,
    /// The session was resumed and has not been joined yet.
    resuming: bool,
    packing: Learner,
    /// That it takes its time to greet was told once.
    told_silent: bool,
    /// That it has no place was told once.
    told_full: bool,
    wait: Wait,
    tail: Tail,
    rate: Rate,
    retries: Retries,
    /// What it has nobody else has: it is waited for.
    is_waited_for: bool,
    /// When it was told last that it is away.
    told_away_ns: Option<u64>,
    /// The program is about to end.
    leaving: bool,
    /// The server was told so since anything else was asked.
    said_leave: bool,
}

/// Requests that are not answered.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Load {
    pub(super) requests: usize,
    /// Page bytes that they move.
    pub(super) bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Down,
    /// Connecting for the first time, or anew after a loss.
    Opening,
    /// Has a session, though its connections may be broken for a moment.
    Up,
}

impl Server {
    pub(super) fn new(
        id: ServerId,
        endpoint: Endpoint,
        packing: When,
        network: &Rc<dyn Network>,
    ) -> Server {
        Server {
            id,
            endpoint,
            state: State::Down,
            session: None,
            links: [1, 2].map(|lane| Link::new(network.clone(), lane)),
            second: Second::default(),
            may_open: true,
            load: [Load::default(); 2],
            reconnects: 0,
            resuming: false,
            packing: Learner::new(packing),
            told_silent: false,
            told_full: false,
            wait: Wait::default(),
            tail: Tail::default(),
            rate: Rate::default(),
            retries: Retries::default(),
            is_waited_for: false,
            told_away_ns: None,
            leaving: false,
            said_leave: false,
        }
    }

    /// Whether the second connection carries the bulk lane.
    #[cfg(test)]
    pub(super) fn has_both(&self) -> bool {
        matches!(self.second, Second::Carries { .. }) && self.links[1].is_ready()
    }

    /// Connections that broke and were made again.
    pub(super) fn reconnects(&self) -> u64 {
        self.reconnects
    }

    pub(super) fn is_up(&self) -> bool {
        self.state == State::Up
    }

    /// Whether it is waited for when it is away.
    pub(super) fn set_waited_for(&mut self, is: bool) {
        self.is_waited_for = is;
    }

    /// Whether it is away, and waited for.
    pub(super) fn is_away(&self) -> bool {
        self.told_away_ns.is_some()
    }

    /// Tells once a minute that the server is away, and is waited for all the same.
    fn tell_away(&mut self, now: u64, options: &Options, out: &mut Vec<Completion>) {
        let is_connected = self.links.iter().any(Link::is_ready);
        let away = self.links.iter().filter_map(|l| l.away_ms(now, options));
        let Some((ms, reason)) = away.max_by_key(|a| a.0).filter(|_| !is_connected) else {
            self.told_away_ns = None;
            return;
        };
        if self
            .told_away_ns
            .is_none_or(|then| now >= then + TELL_AWAY_NS)
        {
            self.told_away_ns = Some(now);
            let server = self.id;
            out.push(Completion::Away { server, ms, reason });
        }
    }

    /// For how many nanoseconds it has answered nothing that is waited for, over any
    /// connection.
    pub(super) fn silent_ns(&self, now: u64) -> u64 {
        let since = self.links.iter().filter_map(Link::silent_since).max();
        since.map_or(0, |since| now.saturating_sub(since))
    }

    /// Whether it has a connection, or none and wants none.
    pub(super) fn is_settled(&self) -> bool {
        match self.state {
            State::Down => true,
            State::Up => self.links[0].is_ready(),
            State::Opening => false,
        }
    }

    pub(super) fn is_down(&self) -> bool {
        self.state == State::Down
    }

    /// Begins to connect unless there is a session or an attempt.
    pub(super) fn connect(&mut self, now: u64) {
        if self.state == State::Down {
            self.state = State::Opening;
            self.links[0].begin(now);
        }
    }

    /// The session, if there is one.
    pub(super) fn session(&self) -> Option<&HelloReply> {
        self.session.as_ref()
    }

    /// Has a session from now on, and connects to join it.
    pub(super) fn resume(&mut self, session: HelloReply, now: u64) {
        self.session = Some(session);
        self.state = State::Up;
        self.resuming = true;
        self.links[0].begin(now);
    }

    /// Begins to connect for another process; and the address, by its place in the list.
    pub(super) fn dial(&self, options: &Options) -> Option<(Box<dyn Stream>, usize)> {
        let link = &self.links[0];
        let (sock, _) = link.dial(&self.endpoint, options.stall_ms).ok()?;
        Some((sock, link.addr))
    }

    /// Joins the session by what another process has dialled.
    pub(super) fn resume_by(&mut self, sock: Box<dyn Stream>, addr: usize, now: u64) {
        self.links[0].addr = addr;
        self.links[0].dialled(sock, &self.endpoint, now);
    }

    pub(super) fn is_resuming(&self) -> bool {
        self.resuming
    }

    /// So long there was nothing else to do than to wait for servers.
    pub(super) fn waited(&mut self, ns: u64) {
        self.packing.waited(ns);
    }

    /// A thread waited so long for a page of this server.
    pub(super) fn waited_for(&mut self, ns: u64) {
        self.wait.add(ns);
        self.tail.add(ns);
    }

    /// After how many nanoseconds an answer is late.
    pub(super) fn late_ns(&self) -> u64 {
        self.tail.late_ns()
    }

    /// What it takes, as measured.
    pub(super) fn speed(&self) -> Speed {
        Speed {
            wait_ns: self.wait.ns(),
            page_ns: self.rate.page_ns(),
        }
    }

    /// Whether pages that are asked for or sent now are to be packed.
    pub(super) fn packs(&self) -> bool {
        self.packing.is_packed()
    }

    /// Tells the server that the program is about to end, where it can be told.
    pub(super) fn leave(&mut self) {
        self.leaving = true;
        self.say_leave();
    }

    /// Whether the server knows that the program is about to end, or cannot be told.
    pub(super) fn has_left(&self) -> bool {
        let is_idle = self.load.iter().all(|load| load.requests == 0);
        !self.is_up() || !self.hears_leave() || self.said_leave && is_idle
    }

    fn hears_leave(&self) -> bool {
        let session = self.session.as_ref();
        session.is_some_and(|s| s.features & FEATURE_LEAVE != 0)
    }

    /// Says LEAVE over each connection, behind everything else.
    fn say_leave(&mut self) {
        if !self.is_up() || !self.hears_leave() || core::mem::replace(&mut self.said_leave, true) {
            return;
        }
        for lane in [Lane::Demand, Lane::Bulk] {
            if self.links[lane as usize].is_ready() {
                self.load[lane as usize].requests += 1;
                let request = Request {
                    lane,
                    ..Request::new(Op::Leave)
                };
                self.links[lane as usize].pipe.push(request);
            }
        }
    }

    /// Queues a request. The server must be up.
    pub(super) fn push(&mut self, request: Request) {
        let link = self.link_of(request.lane);
        if core::mem::take(&mut self.said_leave) && self.endpoint.agent.is_some() {
            // The server does not see what its device does by itself.
            self.load[Lane::Bulk as usize].requests += 1;
            self.links[link].pipe.push(Request::new(Op::Ping));
        }
        let load = &mut self.load[request.lane as usize];
        load.requests += 1;
        load.bytes += request.page_bytes();
        self.links[link].pipe.push(request);
    }

    /// The link that requests of `lane` go to now.
    fn link_of(&self, lane: Lane) -> usize {
        match lane {
            Lane::Demand => 0,
            Lane::Bulk => usize::from(self.second.takes_bulk()),
        }
    }

    /// Makes the connection that carries `lane` anew, if there is one.
    pub(super) fn renew(&mut self, lane: Lane, now: u64) {
        let link = self.link_of(lane);
        self.links[link].renew(now, Reason::Unexpected("spoilt answers"));
    }

    /// What travelled packed.
    pub(super) fn packed(&self) -> Packed {
        let mut sum = Packed::default();
        self.links.iter().for_each(|l| sum.add(l.pipe.packed()));
        sum
    }

    /// Requests of `lane` that are not answered.
    pub(super) fn load(&self, lane: Lane) -> Load {
        self.load[lane as usize]
    }

    pub(super) fn interests(&self, out: &mut Vec<Interest>) {
        let socks = self.links.iter().filter_map(Link::sock);
        out.extend(socks.map(|(sock, write)| sock.interest(write)));
    }

    pub(super) fn next_timer(&self, options: &Options) -> Option<u64> {
        let links = self.links.iter().filter_map(|l| l.next_timer(options));
        let second = self.second.due().filter(|_| !self.leaving);
        links.chain(self.retries.due()).chain(second).min()
    }

    /// Begins and ends attempts of one link, and sends what is queued.
    pub(super) fn prepare(
        &mut self,
        link: usize,
        now: u64,
        options: &Options,
        out: &mut Vec<Completion>,
    ) {
        self.links[link].joins = self.resuming;
        self.links[link].waits_ms = options.wait_ms.filter(|_| self.is_waited_for);
        self.tell_away(now, options, out);
        for request in self.retries.take_due(now) {
            self.push(request);
        }
        if self.leaving && self.load.iter().all(|load| load.requests == 0) {
            self.say_leave();
        }
        if let Some(reason) = self.links[link].overdue(now, options) {
            self.give_up(link, reason, now, out);
        }
        match link {
            0 => self.tell_of_no_place(now, options, out),
            _ => {
                self.follow_load(now);
                self.begin_bulk(now, options, out);
            }
        }
        let is_writing = self.load[Lane::Bulk as usize].bytes > 0;
        self.rate.begin(now, is_writing);
        let l = &mut self.links[link];
        if let Some(ms) = l.falls_silent(now)
            && (link == 0 || !self.second.is_new())
            && !core::mem::replace(&mut self.told_silent, true)
        {
            out.push(Completion::Silent {
                server: self.id,
                ms,
                until_ms: options.stall_ms,
            });
        }
        let result = l
            .attempt(now, &self.endpoint, options.stall_ms)
            .and_then(|()| l.flush());
        if let Err(reason) = result {
            self.failed(link, reason, now, options, out);
        }
    }

    /// The stream of one link, and whether something waits to be sent.
    pub(super) fn sock(&self, link: usize) -> Option<(&dyn Stream, bool)> {
        self.links[link].sock()
    }

    /// Does what one link is ready for.
    pub(super) fn drive(
        &mut self,
        link: usize,
        ready: Ready,
        now: u64,
        options: &Options,
        out: &mut Vec<Completion>,
    ) {
        let id = self.id;
        if ready.read || ready.write {
            match self.links[link].greet(ready, self.session.as_ref(), now, options) {
                Ok(Some(reply)) => {
                    self.greeted(link, reply, out);
                    return self.begin_bulk(now, options, out);
                }
                Ok(None) => {}
                Err(reason) => return self.failed(link, reason, now, options, out),
            }
        }
        let before = self.pages_under_way();
        let writing = self.load(Lane::Bulk).bytes;
        let (l, load) = (&mut self.links[link], &mut self.load);
        let retries = &mut self.retries;
        let result = l
            .transfer(ready, now, |request, status, body| {
                if let Some(again) = Retries::of(request, status) {
                    load[request.lane as usize].requests -= 1;
                    retries.add(again, now);
                    return Ok(());
                }
                answer(id, load, request, status, body, out)
            })
            .and_then(|()| l.check(now, options.stall_ms));
        let notices = l.pipe.take_notices();
        for (notice, completion) in [
            (NOTICE_DRAIN, Completion::Drains { server: id }),
            (NOTICE_GIVE_BACK, Completion::WantsBack { server: id }),
        ] {
            if notices & (1 << notice) != 0 {
                out.push(completion);
            }
        }
        let left = self.pages_under_way();
        self.packing.look(now, (before - left) as u64, left);
        let to_write = self.load(Lane::Bulk).bytes;
        let written = (writing - to_write) / PAGE_SIZE;
        self.rate.add(now, written as u64, to_write > 0);
        match result {
            Err(reason) => self.failed(link, reason, now, options, out),
            Ok(()) => self.begin_bulk(now, options, out),
        }
    }

    fn pages_under_way(&self) -> usize {
        self.load.iter().map(|l| l.bytes).sum::<usize>() / PAGE_SIZE
    }

    /// A connection is greeted by its server.
    fn greeted(&mut self, link: usize, reply: HelloReply, out: &mut Vec<Completion>) {
        // Over RDMA pages travel by themselves.
        let able = reply.features & FEATURE_LZ4 != 0 && self.endpoint.agent.is_none();
        self.packing.greeted(able);
        let Some(known) = &self.session else {
            self.session = Some(reply);
            return self.up(out);
        };
        if known.instance != reply.instance {
            return self.lost(Reason::Restarted, out);
        }
        if known.session != reply.session || known.slab_pages != reply.slab_pages {
            let reason = Reason::Unexpected("another session than was asked for");
            return self.lost(reason, out);
        }
        self.said_leave = false;
        if link == 1 && self.second == Second::Opening {
            self.second = Second::Waiting;
            self.links[1].is_held = true;
        } else {
            let resumed = link == 0 && core::mem::take(&mut self.resuming);
            self.reconnects += u64::from(!resumed);
        }
        if let Err(reason) = self.restart(link, out) {
            self.lost(reason, out);
        }
    }

    /// What one link has not been answered is to be sent again.
    fn restart(&mut self, link: usize, out: &mut Vec<Completion>) -> Result<(), Reason> {
        let (id, load) = (self.id, &mut self.load);
        self.links[link]
            .pipe
            .restart(|request, status, body| answer(id, load, request, status, body, out))
    }

    fn up(&mut self, out: &mut Vec<Completion>) {
        self.state = State::Up;
        if let Some(session) = &self.session {
            out.push(Completion::Up {
                server: self.id,
                slab_pages: session.slab_pages,
                capacity_pages: session.capacity_pages,
                free_pages: session.free_pages,
            });
        }
    }

    /// A connection broke, or an attempt to have one failed.
    fn failed(
        &mut self,
        link: usize,
        reason: Reason,
        now: u64,
        options: &Options,
        out: &mut Vec<Completion>,
    ) {
        let l = &mut self.links[link];
        if self.state == State::Opening {
            let more = l.attempts + 1 < self.endpoint.addrs.len();
            if reason.is_transient() && more {
                return l.again(now);
            }
            if !reason.is_busy() {
                return self.lost(reason, out);
            }
            l.broke(now, reason);
            if let Some(reason) = l.overdue(now, options) {
                self.lost(reason, out);
            }
            return;
        }
        if link == 1 && self.second.is_new() && !reason.ends_session() {
            return self.fold(now, out);
        }
        let hangs = matches!(reason, Reason::Stalled(_)) && self.links[link].waits_ms.is_some();
        if reason.is_final() && !hangs {
            return self.lost(reason, out);
        }
        if reason.is_limit() && (link == 1 || self.has_second()) {
            // One connection is enough, and leaves a place to another process.
            return self.give_up(link, reason, now, out);
        }
        let l = &mut self.links[link];
        l.broke(now, reason);
        if let Some(reason) = l.overdue(now, options) {
            self.give_up(link, reason, now, out);
        }
    }

    /// Whether the second connection could carry what the first does.
    fn has_second(&self) -> bool {
        self.second.takes_bulk() && self.links[1].is_ready()
    }

    /// A connection could not be had again in time.
    fn give_up(&mut self, link: usize, reason: Reason, now: u64, out: &mut Vec<Completion>) {
        if link == 1 {
            return self.fold(now, out);
        }
        if !self.has_second() {
            return self.lost(reason, out);
        }
        if self.second == Second::Waiting {
            // Behind what the first carries of the bulk lane.
            let [first, second] = &mut self.links;
            second.pipe.drain().for_each(|r| first.pipe.push(r));
        }
        self.links.swap(0, 1);
        self.links[0].is_held = false;
        self.fold(now, out);
    }

    /// The first connection goes on alone. What changes pages is all on one of the two, so
    /// its order stays.
    fn fold(&mut self, now: u64, out: &mut Vec<Completion>) {
        self.links[1].end();
        self.second.give_up(now);
        if let Err(reason) = self.restart(1, out) {
            return self.lost(reason, out);
        }
        let [first, second] = &mut self.links;
        second.pipe.drain().for_each(|r| first.pipe.push(r));
    }

    /// Opens the second connection when pages are to move in bulk, and gives it up when it has
    /// had nothing to do for a while.
    fn follow_load(&mut self, now: u64) {
        let load = self.load[Lane::Bulk as usize];
        let is_due = self.second.note(load.requests > 0, now);
        if self.leaving || !self.is_up() {
            return;
        }
        if is_due && !self.links[1].pipe.waiting() {
            self.links[1].end();
            self.second = Second::default();
        }
        if self.may_open && load.bytes > 0 && self.links[0].is_ready() && self.second.may_open(now)
        {
            self.second = Second::Opening;
            self.links[1].begin(now);
            self.links[1].addr = self.links[0].addr;
        }
    }

    /// Has the second connection carry the bulk lane, once the first has no more of it.
    fn begin_bulk(&mut self, now: u64, options: &Options, out: &mut Vec<Completion>) {
        if self.second != Second::Waiting || self.links[0].pipe.has(Lane::Bulk) {
            return;
        }
        self.second = Second::Carries { idle_since: None };
        self.links[1].is_held = false;
        if let Err(reason) = self.links[1].flush() {
            self.failed(1, reason, now, options, out);
        }
    }

    /// Tells, once, that a session waits for a place of the server's.
    fn tell_of_no_place(&mut self, now: u64, options: &Options, out: &mut Vec<Completion>) {
        if let Some((reason, until_ms)) = self.links[0].waits_for_place(now, options)
            && self.is_up()
            && !core::mem::replace(&mut self.told_full, true)
        {
            out.push(Completion::NoPlace {
                server: self.id,
                reason,
                until_ms,
            });
        }
    }

    /// The server is given up, with everything asked of it.
    pub(super) fn lost(&mut self, reason: Reason, out: &mut Vec<Completion>) {
        (self.resuming, self.second) = (false, Second::default());
        for link in &mut self.links {
            link.end();
            out.extend(
                link.pipe
                    .drain()
                    .filter_map(|r| failure(self.id, &r, RequestError::Lost)),
            );
        }
        out.extend(
            self.retries
                .drain()
                .filter_map(|r| failure(self.id, &r, RequestError::Lost)),
        );
        self.session = None;
        self.load = [Load::default(); 2];
        (self.wait, self.rate) = (Wait::default(), Rate::default());
        self.tail = Tail::default();
        self.told_away_ns = None;
        let server = self.id;
        out.push(match core::mem::replace(&mut self.state, State::Down) {
            State::Up => Completion::Lost { server, reason },
            _ => Completion::Refused { server, reason },
        });
    }

    /// Ends the session, as far as that can be said without waiting.
    pub(super) fn bye(&mut self) {
        let bye = Header::request(Op::Bye, BYE_ID).encode();
        let piece = Iov {
            base: bye.as_ptr() as usize,
            len: bye.len(),
        };
        for link in &mut self.links {
            if let Phase::Ready(sock) = &mut link.phase
                && !link.pipe.amid_request()
            {
                // SAFETY: the piece is `bye`. A failure leaves it to the
                // server to notice that the connection is gone.
                let _ = unsafe { sock.send(&[piece]) };
            }
            link.end();
            link.pipe.drain().for_each(drop);
        }
        self.retries = Retries::default();
        self.second = Second::default();
        self.session = None;
        self.load = [Load::default(); 2];
        self.state = State::Down;
    }
}

const NO_SESSION: Reason = Reason::Unexpected("no session in the answer to SHARE");

/// What the caller hears of a request that was not done.
pub(super) fn failure(
    server: ServerId,
    request: &Request,
    error: RequestError,
) -> Option<Completion> {
    let token = request.token;
    match request.op {
        Op::Read => Some(Completion::Read {
            token,
            result: Err(error),
        }),
        Op::Write => Some(Completion::WriteFailed {
            token,
            server,
            error,
        }),
        Op::Grant => Some(Completion::GrantRefused { server, error }),
        Op::Share => Some(Completion::Shared {
            server,
            result: Err(error),
        }),
        _ => None,
    }
}

/// Takes an answer to a request; an error is one of the whole server.
fn answer(
    server: ServerId,
    load: &mut [Load; 2],
    request: &Request,
    status: Status,
    body: &[u8],
    out: &mut Vec<Completion>,
) -> Result<(), Reason> {
    let token = request.token;
    let load = &mut load[request.lane as usize];
    load.requests -= 1;
    load.bytes -= request.page_bytes();
    match (request.op, status) {
        (_, Status::NoSession | Status::ShuttingDown) => {
            // Failed, and the loss of the server says why.
            out.extend(failure(server, request, RequestError::Lost));
            return Err(match status {
                Status::NoSession => Reason::SessionGone,
                status => Reason::Status(status),
            });
        }
        (Op::Read, Status::Ok) => out.push(Completion::Read {
            token,
            result: Ok(()),
        }),
        (Op::Write, Status::Ok) => out.push(Completion::Written { token, server }),
        (Op::Grant, Status::Ok) => {
            let slabs = decode_slab_list(body);
            if slabs
                .as_ref()
                .is_ok_and(|s| (1..=request.count as usize).contains(&s.len()))
            {
                out.extend(slabs.map(|slabs| Completion::Granted { server, slabs }));
                return Ok(());
            }
            out.push(Completion::GrantRefused {
                server,
                error: RequestError::Status(Status::Full),
            });
            if !slabs?.is_empty() {
                return Err(Reason::Unexpected("more slabs than were asked for"));
            }
        }
        (Op::Share, Status::Ok) => {
            let Ok(session) = body.try_into() else {
                let error = RequestError::Status(Status::Internal);
                out.extend(failure(server, request, error));
                return Err(NO_SESSION);
            };
            out.push(Completion::Shared {
                server,
                result: Ok(SessionId(session)),
            });
        }
        (Op::Read | Op::Write | Op::Grant | Op::Share, _) => {
            out.extend(failure(server, request, RequestError::Status(status)));
        }
        // A DISCARD or RELEASE that is refused changes nothing here.
        _ => {}
    }
    Ok(())
}
