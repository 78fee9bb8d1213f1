//! Ids are types, never bare integers. Every id prints as fixed-width lower-case hexadecimal (the
//! small counting ones as decimal) and parses from the same text.

use crate::ModelError;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

macro_rules! hexadecimal_id {
    ($(#[$doc:meta])* $name:ident, $inner:ty, $digits:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!("{:0", $digits, "x}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:x})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = ModelError;
            fn from_str(text: &str) -> Result<Self, ModelError> {
                let malformed = || ModelError::MalformedId {
                    what: $what,
                    text: text.to_owned(),
                    digits: $digits,
                };
                if text.len() != $digits || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
                    return Err(malformed());
                }
                <$inner>::from_str_radix(text, 16).map(Self).map_err(|_| malformed())
            }
        }
    };
}

macro_rules! counting_id {
    ($(#[$doc:meta])* $name:ident, $inner:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        pub struct $name(pub $inner);

        impl $name {
            /// The number after this one.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

hexadecimal_id!(
    /// One node: drawn at random when its data directory is made, kept there, never zero.
    NodeId, u64, 16, "node id"
);
hexadecimal_id!(
    /// One cluster: drawn by the proposer at bootstrap. Nodes of different clusters refuse each other.
    ClusterId, u128, 32, "cluster id"
);
hexadecimal_id!(
    /// One run of one node's process: drawn at random at each start.
    Incarnation, u128, 32, "incarnation"
);
hexadecimal_id!(
    /// One unbroken history of a data directory. A node that lost data it acknowledged gets a new one.
    LineageId, u128, 32, "lineage id"
);
counting_id!(
    /// A tenant's internal id. Given by the metadata plane, never reused. 0 is `anonymous`.
    TenantId, u32
);
counting_id!(
    /// A slice of the hash space, `0..shards`.
    ShardId, u16
);
counting_id!(
    /// The number of a shard's configuration. Rises by one with each change; each shard counts alone.
    ConfigurationNumber, u64
);
counting_id!(
    /// The number of the newest deletion that the holder knows, per tenant. 0: none.
    DeletionVersion, u64
);
counting_id!(
    /// A coordinator's running number of a write request inside one incarnation, from 1.
    RequestSequence, u64
);

/// A node's name as people know it (`--node-name`), unique in the cluster.
pub type NodeName = String;

/// The failure zone that an operator gave a node; empty when none was given.
pub type Zone = String;

/// What kind of telemetry an item belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Signal {
    /// Samples of series.
    Metrics = 1,
    /// Entries of log streams.
    Logs = 2,
    /// Spans of traces.
    Traces = 3,
    /// Transitions of alerts.
    Alerts = 4,
}

impl Signal {
    /// The signal that this byte names on disk and on the wire, if it names one.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Metrics),
            2 => Some(Self::Logs),
            3 => Some(Self::Traces),
            4 => Some(Self::Alerts),
            _ => None,
        }
    }
}
