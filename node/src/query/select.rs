//! Series with their samples as they are, a page at a time: what exports, remote read and federation are made of.
//!
//! Every page is a question of its own: the series behind the last one of the page before, in ascending order of
//! labels, as many as fit into a number of bytes. So memory is bounded on both sides, nothing but a pinned view
//! waits at an evaluator between two pages, and an owner that goes away in the middle is replaced by another.
//! An evaluator that has more than fits knows nothing behind its last series, so what others have behind the smallest
//! such end waits for a later page: [`merge_pages`].

use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use trefoil_model::{Labels, Millis, TimeRange};
use trefoil_query_promql::{Matcher, QueryError, RawSeries};

/// Bytes of samples and labels of a page, about; one series may have more.
pub(super) const PAGE_BYTES: u64 = 16 << 20;
/// Bytes of a sample as it travels and is held.
const SAMPLE_BYTES: u64 = 16;

/// Which series and samples a page is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Select {
    /// A series fits when it fits all matchers of one of these.
    pub(crate) alternatives: Vec<Vec<Matcher>>,
    /// First millisecond, inclusive.
    pub(crate) start: Millis,
    /// Last millisecond, inclusive.
    pub(crate) end: Millis,
    /// Only so many newest samples of each series; 0: all of them. More than one only when all members can read it
    /// ([`crate::formats`]): to an older program this is whether it is the newest one only.
    pub(crate) newest: u8,
    /// Canonical labels of the last series of the page before; nothing for the first page.
    pub(crate) after: Option<Vec<u8>>,
    /// Where the page ends; the series that passes it is its last. 0: as usual.
    pub(crate) bytes_max: u64,
}

impl Select {
    /// The times for which whoever answers must be complete.
    pub(crate) fn reach(&self) -> TimeRange {
        TimeRange {
            start: self.start,
            end: self.end.saturating_add(1),
        }
    }

    /// The last series of the page before.
    ///
    /// # Errors
    /// [`QueryError::BadData`] when a peer sent malformed labels.
    pub(super) fn after(&self) -> Result<Option<Labels>, QueryError> {
        let read = |bytes: &Vec<u8>| Labels::from_canonical(bytes);
        let after = self.after.as_ref().map(read).transpose();
        after.map_err(|error| QueryError::BadData(format!("the end of a page: {error}")))
    }

    /// How many samples to decode at once for a page.
    pub(super) fn samples_at_once(&self) -> u64 {
        self.bytes_max / SAMPLE_BYTES
    }
}

/// Some series with their samples, stale markers included.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Page {
    /// Ascending by labels, each once, none without samples.
    pub(crate) series: Vec<RawSeries>,
    /// Whether there may be series behind the last one.
    pub(crate) has_more: bool,
}

/// The bytes that a series counts in a page.
pub(super) fn series_bytes(series: &RawSeries) -> u64 {
    let histograms = histogram_bytes(series);
    let labels = series.labels.canonical().len() + size_of::<RawSeries>();
    series.timestamps.len() as u64 * SAMPLE_BYTES + (histograms + labels) as u64
}

/// The memory of a series' histograms.
pub(super) fn histogram_bytes(series: &RawSeries) -> usize {
    let histograms = (0..series.values.len()).filter_map(|at| series.histograms.at(at));
    histograms.map(|histogram| histogram.bytes()).sum()
}

/// One page out of several that begin at the same place. A series that is in several of them is taken once.
pub(crate) fn merge_pages(pages: Vec<Page>) -> Page {
    let ends = pages.iter().filter(|page| page.has_more);
    let end = ends.filter_map(|page| Some(page.series.last()?.labels.clone()));
    let end = end.min();
    let mut merged = Page {
        series: Vec::new(),
        has_more: end.is_some(),
    };
    for page in pages {
        let known = |series: &RawSeries| end.as_ref().is_none_or(|end| series.labels <= *end);
        merged
            .series
            .extend(page.series.into_iter().take_while(known));
    }
    merged.series.sort_by(by_labels);
    merged
        .series
        .dedup_by(|one, other| one.labels == other.labels);
    merged
}

fn by_labels(one: &RawSeries, other: &RawSeries) -> Ordering {
    one.labels.cmp(&other.labels)
}

#[cfg(test)]
mod tests {
    use super::{super::question::encode, *};

    fn page(names: &[&str], has_more: bool) -> Page {
        let series = names.iter().map(|name| RawSeries {
            labels: Labels::from_pairs([("__name__", *name)]),
            timestamps: vec![1],
            values: vec![2.0],
            histograms: Default::default(),
        });
        Page {
            series: series.collect(),
            has_more,
        }
    }

    #[test]
    fn older_programs_read_whether_it_is_the_newest_only() {
        for (newest, is_only) in [(0, false), (1, true)] {
            let select = Select {
                alternatives: Vec::new(),
                start: 1,
                end: 2,
                newest,
                after: None,
                bytes_max: 3,
            };
            let older = (
                Vec::<Vec<Matcher>>::new(),
                (1_i64, 2_i64),
                is_only,
                None::<Vec<u8>>,
                3_u64,
            );
            let bytes = encode(&select).expect("small");
            assert_eq!(bytes, encode(&older).expect("small"));
        }
    }

    #[test]
    fn a_page_ends_where_the_first_of_several_does() {
        let check = |pages: &[Page], expected: Page| {
            assert_eq!(merge_pages(pages.to_vec()), expected);
        };
        check(&[], page(&[], false));
        check(
            &[page(&["b"], false), page(&["a", "c"], false)],
            page(&["a", "b", "c"], false),
        );
        check(
            &[page(&["b", "d", "e"], true), page(&["a", "c", "f"], true)],
            page(&["a", "b", "c", "d", "e"], true),
        );
        check(
            &[page(&["a", "b"], false), page(&["b", "c"], true)],
            page(&["a", "b", "c"], true),
        );
        check(
            &[page(&["a", "z"], false), page(&["b"], true)],
            page(&["a", "b"], true),
        );
    }
}
