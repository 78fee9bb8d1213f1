//! Asking the store what other senders of a pair have stored, and taking that away from what is held.
//!
//! What is asked for is bounded: so many samples at once, the metrics that are held where these are few, and metrics whose samples
//! come late by themselves, so that others are not read from as long ago. A page is in memory at a time.

use super::{super::NodeBackend, Content, checked_limits, unavailable, unreadable};
use crate::{
    held::{Others, Request, Sender, compare::Comparison},
    ingest::{
        held::{times_of, unpack},
        pairs::value_of,
    },
    query::select::Select,
};
use futures::{StreamExt, pin_mut};
use std::{collections::BTreeSet, time::Instant};
use trefoil_api::ApiError;
use trefoil_model::{Millis, SeriesHash, TenantId};
use trefoil_query_promql::{Budget, MatchOp, Matcher, QueryError};
use trefoil_store_metrics::{BodyReader, MetricsError};

/// Samples whose times and series are in memory for a comparison at once: some 100 to 200 MB. The series of a sender
/// with more are compared part by part, for each of which the store is asked.
const COMPARED_SAMPLES_MAX: u64 = 1_000_000;
/// Names of metrics by which the store is asked; for more it is asked for all metrics of the pair.
const NAMES_MAX: usize = 64;
/// Metrics with samples that are so many time-outs older than the change are compared by themselves.
const TIMEOUTS_RECENT: u32 = 4;
const METRIC_LABEL: &str = "__name__";

/// What a comparison is cut into.
struct Parts {
    tenant: TenantId,
    /// Parts by hash; the metrics with old samples are the part behind them.
    recent: u64,
    /// Metrics with old samples; none when there are too many.
    old: BTreeSet<Vec<u8>>,
}

/// Names of metrics, as long as there are few.
struct Names(Option<BTreeSet<Vec<u8>>>);

impl Parts {
    /// Of requests with samples from before `recent_since`, those metrics are told.
    async fn of(
        tenant: TenantId,
        requests: &[Request<Content>],
        recent_since: Millis,
    ) -> Result<Self, ApiError> {
        let samples: u64 = requests.iter().map(|request| request.samples).sum();
        let mut reader = BodyReader::new().map_err(unreadable)?;
        let mut old = Names::default();
        for request in requests {
            let add = |canonical: &[u8], times: &mut dyn Iterator<Item = Millis>| {
                if times.min().is_some_and(|first| first < recent_since) {
                    old.add(canonical);
                }
            };
            times_of(&mut reader, &request.content.body, add).map_err(unreadable)?;
            tokio::task::yield_now().await;
        }
        Ok(Self {
            tenant,
            recent: samples.div_ceil(COMPARED_SAMPLES_MAX).max(1),
            old: old.0.unwrap_or_default(),
        })
    }

    fn len(&self) -> u64 {
        self.recent + u64::from(!self.old.is_empty())
    }

    /// The hash of a series, if it is in this part.
    fn hash_in(&self, part: u64, canonical: &[u8]) -> Option<SeriesHash> {
        let hash = SeriesHash::of(self.tenant, canonical);
        let is_old = !self.old.is_empty() && self.old.contains(value_of(canonical, METRIC_LABEL));
        let own = match is_old {
            true => self.recent,
            false => (hash.0 % u128::from(self.recent)) as u64,
        };
        (own == part).then_some(hash)
    }
}

impl Default for Names {
    fn default() -> Self {
        Self(Some(BTreeSet::new()))
    }
}

impl Names {
    fn add(&mut self, canonical: &[u8]) {
        let Some(names) = &mut self.0 else {
            return;
        };
        let name = value_of(canonical, METRIC_LABEL);
        if !names.contains(name) {
            names.insert(name.to_vec());
        }
        if names.len() > NAMES_MAX {
            self.0 = None;
        }
    }

    /// What to ask for of a pair: a series fits when it fits all matchers of one of these.
    fn alternatives(&self, of_pair: Matcher) -> Result<Vec<Vec<Matcher>>, QueryError> {
        let Some(names) = &self.0 else {
            return Ok(vec![vec![of_pair]]);
        };
        let alternatives = names.iter().map(|name| {
            // Labels were checked to be UTF-8.
            let name = String::from_utf8_lossy(name);
            let named = Matcher::new(METRIC_LABEL, MatchOp::Equal, name)?;
            Ok(vec![of_pair.clone(), named])
        });
        alternatives.collect()
    }
}

/// How many samples of a body are to be kept.
fn counted(
    reader: &mut BodyReader,
    body: &[u8],
    keep: impl Fn(&[u8], Millis) -> bool,
) -> Result<u64, MetricsError> {
    let mut count = 0;
    times_of(reader, body, |canonical, times| {
        count += times.filter(|time| keep(canonical, *time)).count() as u64;
    })?;
    Ok(count)
}

impl NodeBackend {
    /// What is left of requests behind what other senders of the pair have stored.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`] when the store cannot be asked now; [`ApiError::BadData`] when a body cannot be read.
    pub(super) async fn compare(
        &self,
        sender: &Sender,
        requests: &[Request<Content>],
        others: Others,
    ) -> Result<Vec<Request<Content>>, ApiError> {
        let recent = self.cluster.settings.pairs.failover_timeout * TIMEOUTS_RECENT;
        let recent_since = others.until - recent.as_millis() as Millis;
        let parts = Parts::of(sender.tenant, requests, recent_since).await?;
        let mut left = Vec::new();
        let mut reader = BodyReader::new().map_err(unreadable)?;
        for part in 0..parts.len() {
            let mut comparison = Comparison::new(others);
            let mut names = Names::default();
            for request in requests {
                let add = |canonical: &[u8], times: &mut dyn Iterator<Item = _>| {
                    if let Some(hash) = parts.hash_in(part, canonical) {
                        comparison.add(hash, request.arrived, times);
                        names.add(canonical);
                    }
                };
                times_of(&mut reader, &request.content.body, add).map_err(unreadable)?;
                tokio::task::yield_now().await;
            }
            let found = self.find_stored(sender, &names, &mut comparison).await;
            found.map_err(|error| unavailable(error.to_string()))?;
            for request in requests {
                let keep = |canonical: &[u8], time| {
                    let hash = parts.hash_in(part, canonical);
                    hash.is_some_and(|hash| comparison.may_store(hash, time).unwrap_or(true))
                };
                let body = &request.content.body;
                let may_store = counted(&mut reader, body, keep).map_err(unreadable)?;
                tokio::task::yield_now().await;
                // Mostly the one sender has all of it, or nothing.
                if may_store == request.samples && (may_store > 0 || part == 0) {
                    left.push(request.clone());
                    continue;
                }
                if may_store == 0 {
                    continue;
                }
                let kept = unpack(&mut reader, body, &checked_limits(), keep)?;
                let packed = self.encoder.pack_all(&kept).map_err(unreadable)?;
                left.extend(packed.into_iter().map(|packed| {
                    let content = Content {
                        body: packed.body,
                        ..request.content.clone()
                    };
                    content.into_request(request.arrived, packed.samples)
                }));
                tokio::task::yield_now().await;
            }
        }
        Ok(left)
    }

    /// Asks the store what it has of the series of a pair at the times of what is held. Complete, as every query is.
    async fn find_stored(
        &self,
        sender: &Sender,
        names: &Names,
        comparison: &mut Comparison,
    ) -> Result<(), QueryError> {
        let Some((start, end)) = comparison.span() else {
            return Ok(());
        };
        let settings = &self.cluster.settings;
        let of_pair = Matcher::new(&settings.pairs.cluster_label, MatchOp::Equal, &sender.pair)?;
        let deadline = Instant::now() + settings.query_timeout;
        let is_late = move || Instant::now() >= deadline;
        // It is no query of the tenant's, so its limits of queries are not meant.
        let budget = Budget::with_deadline(settings.query_samples, settings.query_bytes, is_late);
        let source = self.source(sender.tenant, deadline, budget);
        let pages = source.accepting_loss(true).select(Select {
            alternatives: names.alternatives(of_pair)?,
            start,
            end,
            newest_only: false,
            after: None,
            bytes_max: 0,
        });
        pin_mut!(pages);
        while let Some(page) = pages.next().await {
            for series in page? {
                let hash = SeriesHash::of(sender.tenant, series.labels.canonical());
                comparison.found(hash, &series.timestamps);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::Encoder;
    use trefoil_api::{
        TenantName,
        remote_write::{Sample, WriteRequest},
    };
    use trefoil_model::{DeletionVersion, Labels};

    const TENANT: TenantId = TenantId(3);

    fn labels(name: &str) -> Labels {
        Labels::from_pairs([("__name__", name), ("cluster", "c")])
    }

    fn requests(metrics: &[(&str, Millis)]) -> Vec<Request<Content>> {
        let mut request = WriteRequest::default();
        for (name, time) in metrics {
            let labels = &mut [("__name__", *name), ("cluster", "c")];
            let pushed =
                request.push_samples(labels, [Sample::float(*time, 1.0)], &checked_limits());
            pushed.expect("a small request");
        }
        let packed = Encoder::default().pack_all(&request).expect("it fits");
        let content = |body| Content {
            tenant: TenantName::default(),
            body,
            deletion: DeletionVersion::default(),
            is_charged: false,
        };
        let packed = packed.into_iter();
        packed
            .map(|packed| content(packed.body).into_request(0, packed.samples))
            .collect()
    }

    #[tokio::test]
    async fn metrics_with_old_samples_are_compared_by_themselves() {
        let parts = Parts::of(TENANT, &requests(&[("new", 10), ("late", 9)]), 10).await;
        let parts = parts.expect("sound bodies");
        assert_eq!(parts.len(), 2);
        for (name, part) in [("new", 0), ("late", 1)] {
            let labels = labels(name);
            let hash = SeriesHash::of(TENANT, labels.canonical());
            assert_eq!(parts.hash_in(part, labels.canonical()), Some(hash));
            assert_eq!(parts.hash_in(1 - part, labels.canonical()), None);
        }
        let parts = Parts::of(TENANT, &requests(&[("new", 10)]), 10).await;
        let parts = parts.expect("sound bodies");
        assert_eq!((parts.len(), parts.old.len()), (1, 0));
    }

    #[tokio::test]
    async fn every_series_of_a_large_sender_is_in_one_part() {
        let mut requests = requests(&[("new", 10)]);
        requests[0].samples = 2 * COMPARED_SAMPLES_MAX + 1;
        let parts = Parts::of(TENANT, &requests, 0).await;
        let parts = parts.expect("sound bodies");
        assert_eq!(parts.len(), 3);
        for number in 0..100 {
            let labels = labels(&number.to_string());
            let all = (0..3).filter(|part| parts.hash_in(*part, labels.canonical()).is_some());
            assert_eq!(all.count(), 1);
        }
    }

    #[test]
    fn what_is_kept_of_a_body_is_counted() {
        let requests = requests(&[("one", 1), ("one", 2), ("other", 3)]);
        let mut reader = BodyReader::new().expect("memory");
        let body = &requests[0].content.body;
        let mut count = |keep: &dyn Fn(&[u8], Millis) -> bool| {
            counted(&mut reader, body, keep).expect("a sound body")
        };
        assert_eq!(count(&|_, _| true), requests[0].samples);
        assert_eq!(count(&|_, time| time > 1), 2);
        let one = labels("one");
        assert_eq!(count(&|canonical, _| canonical == one.canonical()), 2);
        assert_eq!(count(&|_, _| false), 0);
    }

    #[test]
    fn the_store_is_asked_by_names_where_they_are_few() {
        let of_pair = || Matcher::new("cluster", MatchOp::Equal, "c").expect("equality");
        let mut names = Names::default();
        for name in ["a", "b", "a"] {
            names.add(labels(name).canonical());
        }
        let asked = names.alternatives(of_pair()).expect("equality");
        let texts = asked.iter().map(|all| {
            let texts: Vec<String> = all.iter().map(ToString::to_string).collect();
            texts.join(",")
        });
        let texts: Vec<String> = texts.collect();
        let expected = [r#"cluster="c",__name__="a""#, r#"cluster="c",__name__="b""#];
        assert_eq!(texts, expected);
        for number in 0..NAMES_MAX {
            names.add(labels(&number.to_string()).canonical());
        }
        let asked = names.alternatives(of_pair()).expect("equality");
        assert_eq!(asked, [[of_pair()]]);
    }
}
