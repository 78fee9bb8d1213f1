//! A pinned view of the engine as the query crate sees storage.
//!
//! Series come in the order of blocks, which reads each piece of them once. A walk can be cut into stretches for several threads.

use super::{
    allowance::Meter,
    counts::{Counted, Counts},
    question::{ExemplarsOfSeries, FamilyMetadata, Filter},
    select::{Page, Select, merge_pages, series_bytes},
};
use crate::data_plane::damaged_block;
use std::{
    cell::Cell,
    collections::HashSet,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use trefoil_model::{Aggregate, Labels, ShardSet, TenantId, TimeRange};
use trefoil_query_promql::{
    Budget, HISTOGRAM, MatchOp, Matcher, QueryError, RawSeries, SampleColumns, SampleSource,
    Selector, SeriesStorage, SeriesVisitor,
};
use trefoil_store_blocks::BlockId;
use trefoil_store_metrics::{
    HISTOGRAM_BITS, Matcher as EngineMatcher, MetricsError, SeriesCursor, SeriesSamples, View,
};

/// Both sides mark the place of a histogram among the values in the same way, so values are copied as they are.
const _: () = assert!(HISTOGRAM.to_bits() == HISTOGRAM_BITS);

/// Bytes that a sample stands for in the budget of samples.
const SAMPLE_BYTES: usize = 16;

/// The aggregates that are read at once take about this share of the samples that a query may hold at most: those of one series are
/// refused for their size, those of many are read in smaller batches.
const AGGREGATES_SHARE: u64 = 4;

/// One tenant's samples of some shards, on one view.
pub(super) struct ViewStorage<'a> {
    pub(super) view: &'a View,
    pub(super) tenant: TenantId,
    pub(super) shards: &'a ShardSet,
    /// What turned out to be unreadable.
    pub(super) damaged: Cell<Option<Damaged>>,
    /// What lists of labels count against; parts count for themselves.
    pub(super) budget: &'a Budget,
    /// What parts fetch counts here.
    pub(super) meter: Arc<Meter>,
    /// Where it is set, what takes more than this is given up with [`QueryError::Canceled`].
    pub(super) brief: Option<Brief>,
}

/// What a question may take that is answered by the thread that asks.
#[derive(Clone, Copy)]
pub(super) struct Brief {
    /// Series of a selector in a block or head; all else that it finds is in memory.
    pub(super) series_max: u64,
    /// Samples read and values made.
    pub(super) work_max: u64,
}

/// The series at which a cursor stands: its columns are decoded already.
struct Columns<'a>(&'a mut SeriesCursor);

impl SampleSource for Columns<'_> {
    fn read(&mut self, into: &mut SampleColumns) -> Result<(), QueryError> {
        copy_histograms(&self.0.current(), into);
        self.0.swap_samples(
            &mut into.timestamps,
            &mut into.values,
            &mut into.start_timestamps,
        );
        Ok(())
    }

    fn aggregates(&mut self, into: &mut Vec<Aggregate>) -> Result<bool, QueryError> {
        self.0.swap_aggregates(into);
        Ok(!into.is_empty())
    }
}

fn copy_histograms(series: &SeriesSamples<'_>, into: &mut SampleColumns) {
    for (at, histogram) in series.histograms.iter().enumerate() {
        if let Some(histogram) = histogram {
            into.histograms.put(at, Arc::clone(histogram));
        }
    }
}

/// Some series of a selector, for one evaluation that reads nothing else.
pub(super) struct Stretch<'a> {
    selector: &'a Selector,
    cursor: Cell<Option<SeriesCursor>>,
    damaged: Cell<Option<Damaged>>,
    meter: Arc<Meter>,
    budget: Budget,
    samples_max: usize,
    /// Another stretch has failed, so that nobody wants this one.
    is_vain: Arc<AtomicBool>,
}

/// A block that turned out to be unreadable, with what of it.
pub(super) type Damaged = (BlockId, &'static str);

impl Stretch<'_> {
    /// What turned out to be unreadable.
    pub(super) fn damaged(&self) -> Option<Damaged> {
        self.damaged.get()
    }

    /// Ends the walks of the other stretches, with [`QueryError::Canceled`].
    pub(super) fn give_up(&self) {
        self.is_vain.store(true, Ordering::Relaxed);
    }
}

impl SeriesStorage for Stretch<'_> {
    fn select(&self, selector: &Selector, each: &mut SeriesVisitor<'_>) -> Result<(), QueryError> {
        match self.cursor.take() {
            Some(cursor) if selector == self.selector => walk(
                cursor,
                &self.damaged,
                (&self.meter, &self.budget, self.samples_max),
                &mut |labels, samples| match self.is_vain.load(Ordering::Relaxed) {
                    true => Err(QueryError::Canceled),
                    false => each(labels, samples),
                },
            ),
            _ => Err(QueryError::Internal(
                "a part reads another selector than it says".into(),
            )),
        }
    }
}

/// What is held of a budget for the aggregates that a cursor has in memory; nothing any more when it is dropped.
struct Held<'a> {
    budget: &'a Budget,
    bytes: usize,
    samples: usize,
}

impl Held<'_> {
    /// Holds as many samples as take so many bytes.
    fn hold(&mut self, bytes: usize) -> Result<(), QueryError> {
        if bytes == self.bytes {
            return Ok(());
        }
        self.budget.release(self.samples);
        (self.bytes, self.samples) = (bytes, bytes.div_ceil(SAMPLE_BYTES));
        self.budget.hold(self.samples)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.budget.release(self.samples);
    }
}

/// Gives all series of a cursor to `each`, as long as they have at most `samples_max` samples together.
fn walk(
    mut cursor: SeriesCursor,
    damaged: &Cell<Option<Damaged>>,
    (meter, budget, samples_max): (&Meter, &Budget, usize),
    each: &mut SeriesVisitor<'_>,
) -> Result<(), QueryError> {
    let mut held = Held {
        budget,
        bytes: 0,
        samples: 0,
    };
    let mut samples: usize = 0;
    while cursor.advance().map_err(|e| query_error(damaged, &e))? {
        held.hold(cursor.aggregates_bytes())?;
        let series = cursor.current();
        samples = samples.saturating_add(series.timestamps.len());
        if samples > samples_max {
            return Err(QueryError::Canceled);
        }
        meter.count(series.timestamps.len(), || memory_beside(&series))?;
        let labels = labels(cursor.current().canonical)?;
        each(&labels, &mut Columns(&mut cursor))?;
    }
    Ok(())
}

/// Bytes of the histograms and aggregates of a series.
fn memory_beside(series: &SeriesSamples<'_>) -> usize {
    let histograms = series.histograms.iter().flatten();
    let histograms: usize = histograms.map(|histogram| histogram.bytes()).sum();
    histograms + size_of_val(series.aggregates)
}

fn query_error(damaged: &Cell<Option<Damaged>>, error: &MetricsError) -> QueryError {
    damaged.set(damaged_block(error));
    match error {
        MetricsError::DamagedBlock { .. } | MetricsError::Blocks(_) => {
            QueryError::Damaged(error.to_string())
        }
        MetricsError::NotKept => QueryError::Canceled,
        other => QueryError::Internal(other.to_string()),
    }
}

impl SeriesStorage for ViewStorage<'_> {
    fn select(&self, selector: &Selector, each: &mut SeriesVisitor<'_>) -> Result<(), QueryError> {
        let bounds = (&*self.meter, self.budget, self.samples_max());
        walk(self.cursor(selector)?, &self.damaged, bounds, each)
    }
}

impl ViewStorage<'_> {
    /// What heads have of a series is not known before it is read.
    fn samples_max(&self) -> usize {
        self.brief.map_or(usize::MAX, |brief| {
            usize::try_from(brief.work_max).unwrap_or(usize::MAX)
        })
    }

    fn cursor(&self, selector: &Selector) -> Result<SeriesCursor, QueryError> {
        let matchers = engine_matchers(&selector.matchers)?;
        let mut range = inclusive(selector.start, selector.end);
        if !self.meter.begin(&mut range.start, selector.end) {
            // None of these times is seen.
            range.end = range.start;
        }
        let (view, tenant, shards) = (self.view, self.tenant, self.shards);
        if let Some(brief) = self.brief {
            let of_samples = selector.resolution.is_none();
            let cursor = || {
                view.cursor_in_memory(tenant, &matchers, range, shards, brief.series_max)
                    .transpose()
            };
            let cursor = of_samples.then(cursor).flatten();
            return cursor
                .unwrap_or(Err(MetricsError::NotKept))
                .map_err(|error| self.query_error(&error));
        }
        let Some(resolution) = selector.resolution else {
            let cursor = view.cursor_in_block_order(tenant, &matchers, range, shards);
            return cursor.map_err(|error| self.query_error(&error));
        };
        let cursor = view.aggregates(tenant, &matchers, range, shards, resolution);
        let mut cursor = cursor.map_err(|error| self.query_error(&error))?;
        let share = self.budget.samples_max() / AGGREGATES_SHARE;
        cursor.hold_at_most(share);
        Ok(cursor)
    }

    /// The series of a selector in stretches. `pieces` says how many, by the number of series and about how many samples are read.
    pub(super) fn stretches<'s>(
        &self,
        selector: &'s Selector,
        pieces: impl FnOnce(u64, u64) -> usize,
    ) -> Result<Vec<Stretch<'s>>, QueryError> {
        let cursor = self.cursor(selector)?;
        let pieces = pieces(cursor.series() as u64, cursor.samples_estimate());
        let cursors = match pieces {
            1 => vec![cursor],
            _ => cursor.split(pieces),
        };
        let is_vain = Arc::<AtomicBool>::default();
        let stretch = |cursor| Stretch {
            is_vain: Arc::clone(&is_vain),
            selector,
            cursor: Cell::new(Some(cursor)),
            damaged: Cell::new(None),
            meter: self.meter.clone(),
            budget: self.budget.clone(),
            samples_max: self.samples_max(),
        };
        Ok(cursors.into_iter().map(stretch).collect())
    }

    /// The label sets of the series that fit one of the alternatives, ascending, without duplicates.
    pub(super) fn series(&self, filter: &Filter) -> Result<Vec<Labels>, QueryError> {
        let range = inclusive(filter.start, filter.end);
        let mut found = Vec::new();
        let mut outcome = Ok(());
        for matchers in alternatives(filter)? {
            let mut count = 0;
            let mut visit = |canonical: &[u8]| {
                let held = self.budget.hold_bytes(text_bytes(canonical.len()));
                match held.and_then(|()| labels(canonical)) {
                    Ok(labels) => found.push(labels),
                    Err(error) => {
                        outcome = Err(error);
                        return ControlFlow::Break(());
                    }
                }
                count += 1;
                match filter.limit > 0 && count > filter.limit {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                }
            };
            self.view
                .series(self.tenant, &matchers, range, self.shards, &mut visit)
                .map_err(|error| self.query_error(&error))?;
        }
        outcome?;
        found.sort();
        found.dedup();
        Ok(found)
    }

    /// The label names of the series that fit, ascending, without duplicates.
    pub(super) fn label_names(&self, filter: &Filter) -> Result<Vec<String>, QueryError> {
        let range = inclusive(filter.start, filter.end);
        self.texts(filter, |matchers| {
            self.view
                .label_names(self.tenant, matchers, range, self.shards)
        })
    }

    /// The values of a label of the series that fit, ascending, without duplicates.
    pub(super) fn label_values(
        &self,
        name: &str,
        filter: &Filter,
    ) -> Result<Vec<String>, QueryError> {
        let range = inclusive(filter.start, filter.end);
        self.texts(filter, |matchers| {
            self.view
                .label_values(self.tenant, name, matchers, range, self.shards)
        })
    }

    /// How many series there are, by labels and values.
    pub(super) fn count(&self, counts: &Counts) -> Result<Counted, QueryError> {
        if !counts.is_exact
            && let Some(counted) = self.count_in_indexes(counts)?
        {
            return Ok(counted);
        }
        let mut counted = Counted::default();
        // A series that fits several alternatives counts once.
        let mut seen = HashSet::new();
        for matchers in each_alternative(&counts.alternatives)? {
            let mut outcome = Ok(());
            let mut visit = |canonical: &[u8]| {
                let mut remembered = Ok(());
                if counts.alternatives.len() > 1 {
                    if !seen.insert(canonical.to_vec()) {
                        return ControlFlow::Continue(());
                    }
                    remembered = self.budget.hold_bytes(text_bytes(canonical.len()));
                }
                let added = remembered
                    .and_then(|()| labels(canonical))
                    .and_then(|labels| counted.add(&labels, &counts.names, self.budget));
                match added {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(error) => {
                        outcome = Err(error);
                        ControlFlow::Break(())
                    }
                }
            };
            let range = inclusive(counts.start, counts.end);
            let walked = match counts.is_exact {
                true => {
                    let visit = |series: SeriesSamples<'_>| visit(series.canonical);
                    self.view
                        .select(self.tenant, &matchers, range, self.shards, visit)
                }
                false => self
                    .view
                    .series(self.tenant, &matchers, range, self.shards, visit),
            };
            walked.map_err(|error| self.query_error(&error))?;
            outcome?;
        }
        Ok(counted)
    }

    /// As [`ViewStorage::count`], without a look at each series; `None` where that is not possible.
    fn count_in_indexes(&self, counts: &Counts) -> Result<Option<Counted>, QueryError> {
        let mut counted = Counted::default();
        let (outcome, held) = (Cell::new(Ok(())), Cell::new(0));
        let flow = |result: Result<(), QueryError>| match result {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                outcome.set(Err(error));
                ControlFlow::Break(())
            }
        };
        let visit = |name: &str, value: &str, series| {
            let added = counted.add_value(name, value, series, self.budget);
            flow(self.budget.check().and(added))
        };
        let go_on = |bytes: usize| {
            held.set(held.get() + bytes);
            flow(self.budget.check().and(self.budget.hold_bytes(bytes)))
        };
        let range = inclusive(counts.start, counts.end);
        let alternatives = each_alternative(&counts.alternatives)?;
        let place = (range, self.shards);
        let found = self.view.count_series(
            self.tenant,
            &alternatives,
            place,
            &counts.names,
            visit,
            go_on,
        );
        self.budget.release_bytes(held.get());
        let series = found.map_err(|error| self.query_error(&error))?;
        outcome.into_inner()?;
        Ok(series.map(|series| Counted { series, ..counted }))
    }

    /// The next page of the series that fit one of the alternatives.
    pub(super) fn page(&self, select: &Select) -> Result<Page, QueryError> {
        let pages = select.alternatives.iter();
        let pages = pages.map(|matchers| self.page_of(select, matchers));
        pages.collect::<Result<_, _>>().map(merge_pages)
    }

    fn page_of(&self, select: &Select, matchers: &[Matcher]) -> Result<Page, QueryError> {
        let matchers = engine_matchers(matchers)?;
        let range = inclusive(select.start, select.end);
        let failed = |error: MetricsError| self.query_error(&error);
        let cursor = self.view.cursor(self.tenant, &matchers, range, self.shards);
        let mut cursor = cursor.map_err(failed)?;
        cursor.read_in_batches_of(select.samples_at_once());
        if let Some(after) = select.after()? {
            // Labels that cannot be read are met again, and refused, as the page's first.
            cursor.skip_until(&|canonical| labels(canonical).is_ok_and(|labels| labels > after));
        }
        let mut page = Page::default();
        let mut bytes = 0;
        while let Some(series) = cursor.next_series().map_err(failed)? {
            self.budget.check()?;
            let series = raw_series(series, select.newest)?;
            let more = series_bytes(&series);
            self.budget.hold_bytes(more as usize)?;
            bytes += more;
            page.series.push(series);
            if bytes >= select.bytes_max {
                page.has_more = true;
                break;
            }
        }
        Ok(page)
    }

    fn query_error(&self, error: &MetricsError) -> QueryError {
        query_error(&self.damaged, error)
    }

    fn texts(
        &self,
        filter: &Filter,
        ask: impl Fn(&[EngineMatcher]) -> Result<Vec<String>, MetricsError>,
    ) -> Result<Vec<String>, QueryError> {
        let mut found = Vec::new();
        for matchers in alternatives(filter)? {
            let texts = ask(&matchers).map_err(|error| self.query_error(&error))?;
            let bytes = texts.iter().map(|text| text_bytes(text.len())).sum();
            self.budget.hold_bytes(bytes)?;
            found.extend(texts);
        }
        found.sort();
        found.dedup();
        Ok(found)
    }

    /// The exemplars of the series that fit.
    pub(super) fn exemplars(&self, filter: &Filter) -> Result<Vec<ExemplarsOfSeries>, QueryError> {
        let range = inclusive(filter.start, filter.end);
        let wanted = alternatives(filter)?;
        let go_on = || self.budget.check();
        let found = self
            .view
            .exemplars(self.tenant, &wanted, range, self.shards, go_on)?;
        let mut answer = Vec::with_capacity(found.len());
        for (series, exemplars) in found {
            let exemplars: Vec<_> = exemplars
                .into_iter()
                .map(|one| (one.labels.canonical().to_vec(), one.time, one.value))
                .collect();
            let bytes = exemplars.iter().map(|one| text_bytes(one.0.len()) + 16);
            self.budget
                .hold_bytes(text_bytes(series.len()) + bytes.sum::<usize>())?;
            answer.push((series, exemplars));
        }
        Ok(answer)
    }

    /// What metric families are declared as; all when no name is given.
    pub(super) fn metadata(&self, metric: Option<&str>) -> Result<Vec<FamilyMetadata>, QueryError> {
        let entries = self
            .view
            .metadata(self.tenant, self.shards)
            .map_err(|error| self.query_error(&error))?;
        let wanted = entries
            .into_iter()
            .filter(|e| metric.is_none_or(|name| e.metric == name));
        Ok(wanted
            .map(|entry| FamilyMetadata {
                metric_type: entry.metric_type.as_str().to_owned(),
                metric: entry.metric,
                help: entry.help,
                unit: entry.unit,
            })
            .collect())
    }
}

/// A series as exports have it: so many newest samples of it; 0: all.
///
/// # Errors
/// [`QueryError::Damaged`] when its labels cannot be read.
pub(crate) fn raw_series(series: SeriesSamples<'_>, newest: u8) -> Result<RawSeries, QueryError> {
    let labels = labels(series.canonical)?;
    let mut columns = SampleColumns {
        timestamps: series.timestamps.to_vec(),
        values: series.values.to_vec(),
        ..SampleColumns::default()
    };
    copy_histograms(&series, &mut columns);
    if newest > 0 {
        keep_newest(&mut columns, usize::from(newest));
    }
    Ok(RawSeries {
        labels,
        timestamps: columns.timestamps,
        values: columns.values,
        histograms: columns.histograms,
    })
}

fn keep_newest(columns: &mut SampleColumns, count: usize) {
    let all = columns.timestamps.len();
    let first = all.saturating_sub(count);
    let kept = (first..all).map(|at| columns.histograms.at(at).cloned());
    let kept: Vec<_> = kept.collect();
    columns.histograms.clear();
    for (at, histogram) in kept.into_iter().enumerate() {
        if let Some(histogram) = histogram {
            columns.histograms.put(at, histogram);
        }
    }
    columns.timestamps.drain(..first);
    columns.values.drain(..first);
}

/// The memory of a text or label set of this length, its place in a list included.
fn text_bytes(length: usize) -> usize {
    length + size_of::<String>()
}

/// The engine's ranges are half-open, those of queries include both ends.
fn inclusive(start: i64, end: i64) -> TimeRange {
    TimeRange {
        start,
        end: end.saturating_add(1),
    }
}

fn labels(canonical: &[u8]) -> Result<Labels, QueryError> {
    Labels::from_canonical(canonical)
        .map_err(|error| QueryError::Damaged(format!("labels in the store: {error}")))
}

/// One list of matchers for each alternative; one empty list when there is none.
fn alternatives(filter: &Filter) -> Result<Vec<Vec<EngineMatcher>>, QueryError> {
    each_alternative(&filter.alternatives)
}

fn each_alternative(wanted: &[Vec<Matcher>]) -> Result<Vec<Vec<EngineMatcher>>, QueryError> {
    if wanted.is_empty() {
        return Ok(vec![Vec::new()]);
    }
    wanted.iter().map(|one| engine_matchers(one)).collect()
}

/// Matchers as the engine takes them.
///
/// # Errors
/// [`QueryError::BadData`] for an expression that the engine finds too expensive.
pub(crate) fn engine_matchers(wanted: &[Matcher]) -> Result<Vec<EngineMatcher>, QueryError> {
    let convert = |matcher: &Matcher| {
        let (name, value) = (matcher.name(), matcher.value());
        match matcher.op() {
            MatchOp::Equal => Ok(EngineMatcher::equal(name, value)),
            MatchOp::NotEqual => Ok(EngineMatcher::not_equal(name, value)),
            MatchOp::Regex => EngineMatcher::regex(name, value),
            MatchOp::NotRegex => EngineMatcher::not_regex(name, value),
        }
    };
    wanted
        .iter()
        .map(convert)
        .collect::<Result<_, _>>()
        .map_err(matcher_error)
}

fn matcher_error(error: MetricsError) -> QueryError {
    QueryError::BadData(error.to_string())
}

#[cfg(test)]
mod tests;
