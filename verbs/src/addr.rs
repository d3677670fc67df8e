//! Addresses as C has them.

use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// The C form of an address.
pub(crate) fn to_c(addr: SocketAddr) -> libc::sockaddr_storage {
    // SAFETY: all zeros are a value of this plain struct.
    let mut storage: libc::sockaddr_storage = unsafe { zeroed() };
    let at = &raw mut storage;
    match addr {
        SocketAddr::V4(v4) => {
            let c = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from(*v4.ip()).to_be(),
                },
                sin_zero: [0; 8],
            };
            const { assert!(size_of::<libc::sockaddr_in>() <= size_of::<libc::sockaddr_storage>()) };
            // SAFETY: the storage is large enough and aligned for every kind
            // of address.
            unsafe { at.cast::<libc::sockaddr_in>().write(c) };
        }
        SocketAddr::V6(v6) => {
            let c = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr {
                    s6_addr: v6.ip().octets(),
                },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY: as above.
            unsafe { at.cast::<libc::sockaddr_in6>().write(c) };
        }
    }
    storage
}

/// The address, if it is one of the internet protocols.
pub(crate) fn from_c(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    let at = &raw const *storage;
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the storage is large enough and aligned for every kind
            // of address, and any bytes are a value of this plain struct.
            let c = unsafe { *at.cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(c.sin_addr.s_addr));
            Some(SocketAddrV4::new(ip, u16::from_be(c.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let c = unsafe { *at.cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(c.sin6_addr.s6_addr);
            let port = u16::from_be(c.sin6_port);
            Some(SocketAddrV6::new(ip, port, c.sin6_flowinfo, c.sin6_scope_id).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_back_as_they_were() {
        for text in ["10.77.0.1:7070", "0.0.0.0:0", "[fe80::1%3]:9", "[::]:65535"] {
            let addr: SocketAddr = text.parse().unwrap();
            assert_eq!(from_c(&to_c(addr)), Some(addr));
        }
        // SAFETY: all zeros are a value of this plain struct.
        assert_eq!(from_c(&unsafe { zeroed() }), None);
    }
}
