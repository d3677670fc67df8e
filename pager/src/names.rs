//! Addresses of servers, in memory that `tmem run` shares with the processes under it.
//!
//! The engine does not use the C library, so it cannot resolve names. `tmem run` can, also
//! while the program runs: a name that could not be resolved at the start is used once it
//! has an address. Everything is atomics without locks, as in [`crate::stats`].

use crate::slots::MAX_SERVERS;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// The most addresses that are kept of a name.
const ADDRESSES: usize = 8;

/// Addresses of servers by name. All zeros is its initial state.
#[repr(C)]
pub struct Names {
    of: [Entry; MAX_SERVERS],
}

#[repr(C)]
struct Entry {
    /// The hash of the name, or 0.
    name: AtomicU64,
    /// The number of addresses, or 0 while the name is being resolved.
    count: AtomicU64,
    addrs: [[AtomicU64; 3]; ADDRESSES],
}

impl Names {
    /// Notes that `name` is being resolved. Returns false if there is no room for it.
    pub fn begin(&self, name: &str) -> bool {
        let name = hash(name);
        let takes = |e: &Entry| {
            let taken = e.name.compare_exchange(0, name, Relaxed, Relaxed);
            taken.is_ok() || taken == Err(name)
        };
        self.of.iter().any(takes)
    }

    /// Publishes the addresses of `name`. They cannot be changed later.
    pub fn set(&self, name: &str, addrs: &[SocketAddr]) {
        let Some(entry) = self.entry(name).filter(|e| e.count.load(Acquire) == 0) else {
            return;
        };
        for (words, addr) in entry.addrs.iter().zip(addrs) {
            let packed = pack(addr);
            words
                .iter()
                .zip(packed)
                .for_each(|(w, v)| w.store(v, Relaxed));
        }
        let count = addrs.len().min(ADDRESSES);
        entry.count.store(count as u64, Release);
    }

    /// Returns the addresses of `name`. The list is empty while the name is being resolved,
    /// and `None` if it never was.
    pub fn find(&self, name: &str) -> Option<Vec<SocketAddr>> {
        let entry = self.entry(name)?;
        // Another process may have written anything.
        let count = entry.count.load(Acquire).min(ADDRESSES as u64) as usize;
        let words = entry.addrs[..count].iter();
        Some(
            words
                .map(|w| unpack(w.each_ref().map(|w| w.load(Relaxed))))
                .collect(),
        )
    }

    fn entry(&self, name: &str) -> Option<&Entry> {
        let name = hash(name);
        self.of.iter().find(|e| e.name.load(Relaxed) == name)
    }
}

/// Computes a hash (FNV-1a) that is never 0.
fn hash(name: &str) -> u64 {
    let step = |h: u64, b: u8| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3);
    name.bytes().fold(0xcbf2_9ce4_8422_2325, step).max(1)
}

/// Encodes an address: its higher and its lower half, then port, scope and kind in one
/// word.
fn pack(addr: &SocketAddr) -> [u64; 3] {
    let (ip, scope, kind) = match addr {
        SocketAddr::V4(v4) => (v4.ip().to_ipv6_mapped(), 0, 4),
        SocketAddr::V6(v6) => (*v6.ip(), v6.scope_id(), 6),
    };
    let bits = u128::from(ip);
    let last = u64::from(addr.port()) | kind << 16 | u64::from(scope) << 32;
    [(bits >> 64) as u64, bits as u64, last]
}

fn unpack([high, low, last]: [u64; 3]) -> SocketAddr {
    let ip = Ipv6Addr::from(u128::from(high) << 64 | u128::from(low));
    let port = last as u16;
    match (ip.to_ipv4_mapped(), last >> 16 & 0xff) {
        (Some(v4), 4) => SocketAddr::new(IpAddr::V4(v4), port),
        _ => SocketAddrV6::new(ip, port, 0, (last >> 32) as u32).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::format;

    fn names() -> std::boxed::Box<Names> {
        // SAFETY: all zeros is a valid value of every field.
        unsafe { std::boxed::Box::new_zeroed().assume_init() }
    }

    fn any_address() -> impl Strategy<Value = SocketAddr> {
        let v4 = (any::<[u8; 4]>(), any::<u16>()).prop_map(SocketAddr::from);
        let v6 = (any::<u128>(), any::<u16>(), any::<u32>()).prop_map(|(ip, port, scope)| {
            SocketAddr::V6(SocketAddrV6::new(ip.into(), port, 0, scope))
        });
        prop_oneof![v4, v6]
    }

    proptest! {
        #[test]
        fn what_is_said_is_found(addrs in proptest::collection::vec(any_address(), 0..10)) {
            let names = names();
            prop_assert_eq!(names.find("a:1"), None);
            prop_assert!(names.begin("a:1") && names.begin("a:1") && names.begin("b:2"));
            prop_assert_eq!(names.find("a:1"), Some(std::vec![]));
            names.set("a:1", &addrs);
            names.set("c:3", &addrs);
            let kept = &addrs[..addrs.len().min(ADDRESSES)];
            prop_assert_eq!(names.find("a:1"), Some(kept.to_vec()));
            prop_assert_eq!(names.find("b:2"), Some(std::vec![]));
            prop_assert_eq!(names.find("c:3"), None);
        }
    }

    #[test]
    fn as_many_names_are_kept_as_there_can_be_servers() {
        let names = names();
        for i in 0..MAX_SERVERS {
            assert!(names.begin(&format!("host{i}:1")));
        }
        assert!(names.begin("host0:1") && !names.begin("another:1"));
    }
}
