//! Limits how many connections there are, for all clients and for each.
//!
//! A connection that has not greeted is a stranger. Strangers have a few places of their own.
//! If these are used up, the stranger that has been silent for longest makes room for the
//! next. A quarter of the other places is for sessions without a connection, so that new
//! programs cannot keep running ones from reconnecting or forking. A session may have a second
//! connection while half of the places are free. It ends when a session without a connection
//! finds no other place.

use crate::client::Client;
use crate::serve::socket::Socket;
use crate::store::sessions::Disconnect;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Places of strangers, beside one for every eight other places.
pub(crate) const STRANGERS: usize = 64;

/// How often a waiting thread looks again.
const CHECK: Duration = Duration::from_millis(100);

/// How long a new connection waits for the place of a stranger that is closed.
const ROOM: Duration = Duration::from_secs(1);

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// A new session.
    Open,
    /// A session without a connection: of a forked child, or of a client that reconnects.
    First,
    /// A session that has a connection already.
    Further,
}

/// The connections of a server.
#[derive(Debug)]
pub(crate) struct ConnectionLimits {
    inner: Mutex<Inner>,
    /// A connection ended.
    ended: Condvar,
    most: usize,
    per_client: usize,
}

#[derive(Debug, Default)]
struct Inner {
    /// By their numbers, in the order in which they came.
    sockets: HashMap<u64, Arc<Socket>>,
    /// Those that have greeted.
    greeted: HashMap<u64, Client>,
    /// Those of them that are the second of their session.
    further: BTreeSet<u64>,
    /// How many of them each client has.
    of: HashMap<Client, usize>,
}

impl ConnectionLimits {
    /// No connections yet. At most `most` are allowed, and `per_client` for one client.
    pub(crate) fn new(most: usize, per_client: usize) -> ConnectionLimits {
        ConnectionLimits {
            inner: Mutex::default(),
            ended: Condvar::new(),
            most,
            per_client,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, inner: MutexGuard<'a, Inner>) -> MutexGuard<'a, Inner> {
        let waited = self.ended.wait_timeout(inner, CHECK);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Adds a stranger.
    pub(crate) fn add(&self, key: u64, socket: Arc<Socket>) -> Result<(), String> {
        self.with_room()?.sockets.insert(key, socket);
        Ok(())
    }

    /// Fails when there is no room for one more stranger, and none can be made.
    pub(crate) fn check_room(&self) -> Result<(), String> {
        self.with_room().map(drop)
    }

    /// The connections, with room for one more stranger.
    fn with_room(&self) -> Result<MutexGuard<'_, Inner>, String> {
        let strangers = STRANGERS + self.most / 8;
        let patience = Instant::now() + ROOM;
        let mut inner = self.lock();
        while inner.sockets.len() - inner.greeted.len() >= strangers {
            if Instant::now() >= patience {
                return Err("too many connections that do not greet: one is turned away".into());
            }
            if let Some(socket) = inner.least_wanted() {
                socket.cut();
            }
            inner = self.wait(inner);
        }
        Ok(inner)
    }

    /// Gives a place to a stranger that has greeted, as soon as one is free.
    ///
    /// # Errors
    /// A text for the client that names the limit.
    pub(crate) fn take(&self, key: u64, what: Use, patience: Instant) -> Result<(), String> {
        let spare = self.most / 4;
        let (most, per_client) = match what {
            Use::First => (self.most, self.per_client.saturating_add(spare)),
            Use::Open => (self.most - spare, self.per_client),
            Use::Further => (self.most / 2, self.per_client.div_ceil(2)),
        };
        let mut inner = self.lock();
        loop {
            let client = match inner.sockets.get(&key) {
                Some(socket) => socket.client(),
                None => return Err("the connection has ended".to_owned()),
            };
            let all = inner.greeted.len();
            let own = inner.of.get(&client).copied().unwrap_or(0);
            let full = if own >= per_client {
                format!("it has {own} connections, and may have no more (--max-per-client)")
            } else if all >= most {
                format!("there are {all} connections, and may be no more (--max-connections)")
            } else {
                inner.greeted.insert(key, client);
                if what == Use::Further {
                    inner.further.insert(key);
                }
                *inner.of.entry(client).or_default() += 1;
                return Ok(());
            };
            if Instant::now() >= patience {
                return Err(full);
            }
            if what == Use::First {
                inner.part_with(client, own >= per_client);
            }
            inner = self.wait(inner);
        }
    }

    /// Removes a connection.
    pub(crate) fn remove(&self, key: u64) {
        let mut inner = self.lock();
        inner.sockets.remove(&key);
        inner.further.remove(&key);
        if let Some(client) = inner.greeted.remove(&key)
            && let Some(own) = inner.of.get_mut(&client)
        {
            *own -= 1;
            if *own == 0 {
                inner.of.remove(&client);
            }
        }
        drop(inner);
        self.ended.notify_all();
    }

    /// Calls `f` for each connection.
    pub(crate) fn each(&self, f: impl FnMut(&Arc<Socket>)) {
        self.lock().sockets.values().for_each(f);
    }

    /// Calls `f` for each connection, again and again until there is none or the time is up.
    /// Returns whether there is none.
    pub(crate) fn clear(&self, until: Option<Instant>, mut f: impl FnMut(&Arc<Socket>)) -> bool {
        let mut inner = self.lock();
        while !inner.sockets.is_empty() {
            if until.is_some_and(|at| Instant::now() >= at) {
                return false;
            }
            inner.sockets.values().for_each(&mut f);
            inner = self.wait(inner);
        }
        true
    }
}

impl Inner {
    /// Ends the oldest second connection of a session; with `own`, of the same client. The
    /// session goes on with its other connection, and repeats requests that were not answered.
    fn part_with(&mut self, client: Client, own: bool) {
        let fits = |key: &&u64| !own || self.greeted.get(*key) == Some(&client);
        let Some(key) = self.further.iter().find(fits).copied() else {
            return;
        };
        self.further.remove(&key);
        if let Some(socket) = self.sockets.get(&key) {
            socket.cut();
        }
    }

    /// The stranger that is closed first: the oldest one of the client that has most.
    fn least_wanted(&self) -> Option<&Arc<Socket>> {
        let strangers = || {
            let sockets = self.sockets.iter();
            sockets.filter(|(key, _)| !self.greeted.contains_key(key))
        };
        let mut of: HashMap<Client, usize> = HashMap::new();
        strangers().for_each(|(_, socket)| *of.entry(socket.client()).or_default() += 1);
        let rank = |(key, socket): &(&u64, &Arc<Socket>)| {
            let own = of.get(&socket.client()).copied().unwrap_or(0);
            (std::cmp::Reverse(own), **key)
        };
        strangers().min_by_key(rank).map(|(_, socket)| socket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    /// ConnectionLimits, and the other ends of their connections.
    struct Crowd {
        limits: ConnectionLimits,
        ends: Vec<UnixStream>,
        next: u64,
    }

    impl Crowd {
        fn new(most: usize, per_client: usize) -> Crowd {
            Crowd {
                limits: ConnectionLimits::new(most, per_client),
                ends: Vec::new(),
                next: 0,
            }
        }

        /// A stranger from the client `n`.
        fn add(&mut self, n: u8) -> u64 {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let client = Client::at(Some(([10, 0, 0, n], 1).into()));
            self.next += 1;
            let socket = Socket::relayed(ours, client);
            self.limits.add(self.next, Arc::new(socket)).unwrap();
            self.ends.push(theirs);
            self.next
        }

        fn take(&mut self, n: u8, what: Use) -> Result<u64, String> {
            let key = self.add(n);
            let taken = self.limits.take(key, what, Instant::now());
            if taken.is_err() {
                self.limits.remove(key);
            }
            taken.map(|()| key)
        }

        /// How many of a kind a client gets before it is refused.
        fn fill(&mut self, n: u8, what: Use) -> usize {
            (0..).take_while(|_| self.take(n, what).is_ok()).count()
        }
    }

    #[test]
    fn one_client_leaves_places_for_others_and_new_ones_for_those_who_are_in() {
        let mut crowd = Crowd::new(32, 16);
        assert_eq!(crowd.fill(1, Use::Further), 8);
        assert_eq!(crowd.fill(1, Use::Open), 8);
        assert_eq!(crowd.fill(1, Use::First), 8);
        let full = crowd.take(1, Use::First).unwrap_err();
        assert!(full.contains("--max-per-client"), "{full}");
        // Now what is left is for those who are in.
        let full = crowd.take(2, Use::Open).unwrap_err();
        assert!(full.contains("--max-connections"), "{full}");
        assert_eq!(crowd.fill(2, Use::First), 8);
        let full = crowd.take(3, Use::First).unwrap_err();
        assert!(full.contains("--max-connections"), "{full}");
        // A place that is left is there again.
        crowd.limits.remove(1);
        assert!(crowd.take(2, Use::First).is_ok());
    }

    #[test]
    fn a_session_without_a_connection_gets_the_place_of_anothers_second() {
        let mut crowd = Crowd::new(16, 8);
        let second = crowd.take(1, Use::Further).unwrap();
        let other = crowd.take(2, Use::Further).unwrap();
        crowd.fill(1, Use::First);
        let key = crowd.add(1);
        let sockets = crowd.limits.lock().sockets.clone();
        let soon = Instant::now() + CHECK / 2;
        assert!(crowd.limits.take(key, Use::First, soon).is_err());
        assert!(sockets[&second].is_cut() && !sockets[&other].is_cut());
        crowd.limits.remove(second);
        crowd.limits.take(key, Use::First, Instant::now()).unwrap();
    }

    #[test]
    fn a_server_with_one_place_serves_one_client() {
        let mut crowd = Crowd::new(1, 1);
        assert_eq!(crowd.fill(1, Use::Open), 1);
        assert_eq!(crowd.fill(1, Use::Further), 0);
    }

    #[test]
    fn the_oldest_stranger_of_the_client_with_most_is_sent_away_first() {
        let mut crowd = Crowd::new(8, 8);
        let first = crowd.add(1);
        let flood: Vec<u64> = (0..3).map(|_| crowd.add(2)).collect();
        let greeted = crowd.take(2, Use::Open).unwrap();
        let inner = crowd.limits.lock();
        let oldest = inner.sockets.get(&flood[0]).unwrap();
        assert!(Arc::ptr_eq(inner.least_wanted().unwrap(), oldest));
        assert!(inner.sockets.contains_key(&first) && inner.sockets.contains_key(&greeted));
    }
}
