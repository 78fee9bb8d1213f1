//! Digests: what replicas compare to know whether they hold the same.
//!
//! ```text
//! item   = series hash u128 LE | timestamp i64 LE | value bits u64 LE
//!          | with a histogram or a start timestamp: start i64 LE | the histogram packed, as in `histogram`
//! digest = (sum of xxh3-128(item, seed = key) modulo 2^128, number of items)
//! ```
//! The sum runs over merged, de-duplicated content: it depends neither on the layout in heads and blocks
//! nor on the order of arrival. One digest per tenant, shard, window and key bucket that has items.

use super::View;
use crate::MetricsError;
use crate::columns::SampleRef;
use crate::histogram::pack;
use std::collections::BTreeMap;
use std::sync::Arc;
use trefoil_model::{SeriesHash, ShardId, ShardSet, TenantId, TimeRange, Window};
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// What a digest is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DigestKey {
    /// The tenant.
    pub tenant: TenantId,
    /// The shard.
    pub shard: ShardId,
    /// The window.
    pub window: Window,
    /// Top bits of the series hash; 0 when the question has one bucket.
    pub bucket: u16,
}

/// A keyed sum over a set of items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Digest {
    /// Sum of the items' hashes.
    pub sum: u128,
    /// How many items there are.
    pub items: u64,
}

impl Digest {
    /// Adds another set's digest; the sets have no item in common.
    pub fn add(&mut self, other: Digest) {
        self.sum = self.sum.wrapping_add(other.sum);
        self.items += other.items;
    }

    fn add_item(&mut self, key: u64, series: &[u8; 16], sample: SampleRef<'_>) {
        let mut item = [0; 32];
        item[..16].copy_from_slice(series);
        item[16..24].copy_from_slice(&sample.time.to_le_bytes());
        item[24..].copy_from_slice(&sample.value.to_bits().to_le_bytes());
        let hash = match (sample.histogram, sample.start) {
            (None, 0) => xxh3_128_with_seed(&item, key),
            (histogram, start) => {
                let mut longer = item.to_vec();
                longer.extend_from_slice(&start.to_le_bytes());
                if let Some(histogram) = histogram {
                    pack(histogram, &mut longer);
                }
                xxh3_128_with_seed(&longer, key)
            }
        };
        self.sum = self.sum.wrapping_add(hash);
        self.items += 1;
    }
}

/// The digests of one tenant in one window, by (shard, bucket).
pub(crate) type WindowDigests = BTreeMap<(ShardId, u16), Digest>;

impl View {
    /// The digests of `shards` in the windows that begin in `range`, keyed with `key`, split by the top
    /// `bucket_bits` (at most 16) of the series hash. Windows that are wholly in blocks are remembered.
    ///
    /// # Errors
    /// [`MetricsError::DamagedBlock`].
    pub fn digests(
        &self,
        tenant: Option<TenantId>,
        range: TimeRange,
        shards: &ShardSet,
        key: u64,
        bucket_bits: u32,
    ) -> Result<BTreeMap<DigestKey, Digest>, MetricsError> {
        let mut digests = BTreeMap::new();
        let tenants = self.tenants();
        for tenant in tenants
            .into_iter()
            .filter(|t| tenant.is_none_or(|wanted| wanted == *t))
        {
            let windows = self.windows(tenant);
            for window in windows.into_iter().filter(|w| range.contains(w.start())) {
                let found = self.window_digests(tenant, window, (key, bucket_bits.min(16)))?;
                let wanted = found
                    .iter()
                    .filter(|((shard, _), _)| shards.contains(*shard));
                digests.extend(wanted.map(|(&(shard, bucket), digest)| {
                    let key = DigestKey {
                        tenant,
                        shard,
                        window,
                        bucket,
                    };
                    (key, *digest)
                }));
            }
        }
        Ok(digests)
    }

    /// Of all shards, so that the answer can be remembered whoever asks.
    fn window_digests(
        &self,
        tenant: TenantId,
        window: Window,
        question: (u64, u32),
    ) -> Result<Arc<WindowDigests>, MetricsError> {
        let identity = self.identity(tenant, window);
        if let Some(identity) = &identity
            && let Some(known) = self.digests.get(identity, question)
        {
            return Ok(known);
        }
        let (key, bucket_bits) = question;
        let mut digests = WindowDigests::new();
        let all = ShardSet::all(u16::MAX);
        let mut cursor = self.cursor_with_shards(tenant, window.range(), &all)?;
        while let Some(series) = cursor.next_series()? {
            let hash = SeriesHash::of(tenant, series.canonical).0;
            let bucket = (hash >> 112) as u32 >> (16 - bucket_bits);
            let digest = digests.entry((series.shard, bucket as u16)).or_default();
            for sample in series.samples().iter() {
                digest.add_item(key, &hash.to_le_bytes(), sample);
            }
        }
        let digests = Arc::new(digests);
        if let Some(identity) = identity {
            self.digests.put(identity, question, Arc::clone(&digests));
        }
        Ok(digests)
    }

    /// What the content of a window depends on, when all of it is in blocks.
    fn identity(&self, tenant: TenantId, window: Window) -> Option<Vec<u64>> {
        for part in self.heads.get(&tenant).into_iter().flatten() {
            if part.generation().read().has_window(window) {
                return None;
            }
        }
        Some(self.identity_in_blocks(tenant, window))
    }
}
