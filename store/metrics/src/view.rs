//! A view: what the engine held at one moment, pinned for as long as the view lives.
//!
//! A view answers from a manifest version (its blocks' files stay on disk) and from the generations of
//! the head that were not in blocks then. Both may hold the same samples: whatever a view yields is
//! merged and de-duplicated. Shards that were dropped, samples below the retention cut-off and deleted samples
//! are not in it, whether or not they have left the files yet.

mod aggregates;
mod cardinality;
mod cursor;
mod digest;
mod export;
mod selection;
mod stamp;

pub(crate) use cursor::extend_without;
pub use cursor::{COMPARED_WITHIN, SeriesCursor, SeriesSamples};
pub(crate) use digest::WindowDigests;
pub use digest::{Digest, DigestKey};
pub use export::{Export, ExportCursor, ExportedBody};
pub use stamp::{Stamp, Stamps};

use crate::block::Pieces;
use crate::body::{MetadataRoom, MetricMetadata};
use crate::deletion::{Deletion, SelectedCutOff};
use crate::engine::{BlockReaders, DigestCache, Policy, Unselected};
use crate::exemplars::{Exemplar, Exemplars, WantedExemplars};
use crate::head::HeadPart;
use crate::order::SeriesOrder;
use crate::{Matcher, MetricsError};
use aggregates::Aggregated;
use cursor::reaching_back;
use roaring::RoaringBitmap;
use selection::Source;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use trefoil_model::{
    DeletionVersion, Millis, Resolution, ShardId, ShardSet, TenantId, TimeRange, Window,
};
use trefoil_store_blocks::VisibleBlock;

/// What the engine held at one moment. Cheap to make and to keep for as long as a query runs.
pub struct View {
    pub(crate) blocks: Vec<VisibleBlock>,
    pub(crate) heads: BTreeMap<TenantId, Vec<HeadPart>>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) readers: Arc<BlockReaders>,
    pub(crate) digests: Arc<DigestCache>,
    pub(crate) unselected: Arc<Unselected>,
    pub(crate) exemplars: Arc<Exemplars>,
}

impl View {
    /// The tenants that have anything, ascending.
    #[must_use]
    pub fn tenants(&self) -> BTreeSet<TenantId> {
        let of_blocks = self.blocks.iter().flat_map(|block| &block.meta.tenants);
        let tenants = of_blocks.map(|summary| summary.tenant);
        tenants.chain(self.heads.keys().copied()).collect()
    }

    /// The windows in which a tenant has anything, ascending.
    #[must_use]
    pub fn windows(&self, tenant: TenantId) -> BTreeSet<Window> {
        let blocks = self.blocks.iter();
        let blocks = blocks.filter(|block| block.meta.tenant(tenant).is_some());
        let mut windows: BTreeSet<Window> = blocks
            .map(|block| Window::containing(block.meta.window.start))
            .collect();
        for part in self.heads.get(&tenant).into_iter().flatten() {
            windows.extend(part.generation().read().windows());
        }
        windows
    }

    fn deletions(&self, tenant: TenantId) -> &[Deletion] {
        self.policy.deletions(tenant)
    }

    /// What takes samples out of a block: deletions that it has not applied, and cut-offs of selectors that may select
    /// something in it.
    fn erasing(&self, tenant: TenantId, block: &VisibleBlock) -> Vec<Deletion> {
        let meta = &block.meta;
        let applied = meta.tenant(tenant).map(|summary| summary.deletion_version);
        let touches = |range: TimeRange| range.start <= meta.time_max && range.end > meta.time_min;
        let deletions = self.policy.deletions(tenant).iter();
        let deletions = deletions.filter(|deletion| Some(deletion.version) > applied);
        let selected = self.policy.selected(tenant).iter();
        let selected = selected.filter(|cut_off| {
            cut_off.before > meta.time_min && !self.unselected.has(meta.id, tenant, cut_off)
        });
        let all = deletions
            .cloned()
            .chain(selected.map(SelectedCutOff::deletion));
        all.filter(|deletion| touches(deletion.range)).collect()
    }

    /// The newest deletion that everything in the view has applied.
    fn applied_deletions(&self, tenant: TenantId) -> Result<DeletionVersion, MetricsError> {
        let blocks = self.blocks.iter();
        let of_blocks = blocks.filter_map(|block| block.meta.tenant(tenant));
        let of_blocks = of_blocks.map(|summary| summary.deletion_version);
        let heads = self.heads.get(&tenant).into_iter().flatten();
        let of_heads = heads.map(|part| part.generation().read().version_max());
        self.policy.claim(tenant, of_blocks.chain(of_heads))
    }

    /// The range without what the tenant's retention has cut off.
    fn retained(&self, tenant: TenantId, range: TimeRange) -> TimeRange {
        let cut_off = self.policy.cut_off(tenant);
        TimeRange {
            start: range.start.max(cut_off),
            end: range.end.max(cut_off),
        }
    }

    /// As queries come to pieces.
    fn keep(&self) -> Pieces {
        Pieces::Keep(Arc::clone(self.readers.kept()))
    }

    /// Where the tenant's series are, for a query.
    fn sources(
        &self,
        tenant: TenantId,
        range: TimeRange,
        shards: &ShardSet,
    ) -> Result<Vec<Source>, MetricsError> {
        self.sources_with(tenant, (range, range), shards, &self.keep(), &mut None)
    }

    /// The sources of a range, and those of a wider one that have histograms; their aggregates go where they are wanted.
    fn sources_with(
        &self,
        tenant: TenantId,
        (range, wider): (TimeRange, TimeRange),
        shards: &ShardSet,
        pieces: &Pieces,
        aggregated: &mut Option<Aggregated>,
    ) -> Result<Vec<Source>, MetricsError> {
        let mut sources = Vec::new();
        let (range, wider) = (self.retained(tenant, range), self.retained(tenant, wider));
        for block in &self.blocks {
            let overlaps = |range: TimeRange| {
                block.meta.time_min < range.end && block.meta.time_max >= range.start
            };
            if !overlaps(wider) || block.meta.tenant(tenant).is_none() {
                continue;
            }
            let visible = block.shards.intersection(shards);
            let reader = match pieces {
                Pieces::OnlyKept(_) => self.readers.opened(&block.meta),
                Pieces::Read | Pieces::Keep(_) => Some(self.readers.get(&block.meta)?),
            };
            let reader = reader.ok_or(MetricsError::NotKept)?;
            if reader.version().is_plain() && !overlaps(range) {
                continue;
            }
            let times = (block.meta.time_min, block.meta.time_max);
            let erasing = self.erasing(tenant, block);
            let source = Source::block(&reader, tenant, &visible, times, erasing, pieces.clone())?;
            let Some(source) = source else {
                continue;
            };
            if let Some(aggregated) = aggregated {
                let resolution = aggregated.resolution;
                let reader = self.aggregates_of(tenant, block, &source, resolution)?;
                aggregated.readers.push(reader);
            }
            sources.push(source);
        }
        // In order of time, so that samples mostly arrive sorted.
        let parts = self.heads.get(&tenant).into_iter().flatten();
        let reached = |part: &&HeadPart| match part.is_plain() {
            true => part.overlaps(&range),
            false => part.overlaps(&wider),
        };
        for part in parts.filter(reached) {
            sources.push(Source::Head {
                part: part.clone(),
                shards: shards.clone(),
                deletions: self.policy.erasing(tenant).to_vec(),
            });
            if let Some(aggregated) = aggregated {
                aggregated.readers.push(None);
            }
        }
        Ok(sources)
    }

    /// A cursor over the series of `shards` that satisfy all matchers, with their samples in `range`.
    ///
    /// # Errors
    /// [`MetricsError::DamagedBlock`].
    pub fn cursor(
        &self,
        tenant: TenantId,
        matchers: &[Matcher],
        range: TimeRange,
        shards: &ShardSet,
    ) -> Result<SeriesCursor, MetricsError> {
        let sources = self.sources(tenant, range, shards)?;
        let range = self.retained(tenant, range);
        SeriesCursor::new(sources, matchers, range, false, SeriesOrder::Label)
    }

    /// A cursor over what several views have of their shards together, in ascending label order, each sample once: views of
    /// replicas. What one of them hides by its retention is in none.
    ///
    /// # Errors
    /// [`MetricsError::DamagedBlock`].
    pub fn cursor_over(
        views: &[(&Self, ShardSet)],
        tenant: TenantId,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<SeriesCursor, MetricsError> {
        let retained = views
            .iter()
            .fold(range, |range, (view, _)| view.retained(tenant, range));
        let mut sources = Vec::new();
        for (view, shards) in views {
            sources.extend(view.sources(tenant, retained, shards)?);
        }
        SeriesCursor::new(sources, matchers, retained, false, SeriesOrder::Label)
    }

    /// The same cursor for evaluations: in the order in which blocks store series (by metric name, job, instance, then all
    /// labels), which takes least memory and time, and with hints in histograms that continue the one before them.
    ///
    /// # Errors
    /// [`MetricsError::DamagedBlock`].
    pub fn cursor_in_block_order(
        &self,
        tenant: TenantId,
        matchers: &[Matcher],
        range: TimeRange,
        shards: &ShardSet,
    ) -> Result<SeriesCursor, MetricsError> {
        let retained = self.retained(tenant, range);
        let (pieces, wider) = (self.keep(), reaching_back(range));
        let sources = self.sources_with(tenant, (range, wider), shards, &pieces, &mut None)?;
        let cursor = SeriesCursor::new(sources, matchers, retained, false, SeriesOrder::Block)?;
        Ok(cursor.comparing())
    }

    /// The same, if what blocks have of it is in memory and the matchers name the values that satisfy them. `None` also when a block or a
    /// head has more than `series_max` of the series: it takes little time to say so. The cursor fails with [`MetricsError::NotKept`]
    /// where it would have to read.
    ///
    /// # Errors
    /// [`MetricsError::DamagedBlock`], [`MetricsError::NotKept`].
    pub fn cursor_in_memory(
        &self,
        tenant: TenantId,
        matchers: &[Matcher],
        range: TimeRange,
        shards: &ShardSet,
        series_max: u64,
    ) -> Result<Option<SeriesCursor>, MetricsError> {
        if !matchers.iter().all(Matcher::names_its_values) {
            return Ok(None);
        }
        let retained = self.retained(tenant, range);
        let pieces = Pieces::OnlyKept(Arc::clone(self.readers.kept()));
        let wider = reaching_back(range);
        let sources = self.sources_with(tenant, (range, wider), shards, &pieces, &mut None)?;
        let cursor = SeriesCursor::over_few(sources, matchers, retained, series_max)?;
        Ok(cursor.map(SeriesCursor::comparing))
    }

    /// A cursor over the same series, in block order too, that gives aggregates of the buckets which have a part in
    /// `range`; samples of series whose samples cannot be aggregated. Only buckets that lie in the range are whole.
    ///
    /// # Errors
    /// [`MetricsError::DamagedBlock`].
    pub fn aggregates(
        &self,
        tenant: TenantId,
        matchers: &[Matcher],
        range: TimeRange,
        shards: &ShardSet,
        resolution: Resolution,
    ) -> Result<SeriesCursor, MetricsError> {
        let retained = self.retained(tenant, range);
        let mut aggregated = Some(Aggregated::new(&self.readers, resolution, retained));
        let pieces = self.keep();
        let sources =
            self.sources_with(tenant, (range, range), shards, &pieces, &mut aggregated)?;
        if let Some(aggregated) = &aggregated
            && aggregated.readers.iter().any(Option::is_some)
        {
            self.readers.count_aggregated();
        }
        let cursor = SeriesCursor::new(sources, matchers, retained, false, SeriesOrder::Block)?;
        Ok(cursor.aggregated(aggregated))
    }

    /// For what goes through everything once.
    fn cursor_with_shards(
        &self,
        tenant: TenantId,
        range: TimeRange,
        shards: &ShardSet,
    ) -> Result<SeriesCursor, MetricsError> {
        let sources =
            self.sources_with(tenant, (range, range), shards, &Pieces::Read, &mut None)?;
        let range = self.retained(tenant, range);
        SeriesCursor::new(sources, &[], range, true, SeriesOrder::Label)
    }

    /// Streams the series that satisfy all matchers and have samples in `range`, in ascending label order,
    /// until `each` breaks.
    ///
    /// # Errors
    /// [`MetricsError::DamagedBlock`]; series that came before are right.
    pub fn select(
        &self,
        tenant: TenantId,
        matchers: &[Matcher],
        range: TimeRange,
        shards: &ShardSet,
        mut each: impl FnMut(SeriesSamples<'_>) -> ControlFlow<()>,
    ) -> Result<(), MetricsError> {
        let mut cursor = self.cursor(tenant, matchers, range, shards)?;
        while let Some(series) = cursor.next_series()? {
            if each(series).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The canonical labels of the series that satisfy all matchers, in ascending label order, until
    /// `each` breaks. `range` selects blocks and generations of the head, by the windows that they have samples in.
    ///
    /// # Errors
    /// [`MetricsError::DamagedBlock`].
    pub fn series(
        &self,
        tenant: TenantId,
        matchers: &[Matcher],
        range: TimeRange,
        shards: &ShardSet,
        mut each: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), MetricsError> {
        if !self.deletions(tenant).is_empty() {
            let each_series = |series: SeriesSamples<'_>| each(series.canonical);
            return self.select(tenant, matchers, range, shards, each_series);
        }
        let cursor = self.cursor(tenant, matchers, range, shards)?;
        for canonical in cursor.labels() {
            if each(canonical).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Canonical labels and shard of every series of the blocks that have something in `range`, block by block, so that one
    /// which is in several comes several times.
    pub(crate) fn each_series_of_blocks(
        &self,
        tenant: TenantId,
        range: TimeRange,
        shards: &ShardSet,
        mut each: impl FnMut(&[u8], ShardId),
    ) -> Result<(), MetricsError> {
        for source in self.sources_with(tenant, (range, range), shards, &Pieces::Read, &mut None)? {
            if matches!(source, Source::Block { .. }) {
                let found = self.found(&source, tenant, &[], range)?;
                source.labels(&found, true, |_, canonical, shard| each(canonical, shard))?;
            }
        }
        Ok(())
    }

    /// The label names of the series that satisfy all matchers, ascending.
    ///
    /// # Errors
    /// [`MetricsError::DamagedBlock`].
    pub fn label_names(
        &self,
        tenant: TenantId,
        matchers: &[Matcher],
        range: TimeRange,
        shards: &ShardSet,
    ) -> Result<Vec<String>, MetricsError> {
        let mut names = BTreeSet::new();
        for source in self.sources(tenant, range, shards)? {
            let found = self.found(&source, tenant, matchers, range)?;
            let each = |name: &[u8]| {
                if !names.contains(name) {
                    names.insert(name.to_vec());
                }
            };
            match &source {
                Source::Head { part, .. } => part.label_names(&found, each),
                Source::Block { reader, .. } => reader.label_names(&found, each)?,
            }
        }
        Ok(texts(names.into_iter().collect()))
    }

    /// The values of label `name` on the series that satisfy all matchers, ascending.
    ///
    /// # Errors
    /// [`MetricsError::DamagedBlock`].
    pub fn label_values(
        &self,
        tenant: TenantId,
        name: &str,
        matchers: &[Matcher],
        range: TimeRange,
        shards: &ShardSet,
    ) -> Result<Vec<String>, MetricsError> {
        let mut values = Vec::new();
        let name = name.as_bytes();
        for source in self.sources(tenant, range, shards)? {
            let found = self.found(&source, tenant, matchers, range)?;
            let each = |value: &[u8]| values.push(value.to_vec());
            match &source {
                Source::Head { part, .. } => part.label_values(name, &found, each),
                Source::Block { reader, .. } => reader.label_values(name, &found, each)?,
            }
            // Of each value of the sources so far one is kept; what is in order already is only walked along.
            values.sort();
            values.dedup();
        }
        Ok(texts(values))
    }

    /// The series of a source that a question about labels is about: without those of a block that a
    /// deletion, not yet applied to it, has emptied.
    fn found(
        &self,
        source: &Source,
        tenant: TenantId,
        matchers: &[Matcher],
        range: TimeRange,
    ) -> Result<RoaringBitmap, MetricsError> {
        let mut found = source.find(matchers)?;
        let retained = self.retained(tenant, range);
        if let Source::Block { deletions, .. } = source {
            for deletion in deletions {
                let erased = deletion.range;
                if erased.start <= retained.start && erased.end >= retained.end {
                    found -= source.find(&deletion.matchers)?;
                }
            }
        }
        Ok(found)
    }

    /// The exemplars in `range` of the series of `shards` that satisfy all matchers of one of the alternatives, by
    /// canonical labels and in order of time. Those that the node has now: a view does not pin them. `go_on` is asked before
    /// each series is looked at; its error ends the search.
    ///
    /// # Errors
    /// Those of `go_on`.
    pub fn exemplars<E>(
        &self,
        tenant: TenantId,
        alternatives: &[Vec<Matcher>],
        range: TimeRange,
        shards: &ShardSet,
        go_on: impl FnMut() -> Result<(), E>,
    ) -> Result<BTreeMap<Vec<u8>, Vec<Exemplar>>, E> {
        let wanted = WantedExemplars {
            alternatives,
            range: self.retained(tenant, range),
            shards,
            deletions: self.policy.erasing(tenant),
        };
        self.exemplars.find(tenant, &wanted, go_on)
    }

    /// What is declared of the metrics of `shards`, by metric: every distinct declaration, ascending.
    ///
    /// # Errors
    /// [`MetricsError::DamagedBlock`].
    pub fn metadata(
        &self,
        tenant: TenantId,
        shards: &ShardSet,
    ) -> Result<BTreeSet<MetricMetadata>, MetricsError> {
        let everything = TimeRange {
            start: Millis::MIN,
            end: Millis::MAX,
        };
        let entries = self.metadata_with_shards(tenant, everything, shards)?;
        Ok(entries.into_iter().map(|(_, entry)| entry).collect())
    }

    /// What blocks and generations of the head declare that have samples in the windows of `range`. What was declared
    /// without any sample belongs to no time, so it is in every range.
    fn metadata_with_shards(
        &self,
        tenant: TenantId,
        range: TimeRange,
        shards: &ShardSet,
    ) -> Result<BTreeSet<(ShardId, MetricMetadata)>, MetricsError> {
        let (mut entries, mut room) = (BTreeSet::new(), MetadataRoom::new());
        for part in self.heads.get(&tenant).into_iter().flatten() {
            let samples = part.generation().read();
            if !samples.has_samples() || samples.overlaps(&range) {
                let wanted = samples.metadata().iter();
                let wanted = wanted.filter(|(shard, _)| shards.contains(*shard));
                room.extend(&mut entries, wanted);
            }
        }
        // Where there is not room for all, what was declared last counts.
        for source in self.sources(tenant, range, shards)?.iter().rev() {
            if let Source::Block { reader, shards, .. } = source {
                room.extend(&mut entries, &reader.metadata(shards)?);
            }
        }
        Ok(entries)
    }
}

/// Label texts are UTF-8: the body reader checked them.
fn texts(texts: Vec<Vec<u8>>) -> Vec<String> {
    let text = |bytes| {
        String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into())
    };
    texts.into_iter().map(text).collect()
}
