//! How many series there are, by labels and values, counted in the label indexes.
//!
//! Where one source has all series their postings say it, without looking at any of them. Series of several sources are
//! told apart by their hashes, for which their labels are read once; that takes 8 to 18 bytes for each series while
//! it lasts.

use super::View;
use super::selection::Source;
use crate::dense::DenseSet;
use crate::{Matcher, MetricsError};
use hashbrown::HashTable;
use roaring::RoaringBitmap;
use std::ops::ControlFlow;
use trefoil_model::{SeriesHash, ShardSet, TenantId, TimeRange};

impl View {
    /// Counts the series of `shards` that satisfy all matchers of one of the alternatives, each once. `each` is told label
    /// names, values and how many series have them, in no order and perhaps in several portions, until it breaks; `names`
    /// are the labels of interest, all when there are none. `range` is that of [`View::series`]. `go_on` is told how many more
    /// bytes are held until the end, often nothing, and ends it all by breaking. `None`: there are deletions that blocks have
    /// not applied yet, so that only [`View::series`] tells.
    ///
    /// # Errors
    /// [`MetricsError::DamagedBlock`].
    pub fn count_series(
        &self,
        tenant: TenantId,
        alternatives: &[Vec<Matcher>],
        (range, shards): (TimeRange, &ShardSet),
        names: &[String],
        mut each: impl FnMut(&str, &str, u64) -> ControlFlow<()>,
        mut go_on: impl FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Option<u64>, MetricsError> {
        if !self.deletions(tenant).is_empty() {
            return Ok(None);
        }
        let sources = self.sources(tenant, range, shards)?;
        let mut seen = HashTable::new();
        let mut series = 0;
        for source in &sources {
            let mut found = RoaringBitmap::new();
            for matchers in alternatives {
                if go_on(0).is_break() {
                    return Ok(Some(series));
                }
                found |= source.find(matchers)?;
            }
            if sources.len() > 1 {
                let new = unseen(source, tenant, &found, &mut seen, &mut go_on)?;
                let Some(new) = new else {
                    return Ok(Some(series));
                };
                found = new;
            }
            series += found.len();
            let limit = found.max().map_or(0, |last| last + 1);
            let found = DenseSet::of(&found, limit);
            if count_values(source, &found, names, &mut each)?.is_break() {
                break;
            }
        }
        Ok(Some(series))
    }
}

/// Series whose labels are read between two questions whether to go on: some milliseconds.
const READ_AT_ONCE: usize = 16_384;

/// Memory of a series that is told apart: its hash in a table that is half full, and its number.
const SEEN_BYTES: usize = 24;

/// Of the series that were found in a source, those that no source before it had; none when it was ended.
fn unseen(
    source: &Source,
    tenant: TenantId,
    found: &RoaringBitmap,
    seen: &mut HashTable<u64>,
    go_on: &mut impl FnMut(usize) -> ControlFlow<()>,
) -> Result<Option<RoaringBitmap>, MetricsError> {
    let mut new = Vec::new();
    let mut numbers = found.iter();
    loop {
        let some: RoaringBitmap = numbers.by_ref().take(READ_AT_ONCE).collect();
        if some.is_empty() {
            return Ok(Some(new.into_iter().collect()));
        }
        let before = new.len();
        source.labels(&some, false, |number, canonical, _| {
            let hash = SeriesHash::of(tenant, canonical).0 as u64;
            if seen.find(hash, |other| *other == hash).is_none() {
                seen.insert_unique(hash, hash, |hash| *hash);
                new.push(number);
            }
        })?;
        if go_on((new.len() - before) * SEEN_BYTES).is_break() {
            return Ok(None);
        }
    }
}

fn count_values(
    source: &Source,
    among: &DenseSet,
    names: &[String],
    each: &mut impl FnMut(&str, &str, u64) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, MetricsError> {
    let mut of_source = source.all_label_names();
    if !names.is_empty() {
        of_source.retain(|name| names.contains(name));
    }
    for name in &of_source {
        // Label texts are UTF-8: the body reader checked them.
        let each = |value: &[u8], count| each(name, &String::from_utf8_lossy(value), count);
        let flow = match source {
            Source::Head { part, .. } => part.count_values(name.as_bytes(), among, each),
            Source::Block { reader, .. } => reader.count_values(name.as_bytes(), among, each)?,
        };
        if flow.is_break() {
            return Ok(flow);
        }
    }
    Ok(ControlFlow::Continue(()))
}
