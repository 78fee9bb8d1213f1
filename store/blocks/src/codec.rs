//! The records of the manifest log as bytes. Drawn in `docs/formats/manifest.md`.
//!
//! A record is a format byte and a list of operations, each a tag, a length and a body. A snapshot
//! is a record like any other: `Reset` and what rebuilds the state. Decoding random bytes never
//! panics and never allocates more than the bytes at hand account for.

use crate::{BlockFileEntry, BlockId, BlockMeta, DamagedBlock, TenantSummary};
use std::sync::Arc;
use trefoil_model::{
    DeletionVersion, LineageId, ShardSet, Signal, TenantId, TimeRange, read_varint, write_varint,
};

const RECORD_FORMAT: u8 = 1;

/// Words of the largest shard set: `ShardId` has 16 bits.
const SHARD_WORDS_MAX: usize = 1024;

/// One change of the manifest's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Forget everything: a snapshot follows.
    Reset,
    /// The history that the node's data belongs to.
    Lineage(LineageId),
    /// Everything below this journal offset is in blocks.
    FlushedTo(u64),
    /// The replication protocol's own durable facts.
    Checkpoint(Vec<u8>),
    /// Ids below this one have been used.
    NextBlock(u64),
    /// A block is there.
    Add(Arc<BlockMeta>),
    /// A block is gone.
    Remove(BlockId),
    /// Shards of a block are invisible for ever.
    Tombstone(BlockId, ShardSet),
    /// A block is unreadable; it is gone if it was there.
    Damaged(DamagedBlock),
    /// A damaged block's content has been fetched again.
    Resolved(BlockId),
}

pub(crate) fn encode_record(operations: &[Operation]) -> Vec<u8> {
    let mut out = vec![RECORD_FORMAT];
    for operation in operations {
        let (tag, body) = encode_operation(operation);
        out.push(tag);
        write_varint(&mut out, body.len() as u64);
        out.extend_from_slice(&body);
    }
    out
}

/// The operations of a record, or what in it is not understood.
pub(crate) fn decode_record(bytes: &[u8]) -> Result<Vec<Operation>, &'static str> {
    let mut reader = Reader { bytes, at: 0 };
    if reader.byte() != Some(RECORD_FORMAT) {
        return Err("record format");
    }
    let mut operations = Vec::new();
    while reader.at < bytes.len() {
        let tag = reader.byte().ok_or("operation tag")?;
        let body = reader.sized().ok_or("operation length")?;
        let mut body = Reader { bytes: body, at: 0 };
        let operation = decode_operation(tag, &mut body)?;
        if body.at != body.bytes.len() {
            return Err("operation with extra bytes");
        }
        operations.push(operation);
    }
    Ok(operations)
}

fn encode_operation(operation: &Operation) -> (u8, Vec<u8>) {
    let mut out = Vec::new();
    let tag = match operation {
        Operation::Reset => 1,
        Operation::Lineage(lineage) => {
            out.extend_from_slice(&lineage.0.to_le_bytes());
            2
        }
        Operation::FlushedTo(offset) => {
            write_varint(&mut out, *offset);
            3
        }
        Operation::Checkpoint(bytes) => {
            out.extend_from_slice(bytes);
            4
        }
        Operation::NextBlock(next) => {
            write_varint(&mut out, *next);
            5
        }
        Operation::Add(meta) => {
            write_meta(&mut out, meta);
            6
        }
        Operation::Remove(block) => {
            write_varint(&mut out, block.0);
            7
        }
        Operation::Tombstone(block, shards) => {
            write_varint(&mut out, block.0);
            write_shards(&mut out, shards);
            8
        }
        Operation::Damaged(damaged) => {
            write_meta(&mut out, &damaged.meta);
            write_shards(&mut out, &damaged.shards);
            write_sized(&mut out, damaged.why.as_bytes());
            9
        }
        Operation::Resolved(block) => {
            write_varint(&mut out, block.0);
            10
        }
    };
    (tag, out)
}

fn decode_operation(tag: u8, body: &mut Reader<'_>) -> Result<Operation, &'static str> {
    let operation = match tag {
        1 => Some(Operation::Reset),
        2 => body
            .array()
            .map(|bytes| Operation::Lineage(LineageId(u128::from_le_bytes(bytes)))),
        3 => body.varint().map(Operation::FlushedTo),
        4 => Some(Operation::Checkpoint(body.rest().to_owned())),
        5 => body.varint().map(Operation::NextBlock),
        6 => body.meta().map(|meta| Operation::Add(Arc::new(meta))),
        7 => body.varint().map(|id| Operation::Remove(BlockId(id))),
        8 => body.tombstone(),
        9 => body.damaged().map(Operation::Damaged),
        10 => body.varint().map(|id| Operation::Resolved(BlockId(id))),
        _ => return Err("operation tag"),
    };
    operation.ok_or("operation body")
}

fn write_sized(out: &mut Vec<u8>, bytes: &[u8]) {
    write_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn write_shards(out: &mut Vec<u8>, shards: &ShardSet) {
    write_varint(out, shards.words().len() as u64);
    for word in shards.words() {
        out.extend_from_slice(&word.to_le_bytes());
    }
}

fn write_meta(out: &mut Vec<u8>, meta: &BlockMeta) {
    write_varint(out, meta.id.0);
    out.push(meta.signal as u8);
    out.push(meta.level);
    for time in [
        meta.window.start,
        meta.window.end,
        meta.time_min,
        meta.time_max,
    ] {
        out.extend_from_slice(&time.to_le_bytes());
    }
    write_varint(out, meta.items);
    write_shards(out, &meta.shards);
    write_varint(out, meta.tenants.len() as u64);
    for summary in &meta.tenants {
        write_varint(out, u64::from(summary.tenant.0));
        write_varint(out, summary.deletion_version.0);
        write_varint(out, summary.items);
    }
    write_varint(out, meta.files.len() as u64);
    for file in &meta.files {
        write_sized(out, file.name.as_bytes());
        write_varint(out, file.length);
        out.extend_from_slice(&file.checksum.to_le_bytes());
    }
    write_sized(out, &meta.note);
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let bytes = self.bytes.get(self.at..)?.first_chunk()?;
        self.at += N;
        Some(*bytes)
    }

    fn varint(&mut self) -> Option<u64> {
        read_varint(self.bytes, &mut self.at)
    }

    fn sized(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.varint()?).ok()?;
        let bytes = self.bytes.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(bytes)
    }

    fn rest(&mut self) -> &'a [u8] {
        let rest = &self.bytes[self.at..];
        self.at = self.bytes.len();
        rest
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.sized()?.to_owned()).ok()
    }

    fn time(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }

    fn shards(&mut self) -> Option<ShardSet> {
        let count = usize::try_from(self.varint()?).ok()?;
        if count > SHARD_WORDS_MAX {
            return None;
        }
        let words: Option<Vec<u64>> = (0..count)
            .map(|_| self.array().map(u64::from_le_bytes))
            .collect();
        Some(ShardSet::from_words(words?))
    }

    fn tombstone(&mut self) -> Option<Operation> {
        let block = BlockId(self.varint()?);
        Some(Operation::Tombstone(block, self.shards()?))
    }

    fn damaged(&mut self) -> Option<DamagedBlock> {
        Some(DamagedBlock {
            meta: Arc::new(self.meta()?),
            shards: self.shards()?,
            why: self.text()?,
        })
    }

    fn meta(&mut self) -> Option<BlockMeta> {
        Some(BlockMeta {
            id: BlockId(self.varint()?),
            signal: Signal::from_byte(self.byte()?)?,
            level: self.byte()?,
            window: TimeRange {
                start: self.time()?,
                end: self.time()?,
            },
            time_min: self.time()?,
            time_max: self.time()?,
            items: self.varint()?,
            shards: self.shards()?,
            tenants: self.list(Self::tenant)?,
            files: self.list(Self::file)?,
            note: self.sized()?.to_owned(),
        })
    }

    /// A counted list. An element takes at least one byte, so the count is bounded by the bytes left.
    fn list<T>(&mut self, element: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = usize::try_from(self.varint()?).ok()?;
        if count > self.bytes.len() - self.at {
            return None;
        }
        (0..count).map(|_| element(self)).collect()
    }

    fn tenant(&mut self) -> Option<TenantSummary> {
        Some(TenantSummary {
            tenant: TenantId(u32::try_from(self.varint()?).ok()?),
            deletion_version: DeletionVersion(self.varint()?),
            items: self.varint()?,
        })
    }

    fn file(&mut self) -> Option<BlockFileEntry> {
        Some(BlockFileEntry {
            name: self.text()?,
            length: self.varint()?,
            checksum: self.array().map(u32::from_le_bytes)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use trefoil_model::{ShardId, WINDOW_MILLIS};

    fn every_operation() -> Vec<Operation> {
        let shards: ShardSet = [0, 70, 255].map(ShardId).into_iter().collect();
        let meta = Arc::new(BlockMeta {
            id: BlockId(300),
            signal: Signal::Metrics,
            window: TimeRange {
                start: -WINDOW_MILLIS,
                end: 0,
            },
            level: 2,
            tenants: vec![TenantSummary {
                tenant: TenantId(7),
                deletion_version: DeletionVersion(3),
                items: 1000,
            }],
            shards: shards.clone(),
            time_min: -5,
            time_max: -1,
            items: 1000,
            files: vec![BlockFileEntry {
                name: "index".to_owned(),
                length: 4000,
                checksum: 0xdead_beef,
            }],
            note: b"n".to_vec(),
        });
        vec![
            Operation::Reset,
            Operation::Lineage(LineageId(0x0123_4567)),
            Operation::FlushedTo(1 << 40),
            Operation::Checkpoint(b"check".to_vec()),
            Operation::NextBlock(301),
            Operation::Add(meta.clone()),
            Operation::Remove(BlockId(1)),
            Operation::Tombstone(BlockId(300), shards.clone()),
            Operation::Damaged(DamagedBlock {
                meta,
                shards,
                why: "checksum".to_owned(),
            }),
            Operation::Resolved(BlockId(300)),
        ]
    }

    #[test]
    fn records_are_frozen() {
        let record = encode_record(&every_operation());
        let hexadecimal: String = record.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hexadecimal, include_str!("golden/record.hex").trim());
        assert_eq!(decode_record(&record), Ok(every_operation()));
    }

    #[test]
    fn cut_and_changed_records_never_panic() {
        let record = encode_record(&every_operation());
        for length in 0..record.len() {
            // A cut between two operations is a shorter list; any other cut is refused.
            if let Ok(operations) = decode_record(&record[..length]) {
                assert!(every_operation().starts_with(&operations));
            }
        }
        let mut state = 1u64;
        for _ in 0..200_000 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let mut changed = record.clone();
            let at = (state >> 33) as usize % changed.len();
            changed[at] = (state >> 20) as u8;
            // Any answer is right, as long as there is one.
            drop(decode_record(&changed));
        }
    }
}
