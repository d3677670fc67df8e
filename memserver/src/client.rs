//! Who clients are, as far as limits go: the machine that a connection comes from.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// A client machine. Addresses that one machine can choose among are one client: all of
/// loopback, and the 64 bits of an IPv6 address that a host picks for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Client(IpAddr);

impl Client {
    /// The client at an address; those whose address is not known are one client.
    pub(crate) fn at(addr: Option<SocketAddr>) -> Client {
        let ip = addr.map_or(Ipv6Addr::UNSPECIFIED.into(), |a| a.ip().to_canonical());
        Client(match ip {
            ip if ip.is_loopback() => Ipv6Addr::LOCALHOST.into(),
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
            v4 => v4,
        })
    }

    /// Whether it is on this machine.
    pub(crate) fn is_local(self) -> bool {
        self.0.is_loopback()
    }

    /// The client as bytes.
    pub(crate) fn to_bytes(self) -> [u8; 16] {
        match self.0 {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        }
    }

    /// What [`Client::to_bytes`] gave.
    pub(crate) fn from_bytes(bytes: [u8; 16]) -> Client {
        Client(IpAddr::V6(bytes.into()).to_canonical())
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ip if ip.is_loopback() => f.write_str("this machine"),
            IpAddr::V6(v6) if v6.is_unspecified() => f.write_str("an unknown address"),
            IpAddr::V6(v6) => write!(f, "{v6}/64"),
            IpAddr::V4(v4) => v4.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_machine_can_choose_among_is_one_client() {
        let at = |text: &str| Client::at(Some(text.parse().unwrap()));
        assert_eq!(at("127.0.0.1:1"), at("127.9.9.9:2"));
        assert_eq!(at("127.0.0.1:1"), at("[::1]:1"));
        assert_eq!(at("10.0.0.1:1"), at("[::ffff:10.0.0.1]:9"));
        assert_eq!(at("[2001:db8::1]:1"), at("[2001:db8::ffff:2]:1"));
        assert_ne!(at("[2001:db8::1]:1"), at("[2001:db8:0:1::1]:1"));
        assert_ne!(at("10.0.0.1:1"), at("10.0.0.2:1"));
        assert_eq!(at("10.0.0.1:1").to_string(), "10.0.0.1");
        assert_eq!(at("[2001:db8::1]:1").to_string(), "2001:db8::/64");
        assert_eq!(at("[::1]:1").to_string(), "this machine");
        for text in ["127.0.0.1:1", "10.0.0.1:1", "[2001:db8::1]:1", "[::]:1"] {
            assert_eq!(Client::from_bytes(at(text).to_bytes()), at(text));
        }
    }
}
