//! Blocks of a node: which immutable file sets exist, since when, and up to which journal position
//! they hold everything. The same for all signals; nothing here knows what a block's files say.
//!
//! * [`Manifest`] is the log of facts: one record and one fsync per [`ManifestEdit`].
//! * [`PinnedVersion`] is one consistent view; files of a removed block live until no view has it.
//! * [`BlockFileWriter`] and [`BlockFile`] write and read the files with their checksums.
//!
//! Invariants:
//! * A block's files and their names are durable before the record that adds the block.
//! * What a record says holds together: blocks, flushed position, tombstones and checkpoint of one edit
//!   are found together after a crash, or none of them.
//! * A tombstone is never lifted while its block exists; block ids are never used twice.
//! * Files that no record names are orphans of a crash, and are removed when the manifest is opened.
//!
//! The bytes are drawn in `docs/formats/manifest.md`.

mod block;
mod codec;
mod error;
mod files;
mod manifest;
mod state;

pub use block::{BlockFileEntry, BlockId, BlockMeta, DamagedBlock, TenantSummary};
pub use error::BlocksError;
pub use files::{BlockFile, BlockFileWriter};
pub use manifest::{
    LinkedBlocks, Manifest, ManifestEdit, ManifestOptions, ManifestRecovery, ManifestStatistics,
};
pub use state::{PinnedVersion, VisibleBlock};
