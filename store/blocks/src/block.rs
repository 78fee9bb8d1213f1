//! What the manifest knows of a block: plain data, immutable once committed.

use std::fmt;
use std::sync::Arc;
use trefoil_model::{DeletionVersion, Millis, ShardSet, Signal, TenantId, TimeRange};

/// A block of this node. Counts up, is never used twice, and means nothing on another node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(pub u64);

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlockId({:x})", self.0)
    }
}

/// One tenant's part of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TenantSummary {
    /// The tenant.
    pub tenant: TenantId,
    /// All of the tenant's deletions up to this one have been applied to the block, and no item in it
    /// came with a higher one.
    pub deletion_version: DeletionVersion,
    /// How many items of the tenant the block has.
    pub items: u64,
}

/// One file of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockFileEntry {
    /// What the file is within the block, for example `index`: lower-case letters, digits and `-`.
    pub name: String,
    /// Its length in bytes.
    pub length: u64,
    /// crc32c of all its bytes.
    pub checksum: u32,
}

/// A block: an immutable file set of one signal and window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockMeta {
    /// Its id, from [`crate::Manifest::reserve_block`].
    pub id: BlockId,
    /// What its items are.
    pub signal: Signal,
    /// The window: start and end are multiples of the smallest window's length.
    pub window: TimeRange,
    /// 0 for a flushed block; a merged one is a level above its highest input.
    pub level: u8,
    /// The tenants inside, ascending, each once.
    pub tenants: Vec<TenantSummary>,
    /// The shards that the block has items of.
    pub shards: ShardSet,
    /// Time of the earliest item.
    pub time_min: Millis,
    /// Time of the latest item, inclusive.
    pub time_max: Millis,
    /// How many items the block has.
    pub items: u64,
    /// Its files, in the order in which they were written; names differ.
    pub files: Vec<BlockFileEntry>,
    /// Bytes of the engine's own (digests, coding statistics); the manifest only keeps them.
    pub note: Vec<u8>,
}

impl BlockMeta {
    /// Sum of the files' lengths in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.length).sum()
    }

    /// The entry of the file with this name.
    #[must_use]
    pub fn file(&self, name: &str) -> Option<&BlockFileEntry> {
        self.files.iter().find(|file| file.name == name)
    }

    /// The tenant's part, if the block has one.
    #[must_use]
    pub fn tenant(&self, tenant: TenantId) -> Option<&TenantSummary> {
        let at = self
            .tenants
            .binary_search_by_key(&tenant, |summary| summary.tenant);
        self.tenants.get(at.ok()?)
    }
}

/// A block that could not be read and has left the visible set: the node lacks these shards in this
/// window until they have been fetched again and [`crate::ManifestEdit::resolve_damaged`] says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedBlock {
    /// The block as it was.
    pub meta: Arc<BlockMeta>,
    /// The shards that were visible in it.
    pub shards: ShardSet,
    /// What was wrong, for people.
    pub why: String,
}
