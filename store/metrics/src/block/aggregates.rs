//! The second file of a merged block of a closed window: the aggregates of its series at every resolution.
//!
//! ```text
//! file      = header | piece* | trailer               pieces, pointers, header and trailer as in the block's data
//! header    = magic "TREFOILA" | version u8 (1) | 7 zero bytes
//! footer    = varint tenants | per tenant, ascending: varint tenant | varint series | varint resolutions
//!             | per resolution, ascending: varint milliseconds | shapes: list | data: list
//! list      = varint count | per piece: varint things | pointer
//! shapes    = varint shapes | per shape: varint buckets | per bucket:
//!             varint buckets behind the one before (the first: behind the one that ends where the window starts)
//!             | varint samples << 1 | whether a stale marker stands behind them
//!             | with samples: varint first time behind the bucket's left end
//!             | with two or more: varint last time behind the first
//! data      = varint series | per series: zigzag varint shape behind the previous series' (the first: behind 0)
//!             | varint length of the values ; then the values of all series, as drawn in `values`
//! ```
//! Series have the numbers that they have in the data, from which label index and labels are taken; a shape is stored once for all
//! series that were scraped together. Length 0: the series has native histograms or start timestamps, and only its samples know.
//! The bucket that ends where the window starts can have one sample, at that very millisecond; the others are the previous window's.
//!
//! Both files of a block are written in one pass and named by one record: aggregates are never those of other samples.

mod read;
#[cfg(test)]
mod tests;
mod values;
mod write;

pub(crate) use read::{AggregatesReader, TenantAggregates};
pub(crate) use write::AggregatesWriter;

const MAGIC: [u8; 8] = *b"TREFOILA";

const VERSION: u8 = 1;
