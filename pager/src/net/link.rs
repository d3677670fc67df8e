//! One connection to a server and the attempts to have it.

use super::conn::{Answers, Pipeline};
use super::handshake::Handshake;
use super::reason::{Code, Reason};
use super::transport::{Network, Ready, Stream};
use super::{Endpoint, Options};
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use rustix::rand::{GetRandomFlags, getrandom};
use tmem_wire::{HelloReply, Preface};

/// How long it may take to connect. The peer's kernel does that by itself, however busy
/// the server is; its greeting has as long as any other answer.
const CONNECT_MS: u64 = 3_000;
/// After how long a greeting that is not answered is told of.
const SILENT_MS: u64 = 3_000;
/// After how long it is told that a server has no place for the connection.
const NO_PLACE_MS: u64 = 1_000;
/// The first and the longest pause between two attempts.
const PAUSE_MS: core::ops::RangeInclusive<u64> = 20..=500;
/// So many times as long is a server attempted that is slow to let a forked child in: many
/// may join at once.
const CROWDED: u64 = 6;
/// Connections that may break one after the other, each before it has answered
/// the oldest request, whatever else it has: with the pauses in between about as
/// long as a server may be away.
const FRUITLESS: u32 = 16;
/// A server that is full is attempted so many times as long as one that is away.
const FULL: u64 = 12;
/// Bytes sent, and received, before other connections have their turn.
const TURN_BYTES: usize = 1 << 20;

/// A connection, or the lack of one.
#[derive(Debug)]
pub(super) struct Link {
    network: Rc<dyn Network>,
    /// Its number within the session: a connection that is made again takes the place of the
    /// former one of this number.
    lane: u32,
    pub(super) phase: Phase,
    pub(super) pipe: Pipeline,
    /// Requests wait in the queue and are not sent.
    pub(super) is_held: bool,
    /// The kernel's buffer was full; the poll says when it is not.
    blocked: bool,
    /// When requests began to wait without an answer.
    waiting_since: Option<u64>,
    broken: Option<Broken>,
    /// Attempts that failed since there was a connection.
    pub(super) attempts: usize,
    /// Which address is attempted next.
    pub(super) addr: usize,
    pause_ms: u64,
    /// Connections that broke since the oldest request was answered.
    fruitless: u32,
    /// That this greeting is not answered was told.
    told_silent: bool,
    /// A forked child joins its session by it.
    pub(super) joins: bool,
    /// A connection that breaks is attempted again for so long at least.
    pub(super) waits_ms: Option<u64>,
    /// There has been a connection since it was wanted.
    was_ready: bool,
}

/// The connection that there was broke, and has not been had again.
#[derive(Clone, Copy, Debug)]
struct Broken {
    since: u64,
    /// Since when the server has not said that it has no place.
    away_since: u64,
    /// What failed last.
    reason: Reason,
}

impl Broken {
    fn new(now: u64, reason: Reason) -> Broken {
        Broken {
            since: now,
            away_since: now,
            reason,
        }
    }

    /// A further attempt failed. A server that had no place and is away now has as long as
    /// any other to be back.
    fn again(&mut self, now: u64, reason: Reason) {
        if self.reason.is_limit() {
            self.away_since = now;
        }
        self.reason = reason;
    }
}

#[derive(Debug)]
pub(super) enum Phase {
    /// Not wanted.
    Off,
    /// To be attempted at this time.
    Wait(u64),
    Connecting {
        sock: Box<dyn Stream>,
        until: u64,
        /// Said before the greeting.
        preface: Vec<u8>,
    },
    Greeting {
        sock: Box<dyn Stream>,
        handshake: Box<Handshake>,
        since: u64,
    },
    Ready(Box<dyn Stream>),
}

/// A stream, and what is to be said before the greeting.
type Dialled = (Box<dyn Stream>, Vec<u8>);

impl Link {
    pub(super) fn new(network: Rc<dyn Network>, lane: u32) -> Link {
        Link {
            network,
            lane,
            phase: Phase::Off,
            pipe: Pipeline::new(),
            is_held: false,
            blocked: false,
            waiting_since: None,
            broken: None,
            attempts: 0,
            addr: 0,
            pause_ms: *PAUSE_MS.start(),
            fruitless: 0,
            told_silent: false,
            joins: false,
            waits_ms: None,
            was_ready: false,
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Ready(_))
    }

    fn is_greeting(&self) -> bool {
        matches!(self.phase, Phase::Greeting { .. })
    }

    /// Whether it is time to tell that the server does not answer the greeting, and for
    /// how many milliseconds it has not. Once for each greeting.
    pub(super) fn falls_silent(&mut self, now: u64) -> Option<u64> {
        let Phase::Greeting { since, .. } = &self.phase else {
            return None;
        };
        let tells = !self.told_silent && now >= after(*since, SILENT_MS);
        self.told_silent |= tells;
        tells.then_some(SILENT_MS)
    }

    /// The stream, and whether something waits to be sent.
    pub(super) fn sock(&self) -> Option<(&dyn Stream, bool)> {
        match &self.phase {
            Phase::Off | Phase::Wait(_) => None,
            Phase::Connecting { sock, .. } => Some((&**sock, true)),
            Phase::Greeting {
                sock, handshake, ..
            } => Some((&**sock, handshake.unsent())),
            Phase::Ready(sock) => Some((&**sock, self.pipe.unsent() && !self.is_held)),
        }
    }

    /// Wants a connection from `now` on.
    pub(super) fn begin(&mut self, now: u64) {
        self.phase = Phase::Wait(now);
        self.attempts = 0;
        self.was_ready = false;
        self.proved_good();
        self.broken = None;
    }

    /// Whatever broke before does not count any more.
    fn proved_good(&mut self) {
        self.fruitless = 0;
        self.pause_ms = *PAUSE_MS.start();
    }

    /// Gives the connection up, not its requests.
    pub(super) fn end(&mut self) {
        self.phase = Phase::Off;
        self.waiting_since = None;
        self.broken = None;
        self.blocked = false;
        self.is_held = false;
    }

    /// An attempt failed; the next address follows.
    pub(super) fn again(&mut self, now: u64) {
        self.attempts += 1;
        self.addr += 1;
        self.phase = Phase::Wait(after(now, self.pause_ms));
        self.pause_ms = (self.pause_ms * 2).min(*PAUSE_MS.end());
    }

    /// Gives up a connection that works, to have another at once.
    pub(super) fn renew(&mut self, now: u64, reason: Reason) {
        if self.is_ready() {
            self.end();
            self.broken = Some(Broken::new(now, reason));
            self.phase = Phase::Wait(now);
        }
    }

    /// The connection broke, or an attempt to have it again failed.
    pub(super) fn broke(&mut self, now: u64, reason: Reason) {
        self.waiting_since = None;
        self.blocked = false;
        self.fruitless += u32::from(self.is_ready() && self.pipe.waiting());
        match &mut self.broken {
            Some(broken) => {
                broken.again(now, reason);
                self.again(now);
            }
            None => {
                self.broken = Some(Broken::new(now, reason));
                if self.fruitless > 1 {
                    self.again(now);
                } else {
                    // At once: most connections that break can be had again.
                    self.phase = Phase::Wait(now);
                }
            }
        }
    }

    /// Why the connection is given up, once it was broken for too long, or too
    /// often.
    pub(super) fn overdue(&self, now: u64, options: &Options) -> Option<Reason> {
        let broken = self.broken?;
        // A server that has taken the connection is there, and has its time to greet.
        let late = !self.is_greeting() && now >= self.given_up_at(&broken, options);
        let often = self.waits_ms.is_none() && self.fruitless >= FRUITLESS;
        (late || often).then_some(broken.reason)
    }

    /// When no further attempt is made.
    fn given_up_at(&self, broken: &Broken, options: &Options) -> u64 {
        let since = match broken.reason.is_limit() {
            true => broken.since,
            false => broken.away_since,
        };
        after(since, self.patience(&broken.reason, options))
    }

    /// How long a broken connection is attempted again, in milliseconds. A server that is
    /// there and has no place now may have one soon, and one that many children join at
    /// once may take its time.
    fn patience(&self, reason: &Reason, options: &Options) -> u64 {
        let usual = self.usual_patience(reason, options);
        usual.max(self.waits_ms.unwrap_or(0))
    }

    /// For how many milliseconds there has been no connection, and why, where that is
    /// longer than usual.
    pub(super) fn away_ms(&self, now: u64, options: &Options) -> Option<(u64, Reason)> {
        self.waits_ms?;
        let broken = self.broken?;
        let usual = self.usual_patience(&broken.reason, options);
        let is_away = now >= after(broken.since, usual);
        is_away.then(|| (now.saturating_sub(broken.since) / 1_000_000, broken.reason))
    }

    fn usual_patience(&self, reason: &Reason, options: &Options) -> u64 {
        let times = match reason {
            // A new program does not wait so long; it can go on without the server.
            reason if reason.is_limit() && (self.was_ready || self.joins) => FULL,
            Reason::NoAnswer(_) if self.joins => CROWDED,
            _ => 1,
        };
        options.reconnect_ms.saturating_mul(times)
    }

    /// Why the server has no place for the connection, and how long it is waited for in all,
    /// once it has been for a while.
    pub(super) fn waits_for_place(&self, now: u64, options: &Options) -> Option<(Reason, u64)> {
        let broken = self.broken.filter(|broken| broken.reason.is_limit())?;
        let tells = now >= after(broken.since, NO_PLACE_MS);
        tells.then(|| (broken.reason, self.patience(&broken.reason, options)))
    }

    /// Begins an attempt if its time has come, and ends one that takes too
    /// long.
    pub(super) fn attempt(&mut self, now: u64, to: &Endpoint, stall_ms: u64) -> Result<(), Reason> {
        match &self.phase {
            Phase::Wait(at) if *at <= now => {
                let (sock, preface) = self.dial(to, stall_ms)?;
                self.phase = Phase::Connecting {
                    sock,
                    until: after(now, CONNECT_MS),
                    preface,
                };
                Ok(())
            }
            Phase::Connecting { until, .. } if *until <= now => {
                Err(Reason::NoConnection(CONNECT_MS))
            }
            Phase::Greeting { since, .. } if after(*since, stall_ms) <= now => {
                Err(Reason::NoAnswer(stall_ms))
            }
            _ => Ok(()),
        }
    }

    /// Begins to connect to the address whose turn it is; what is to be said before
    /// the greeting.
    pub(super) fn dial(&self, to: &Endpoint, stall_ms: u64) -> Result<Dialled, Reason> {
        let addr = self
            .addr
            .checked_rem(to.addrs.len())
            .and_then(|i| to.addrs.get(i));
        let addr = addr.ok_or(Reason::NoAddress)?;
        match &to.agent {
            None => {
                let stall_ms = u32::try_from(stall_ms).unwrap_or(u32::MAX);
                Ok((self.network.connect(addr, stall_ms)?, Vec::new()))
            }
            Some(agent) => {
                let preface = Preface {
                    token: agent.token,
                    server: *addr,
                };
                Ok((self.network.agent(&agent.name)?, preface.encode().to_vec()))
            }
        }
    }

    /// Goes on with what another process has dialled.
    pub(super) fn dialled(&mut self, sock: Box<dyn Stream>, to: &Endpoint, now: u64) {
        let addr = self.addr.checked_rem(to.addrs.len());
        let server = addr.and_then(|i| to.addrs.get(i)).copied();
        let preface = match (&to.agent, server) {
            (Some(agent), Some(server)) => {
                let token = agent.token;
                Preface { token, server }.encode().to_vec()
            }
            _ => Vec::new(),
        };
        self.phase = Phase::Connecting {
            sock,
            until: after(now, CONNECT_MS),
            preface,
        };
    }

    /// Goes on with connecting and greeting; the reply when it is complete, and
    /// then the link is ready.
    pub(super) fn greet(
        &mut self,
        ready: Ready,
        known: Option<&HelloReply>,
        now: u64,
        options: &Options,
    ) -> Result<Option<HelloReply>, Reason> {
        let secret = options.secret.as_deref();
        if matches!(self.phase, Phase::Connecting { .. }) && ready.write {
            let nonce = nonce(options.seed)?;
            if let Phase::Connecting { sock, preface, .. } =
                core::mem::replace(&mut self.phase, Phase::Off)
            {
                sock.connected().map_err(|e| Reason::Io(Code(e)))?;
                let handshake = Handshake::new(known.cloned(), self.lane, secret, nonce, preface);
                let handshake = Box::new(handshake);
                self.told_silent = false;
                self.phase = Phase::Greeting {
                    sock,
                    handshake,
                    since: now,
                };
            }
        }
        let Phase::Greeting {
            sock, handshake, ..
        } = &mut self.phase
        else {
            return Ok(None);
        };
        let reply = handshake.drive(&mut **sock, secret)?;
        if reply.is_some()
            && let Phase::Greeting { sock, .. } = core::mem::replace(&mut self.phase, Phase::Off)
        {
            self.phase = Phase::Ready(sock);
            self.was_ready = true;
            self.attempts = 0;
            self.broken = None;
            self.blocked = false;
        }
        Ok(reply)
    }

    /// Sends what can be sent.
    pub(super) fn flush(&mut self) -> Result<(), Reason> {
        if let Phase::Ready(sock) = &mut self.phase
            && !self.blocked
            && !self.is_held
            && self.pipe.unsent()
        {
            self.blocked = !self.pipe.send(&mut **sock, TURN_BYTES)?;
        }
        Ok(())
    }

    /// Receives what can be received, then sends what could not be before.
    pub(super) fn transfer(
        &mut self,
        ready: Ready,
        now: u64,
        on: impl Answers,
    ) -> Result<(), Reason> {
        let Phase::Ready(sock) = &mut self.phase else {
            return Ok(());
        };
        if ready.read {
            let ended = self.pipe.ended();
            let received = self.pipe.receive(&mut **sock, TURN_BYTES, on);
            if self.pipe.ended() != ended {
                self.proved_good();
            }
            if received? {
                self.waiting_since = None;
            }
        }
        if !self.pipe.waiting() {
            self.waiting_since = None;
        } else if self.waiting_since.is_none() {
            self.waiting_since = Some(now);
        }
        if ready.write && self.blocked {
            self.blocked = false;
            self.flush()?;
        }
        Ok(())
    }

    /// Since when nothing has come that is waited for, if something is.
    pub(super) fn silent_since(&self) -> Option<u64> {
        match &self.phase {
            Phase::Ready(_) => self.waiting_since,
            Phase::Greeting { since, .. } => Some(*since),
            Phase::Off | Phase::Wait(_) | Phase::Connecting { .. } => None,
        }
    }

    /// Whether requests wait since too long ago.
    pub(super) fn check(&self, now: u64, stall_ms: u64) -> Result<(), Reason> {
        let stalled = |since| self.is_ready() && now >= after(since, stall_ms);
        if self.waiting_since.is_some_and(stalled) {
            return Err(Reason::Stalled(stall_ms));
        }
        Ok(())
    }

    /// When something is to be done though nothing has come.
    pub(super) fn next_timer(&self, options: &Options) -> Option<u64> {
        let own = match &self.phase {
            Phase::Off => None,
            Phase::Wait(at) => Some(*at),
            Phase::Connecting { until, .. } => Some(*until),
            Phase::Greeting { since, .. } => Some(match self.told_silent {
                true => after(*since, options.stall_ms),
                false => after(*since, SILENT_MS.min(options.stall_ms)),
            }),
            Phase::Ready(_) => self.waiting_since.map(|s| after(s, options.stall_ms)),
        };
        let give_up = self
            .broken
            .filter(|_| !self.is_greeting())
            .map(|broken| self.given_up_at(&broken, options));
        own.into_iter().chain(give_up).min()
    }
}

/// So many milliseconds after `ns`. Settings may be as long as they like.
fn after(ns: u64, ms: u64) -> u64 {
    ns.saturating_add(ms.saturating_mul(1_000_000))
}

/// Random bytes of the kernel, mixed with `seed` so that a fork cannot repeat
/// them.
fn nonce(seed: u64) -> Result<[u8; 16], Reason> {
    let mut bytes = [0u8; 16];
    match getrandom(&mut bytes[..], GetRandomFlags::NONBLOCK) {
        Ok(16) => {}
        _ => return Err(Reason::NoRandom),
    }
    for (b, s) in bytes.iter_mut().zip(seed.to_le_bytes()) {
        *b ^= s;
    }
    Ok(bytes)
}
