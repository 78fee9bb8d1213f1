//! The frozen hashes of the project. Changing one moves every series, so golden tests pin them.
//!
//! `key hash = xxh3-64(signal key, seed = tenant id)`; `shard = top bits of the key hash`. The signal
//! key is the canonical bytes of a series' or stream's labels, the 16 bytes of a trace id, or empty
//! for alert transitions.

use crate::{ShardId, TenantId};
use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128_with_seed};

/// The identity of a series inside a node: 128 bits of xxh3 over its canonical labels, seeded by tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesHash(pub u128);

impl SeriesHash {
    /// The identity of the series with these canonical label bytes.
    #[must_use]
    pub fn of(tenant: TenantId, canonical: &[u8]) -> Self {
        Self(xxh3_128_with_seed(canonical, u64::from(tenant.0)))
    }
}

/// The hash that places a signal key.
#[must_use]
pub fn key_hash(tenant: TenantId, signal_key: &[u8]) -> u64 {
    xxh3_64_with_seed(signal_key, u64::from(tenant.0))
}

/// The shard of a key hash among `shards`, which is a power of two.
#[must_use]
pub fn shard_of(key_hash: u64, shards: u16) -> ShardId {
    assert!(
        shards.is_power_of_two(),
        "the number of shards is a power of two"
    );
    if shards == 1 {
        return ShardId(0);
    }
    ShardId((key_hash >> (64 - shards.trailing_zeros())) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_frozen() {
        assert_eq!(
            key_hash(TenantId(0), b"\x08__name__\x02up"),
            10_711_100_763_108_482_762
        );
        assert_eq!(shard_of(0xff00_0000_0000_0000, 256), ShardId(255));
        assert_eq!(shard_of(u64::MAX, 1), ShardId(0));
    }
}
