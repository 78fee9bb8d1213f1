//! Parcels: what one request brings to one set of owners, in the one form in which it travels, is
//! journalled and is fetched again.
//!
//! ```text
//! envelope (version, meta length, checksum) | header (meta) | body (tail)
//! ```
//! The header is [`ParcelHeader`]; the body belongs to the storage engine of its signal and is opaque
//! here: one section per shard behind a symbol table of its own. The bytes are made once, by the
//! coordinator, and shared from there on. Which of a parcel's batches count at a node is said by the
//! *accepted* set next to it, in the journal record or the message, never by changing the parcel.

use crate::{Position, ShardError, envelope};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::{fmt, sync::Arc};
use trefoil_model::{
    DeletionVersion, Incarnation, NodeId, RequestSequence, ShardSet, Signal, TenantId,
};

/// The format version of a parcel.
pub const PARCEL_VERSION: u8 = 1;

/// Bytes in front of a parcel's header: those of the envelope.
const PARCEL_PREFIX_BYTES: usize = 9;

/// The number of a request: all its batches share it, each with its own shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestNumber {
    /// The coordinator's run.
    pub incarnation: Incarnation,
    /// The coordinator's running number in that run.
    pub sequence: RequestSequence,
}

/// Says that a parcel was not written by a client but copied out of another owner's blocks and head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ImportNote {
    /// The owner from which the items were copied.
    pub source: NodeId,
    /// All that the copied view held lies before this place of the source's journal, or came to it by
    /// older imports that do. Whoever has the source's journal up to here needs none of the parcel.
    pub covered: Position,
}

/// What is known of a parcel without reading its body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParcelHeader {
    /// Whose items these are.
    pub tenant: TenantId,
    /// What kind of items these are.
    pub signal: Signal,
    /// The request's number: that of the coordinator, or of the importer if there is a note.
    pub number: RequestNumber,
    /// The newest deletion that the coordinator knew; of an import, the one that its source had applied.
    pub deletion: DeletionVersion,
    /// The shards of which the body has a batch. Not empty.
    pub shards: ShardSet,
    /// Where an imported parcel comes from.
    pub import: Option<ImportNote>,
}

/// A parcel. Cheap to clone: header and bytes are shared.
#[derive(Clone, PartialEq, Eq)]
pub struct Parcel {
    header: Arc<ParcelHeader>,
    /// The envelope's prefix and the header.
    head: Bytes,
    body: Bytes,
}

impl Parcel {
    /// Puts a header before a body. The body is not copied.
    #[must_use]
    pub fn new(header: ParcelHeader, body: Bytes) -> Self {
        let mut head = Vec::with_capacity(96);
        envelope::seal_apart(PARCEL_VERSION, &header, &body, &mut head);
        Self {
            header: Arc::new(header),
            head: Bytes::from(head),
            body,
        }
    }

    /// Checks a parcel's bytes; header and body become slices of them.
    ///
    /// # Errors
    /// When the version is unknown, a length is impossible or the checksum differs.
    pub fn decode(bytes: &Bytes) -> Result<Self, ShardError> {
        let (header, body): (ParcelHeader, Bytes) =
            envelope::open("parcel", PARCEL_VERSION, bytes)?;
        let head = bytes.slice(..bytes.len() - body.len());
        if header.shards.is_empty() || head.len() < PARCEL_PREFIX_BYTES {
            return Err(ShardError::Malformed {
                what: "parcel",
                why: "it has no shard".to_owned(),
            });
        }
        Ok(Self {
            header: Arc::new(header),
            head,
            body,
        })
    }

    /// What is known of the parcel without reading its body.
    #[must_use]
    pub fn header(&self) -> &ParcelHeader {
        &self.header
    }

    /// The engine's bytes.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The parcel's bytes in two pieces, which belong directly behind each other.
    #[must_use]
    pub fn pieces(&self) -> [Bytes; 2] {
        [self.head.clone(), self.body.clone()]
    }

    /// How many bytes the parcel has.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.head.len() + self.body.len()
    }
}

impl fmt::Debug for Parcel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.body.len();
        write!(f, "Parcel({:?}, {bytes} bytes)", self.header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Offset;
    use trefoil_model::ShardId;

    pub(crate) fn example() -> Parcel {
        let header = ParcelHeader {
            tenant: TenantId(3),
            signal: Signal::Metrics,
            number: RequestNumber {
                incarnation: Incarnation(0xab),
                sequence: RequestSequence(7),
            },
            deletion: DeletionVersion(2),
            shards: [ShardId(0), ShardId(65)].into_iter().collect(),
            import: Some(ImportNote {
                source: NodeId(9),
                covered: Position {
                    incarnation: Incarnation(0xcd),
                    offset: Offset(1000),
                },
            }),
        };
        Parcel::new(header, Bytes::from_static(b"body"))
    }

    #[test]
    fn bytes_are_frozen() {
        let bytes = example().pieces().concat();
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, include_str!("../tests/golden/parcel.hex").trim());
        assert_eq!(Parcel::decode(&Bytes::from(bytes)), Ok(example()));
    }

    #[test]
    fn damage_is_noticed() {
        let good = example().pieces().concat();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert!(Parcel::decode(&Bytes::from(bad)).is_err(), "byte {at}");
        }
        for length in 0..good.len() {
            assert!(Parcel::decode(&Bytes::copy_from_slice(&good[..length])).is_err());
        }
    }
}
