//! Addresses of memory servers.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use crate::Invalid;

/// The form of a server's address, for messages.
pub const SERVER_ALLOWED: &str = "host:port, tcp://host:port or rdma://host:port, IPv6 as [::1]:port, and perhaps ,zone=NAME; or \
     embedded";

/// The transport to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// RDMA if both ends can use it, else TCP. The meaning of an address without a scheme.
    Any,
    /// TCP.
    Tcp,
    /// RDMA.
    Rdma,
    /// A memory server within `tmem run`.
    Embedded,
}

/// The address of a memory server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerAddr {
    /// How it is reached.
    pub scheme: Scheme,
    /// A name, an IPv4 address, or an IPv6 address without brackets.
    pub host: String,
    /// Its port, never 0 but for the embedded one.
    pub port: u16,
    /// What fails with it, by any name that other servers there have too.
    pub zone: Option<String>,
}

impl ServerAddr {
    /// Writes a form that parses as the same address in the same zone.
    pub fn with_zone(&self) -> String {
        match &self.zone {
            Some(zone) => format!("{self},{ZONE}{zone}"),
            None => self.to_string(),
        }
    }
}

/// The word for a memory server within `tmem run`.
const EMBEDDED: &str = "embedded";
/// Before the name of a zone.
const ZONE: &str = "zone=";

/// Writes a form that parses as the same address, without its zone.
impl fmt::Display for ServerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.scheme {
            Scheme::Any => "",
            Scheme::Tcp => "tcp://",
            Scheme::Rdma => "rdma://",
            Scheme::Embedded => return f.write_str(EMBEDDED),
        })?;
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for ServerAddr {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<ServerAddr, Invalid> {
        let invalid = |reason: &'static str| Invalid::new(text, reason, SERVER_ALLOWED);
        let trimmed = text.trim();
        if trimmed == EMBEDDED {
            return Ok(ServerAddr {
                scheme: Scheme::Embedded,
                host: EMBEDDED.to_owned(),
                port: 0,
                zone: None,
            });
        }
        let (scheme, rest) = match trimmed.split_once("://") {
            None => (Scheme::Any, trimmed),
            Some(("tcp", rest)) => (Scheme::Tcp, rest),
            Some(("rdma", rest)) => (Scheme::Rdma, rest),
            Some(_) => return Err(invalid("has an unknown scheme")),
        };
        let (host, port) = match rest.strip_prefix('[') {
            Some(bracketed) => {
                let (host, after) = bracketed
                    .split_once(']')
                    .ok_or_else(|| invalid("lacks a `]`"))?;
                host.parse::<Ipv6Addr>()
                    .map_err(|_| invalid("is no IPv6 address"))?;
                let port = after
                    .strip_prefix(':')
                    .ok_or_else(|| invalid("lacks a port"))?;
                (host, port)
            }
            None => {
                let (host, port) = rest
                    .rsplit_once(':')
                    .ok_or_else(|| invalid("lacks a port"))?;
                if host.contains(':') {
                    return Err(invalid("looks like IPv6 without brackets"));
                }
                let ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
                if host.is_empty() || !host.chars().all(ok) {
                    return Err(invalid("has no valid host"));
                }
                (host, port)
            }
        };
        let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        match port.parse() {
            Ok(port) if digits && port != 0 => Ok(ServerAddr {
                scheme,
                host: host.to_owned(),
                port,
                zone: None,
            }),
            _ => Err(invalid("has no valid port (1 to 65535)")),
        }
    }
}

/// Reads servers separated by commas, each once, in their order.
///
/// # Errors
/// [`Invalid`] names the first server that is wrong.
pub fn parse_servers(text: &str) -> Result<Vec<ServerAddr>, Invalid> {
    let mut servers: Vec<ServerAddr> = Vec::new();
    for part in text.split(',') {
        match (part.trim().strip_prefix(ZONE), servers.last_mut()) {
            (Some(zone), Some(server)) => server.zone = Some(zone_name(part, zone)?),
            _ => servers.push(part.parse()?),
        }
    }
    Ok(unique(servers))
}

fn zone_name(text: &str, zone: &str) -> Result<String, Invalid> {
    let is_known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    match !zone.is_empty() && zone.chars().all(is_known) {
        true => Ok(zone.to_owned()),
        false => Err(Invalid::new(text, "has no valid zone", SERVER_ALLOWED)),
    }
}

/// The servers without repetitions. One that is named twice would be asked twice for the
/// same memory, whatever the transport.
pub(crate) fn unique(servers: Vec<ServerAddr>) -> Vec<ServerAddr> {
    let mut unique: Vec<ServerAddr> = Vec::with_capacity(servers.len());
    for server in servers {
        let same = |s: &ServerAddr| s.host == server.host && s.port == server.port;
        if !unique.iter().any(same) {
            unique.push(server);
        }
    }
    unique
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any(host: &str, port: u16) -> ServerAddr {
        ServerAddr {
            scheme: Scheme::Any,
            host: host.into(),
            port,
            zone: None,
        }
    }

    #[test]
    fn the_documented_forms_are_read() {
        assert_eq!("node1:7070".parse(), Ok(any("node1", 7070)));
        let tcp = ServerAddr {
            scheme: Scheme::Tcp,
            ..any("10.0.0.1", 1)
        };
        assert_eq!("tcp://10.0.0.1:1".parse(), Ok(tcp));
        assert_eq!("[::1]:7070".parse(), Ok(any("::1", 7070)));
        let rdma = ServerAddr {
            scheme: Scheme::Rdma,
            ..any("a-b.c_d", 65535)
        };
        assert_eq!("rdma://a-b.c_d:65535".parse(), Ok(rdma));
    }

    #[test]
    fn a_list_keeps_order_and_drops_repetitions() {
        let list = parse_servers("b:2, a:1,tcp://b:2,[::1]:3").unwrap();
        assert_eq!(list, [any("b", 2), any("a", 1), any("::1", 3)]);
    }

    #[test]
    fn a_zone_belongs_to_the_address_before_it() {
        let list = parse_servers("b:2,zone=r1, a:1,[::1]:3, zone=r-2").unwrap();
        let zones: Vec<_> = list.iter().map(|s| s.zone.as_deref()).collect();
        assert_eq!(zones, [Some("r1"), None, Some("r-2")]);
        assert_eq!(list[0].with_zone(), "b:2,zone=r1");
        assert_eq!(list[0].to_string(), "b:2");
        for text in ["zone=a", "zone=a,b:2", "a:1,zone=", "a:1,zone=a b"] {
            assert!(parse_servers(text).is_err(), "{text}");
        }
    }

    #[test]
    fn refusals_name_the_value_the_reason_and_what_is_allowed() {
        for (text, reason) in [
            ("", "lacks a port"),
            ("node1", "lacks a port"),
            ("[::1]", "lacks a port"),
            ("[::1:7070", "lacks a `]`"),
            ("[fish]:7070", "is no IPv6 address"),
            ("::1:7070", "looks like IPv6 without brackets"),
            ("http://a:80", "has an unknown scheme"),
            (":7070", "has no valid host"),
            ("a b:7070", "has no valid host"),
            ("a:", "has no valid port (1 to 65535)"),
            ("a:0", "has no valid port (1 to 65535)"),
            ("a:+7", "has no valid port (1 to 65535)"),
            ("a:65536", "has no valid port (1 to 65535)"),
        ] {
            let message = text.parse::<ServerAddr>().unwrap_err().to_string();
            assert_eq!(
                message,
                format!("`{text}` {reason}; allowed: {SERVER_ALLOWED}")
            );
        }
        assert!(parse_servers("a:1,").is_err());
        assert!(parse_servers("a:1,,b:2").is_err());
    }

    fn host() -> impl Strategy<Value = String> {
        let v6 =
            proptest::arbitrary::any::<u128>().prop_map(|bits| Ipv6Addr::from(bits).to_string());
        prop_oneof!["[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?(\\.[a-z]{1,5}){0,2}", v6]
    }

    fn server() -> impl Strategy<Value = ServerAddr> {
        let scheme = prop_oneof![Just(Scheme::Any), Just(Scheme::Tcp), Just(Scheme::Rdma)];
        let zone = proptest::option::of("[a-z0-9.-]{1,5}");
        (scheme, host(), 1u16.., zone).prop_map(|(scheme, host, port, zone)| ServerAddr {
            scheme,
            host,
            port,
            zone,
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(servers in proptest::collection::vec(server(), 1..6)) {
            let text: Vec<String> = servers.iter().map(ServerAddr::with_zone).collect();
            prop_assert_eq!(parse_servers(&text.join(",")).unwrap(), unique(servers));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
            let _ = parse_servers(&text);
        }

        #[test]
        fn address_like_text_is_read_or_refused(text in "(tcp|rdma)?(://)?[\\[\\]a:0-9,.]{0,20}") {
            let _ = parse_servers(&text);
        }
    }
}
