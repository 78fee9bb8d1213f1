//! Addresses of protocols that a node serves beside its own, or does not.

use serde::Deserialize;
use std::{net::SocketAddr, str::FromStr};

/// Where a protocol's server listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum Listen {
    /// Nowhere.
    Off,
    /// Here; a node that cannot listen there does not start.
    At(SocketAddr),
    /// Here unless another program does, like another node on the same machine. What nobody chose is of this kind.
    IfFree(SocketAddr),
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => Ok(Self::Off),
            text => text.parse().map(Self::At).map_err(|_| {
                format!("{text:?} is neither an IP address and a port, like 0.0.0.0:4317, nor off")
            }),
        }
    }
}

impl TryFrom<String> for Listen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_off() {
        let address = SocketAddr::from(([127, 0, 0, 1], 4317));
        assert_eq!("127.0.0.1:4317".parse(), Ok(Listen::At(address)));
        assert_eq!("off".parse(), Ok(Listen::Off));
        let error = Listen::from_str("4317").unwrap_err();
        assert!(error.starts_with("\"4317\" is neither"), "{error}");
    }
}
