//! Places: how many connections there may be, and of whom.
//!
//! Who has not greeted is a stranger. Strangers have a few places of their own, and the
//! one that has said nothing for longest makes room for the next. Of the other places a
//! quarter is for connections that join a session: no new program may keep those that run
//! from coming back, or from forking.

use crate::client::Client;
use crate::link::Link;
use crate::sessions::Cut;
use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Places of strangers, beside one for each eighth place of others.
const STRANGERS: usize = 64;

/// How often one who waits looks again.
const CHECK: Duration = Duration::from_millis(100);

/// How long a new connection waits for the place of a stranger that is sent away.
const ROOM: Duration = Duration::from_secs(1);

/// The connections of a server.
#[derive(Debug)]
pub(crate) struct Places {
    inner: Mutex<Inner>,
    /// A connection ended.
    ended: Condvar,
    most: usize,
    per_client: usize,
}

#[derive(Debug, Default)]
struct Inner {
    /// By their numbers, in the order in which they came.
    links: HashMap<u64, Arc<Link>>,
    /// Those that have greeted.
    greeted: HashMap<u64, Client>,
    /// How many of them each client has.
    of: HashMap<Client, usize>,
}

impl Places {
    /// None taken, of so many in all and for one client.
    pub(crate) fn new(most: usize, per_client: usize) -> Places {
        Places {
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
    pub(crate) fn add(&self, key: u64, link: Arc<Link>) -> Result<(), String> {
        self.with_room()?.links.insert(key, link);
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
        while inner.links.len() - inner.greeted.len() >= strangers {
            if Instant::now() >= patience {
                return Err("too many connections that do not greet: one is turned away".into());
            }
            if let Some(link) = inner.least_wanted() {
                link.cut();
            }
            inner = self.wait(inner);
        }
        Ok(inner)
    }

    /// Gives a stranger that has greeted a place, as soon as there is one.
    ///
    /// # Errors
    /// A text for the client: which limit is met.
    pub(crate) fn take(&self, key: u64, is_join: bool, patience: Instant) -> Result<(), String> {
        let spare = self.most / 4;
        let (most, per_client) = if is_join {
            (self.most, self.per_client.saturating_add(spare))
        } else {
            (self.most - spare, self.per_client)
        };
        let mut inner = self.lock();
        loop {
            let client = match inner.links.get(&key) {
                Some(link) => link.client(),
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
                *inner.of.entry(client).or_default() += 1;
                return Ok(());
            };
            if Instant::now() >= patience {
                return Err(full);
            }
            inner = self.wait(inner);
        }
    }

    /// Takes a connection off the list.
    pub(crate) fn remove(&self, key: u64) {
        let mut inner = self.lock();
        inner.links.remove(&key);
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

    /// Does something to each connection.
    pub(crate) fn each(&self, f: impl FnMut(&Arc<Link>)) {
        self.lock().links.values().for_each(f);
    }

    /// Does something to each connection, again and again until there is none or it is
    /// late; whether there is none.
    pub(crate) fn clear(&self, until: Option<Instant>, mut f: impl FnMut(&Arc<Link>)) -> bool {
        let mut inner = self.lock();
        while !inner.links.is_empty() {
            if until.is_some_and(|at| Instant::now() >= at) {
                return false;
            }
            inner.links.values().for_each(&mut f);
            inner = self.wait(inner);
        }
        true
    }
}

impl Inner {
    /// The stranger that is sent away first: the oldest of the client that has most.
    fn least_wanted(&self) -> Option<&Arc<Link>> {
        let strangers = || {
            let links = self.links.iter();
            links.filter(|(key, _)| !self.greeted.contains_key(key))
        };
        let mut of: HashMap<Client, usize> = HashMap::new();
        strangers().for_each(|(_, link)| *of.entry(link.client()).or_default() += 1);
        let rank = |(key, link): &(&u64, &Arc<Link>)| {
            let own = of.get(&link.client()).copied().unwrap_or(0);
            (std::cmp::Reverse(own), **key)
        };
        strangers().min_by_key(rank).map(|(_, link)| link)
    }
}
