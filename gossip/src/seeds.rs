//! The seed list: where a node looks for others when it starts.
//!
//! An entry is `host:port`, `host` (port of the peers, 9191), `ipv4:port` or `[ipv6]:port`. A host
//! name may resolve to several addresses (a headless service); the node resolves, again and again,
//! and announces itself to every address. Parsing here is pure.

use crate::GossipError;
use std::{fmt, net::IpAddr, str::FromStr};

/// The port of the peers where an entry names none.
pub const PEER_PORT_DEFAULT: u16 = 9191;

/// Longest host name of the domain name system.
const HOST_BYTES_MAX: usize = 253;

/// One entry of the seed list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seed {
    /// A host name or an address without brackets.
    pub host: String,
    /// The port of the peers there.
    pub port: u16,
}

impl Seed {
    /// The address, if the entry is one and needs no resolving.
    #[must_use]
    pub fn address(&self) -> Option<std::net::SocketAddr> {
        let ip: IpAddr = self.host.parse().ok()?;
        Some((ip, self.port).into())
    }
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Seed {
    type Err = GossipError;

    fn from_str(entry: &str) -> Result<Self, GossipError> {
        let refuse = |reason| GossipError::MalformedSeed {
            entry: entry.to_owned(),
            reason,
        };
        let (host, port) = split_port(entry).ok_or_else(|| refuse("brackets do not match"))?;
        let port = match port {
            None => PEER_PORT_DEFAULT,
            Some(port) => port
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(|| refuse("the port is a number from 1 to 65535"))?,
        };
        if host.is_empty() || host.len() > HOST_BYTES_MAX {
            return Err(refuse("the host is empty or too long"));
        }
        let is_address = host.parse::<IpAddr>().is_ok();
        let is_name = host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
        if !is_address && !is_name {
            return Err(refuse("the host has a character that no host name has"));
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

/// Parses a comma-separated list. Blanks around entries and empty entries are ignored, and repeated
/// entries are dropped; the order is kept.
///
/// # Errors
/// When an entry is malformed; the error names it.
pub fn parse_list(list: &str) -> Result<Vec<Seed>, GossipError> {
    let mut seeds = Vec::new();
    for entry in list.split(',').map(str::trim).filter(|e| !e.is_empty()) {
        let seed: Seed = entry.parse()?;
        if !seeds.contains(&seed) {
            seeds.push(seed);
        }
    }
    Ok(seeds)
}

/// Splits host and port; `None` when brackets do not match.
fn split_port(entry: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = entry.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, Some(port))),
            None => rest.is_empty().then_some((host, None)),
        };
    }
    // More than one colon without brackets is a bare IPv6 address.
    match entry.split_once(':') {
        Some((host, port)) if !port.contains(':') => Some((host, Some(port))),
        _ => Some((entry, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries() {
        let check = |entry: &str, host: &str, port: u16, shown: &str| {
            let seed: Seed = entry.parse().unwrap();
            assert_eq!((seed.host.as_str(), seed.port), (host, port), "{entry}");
            assert_eq!(seed.to_string(), shown);
        };
        check("a:1", "a", 1, "a:1");
        check(
            "trefoil-headless",
            "trefoil-headless",
            9191,
            "trefoil-headless:9191",
        );
        check("127.0.0.1:9291", "127.0.0.1", 9291, "127.0.0.1:9291");
        check("[::1]:9", "::1", 9, "[::1]:9");
        check("[::1]", "::1", 9191, "[::1]:9191");
        check("fe80::1", "fe80::1", 9191, "[fe80::1]:9191");
    }

    #[test]
    fn malformed_entries_are_named() {
        for entry in [
            "a:", "a:0", "a:70000", "a:x", ":1", "[::1", "[::1]x", "a b:1", "a/b",
        ] {
            let error = entry.parse::<Seed>().unwrap_err().to_string();
            assert!(error.contains(&format!("{entry:?}")), "{error}");
        }
    }

    #[test]
    fn lists() {
        let seeds = parse_list(" a:1, b ,,a:1").unwrap();
        let shown: Vec<String> = seeds.iter().map(Seed::to_string).collect();
        assert_eq!(shown, ["a:1", "b:9191"]);
        assert!(seeds[0].address().is_none());
        assert!(parse_list("").unwrap().is_empty());
        assert!(parse_list("127.0.0.1:1").unwrap()[0].address().is_some());
    }
}
