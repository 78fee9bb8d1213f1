//! Asking the store what other senders of a pair have stored, and taking that away from what is held.
//!
//! What is asked for is bounded: what is compared at once, the metrics that are held where these are few, and metrics whose samples
//! come late by themselves, so that others are not read from as long ago. A page is in memory at a time.

use super::{super::NodeBackend, Content, checked_limits, unavailable, unreadable};
use crate::{
    held::{
        GRACE, Others, Request, Sender,
        compare::{Comparison, Gathered},
    },
    ingest::{
        Encoder,
        held::{SAMPLES_MAX, times_of, unpack_into},
        pairs::value_of,
    },
    query::select::Select,
};
use futures::{StreamExt, pin_mut};
use std::{collections::BTreeSet, time::Instant};
use trefoil_api::{ApiError, remote_write::WriteRequest};
use trefoil_model::{Millis, SeriesHash, TenantId};
use trefoil_query_promql::{Budget, MatchOp, Matcher, QueryError};
use trefoil_store_metrics::{BodyReader, MetricsError};

/// Names of metrics by which the store is asked; for more it is asked for all metrics of the pair.
const NAMES_MAX: usize = 64;
/// Metrics with samples that are so many time-outs older than the change are compared by themselves.
const TIMEOUTS_RECENT: u32 = 4;
const METRIC_LABEL: &str = "__name__";
/// Bytes of a page of what is stored; some pages are in memory at once.
const PAGE_BYTES: u64 = 4 << 20;

/// What a comparison is cut into: the metrics with old samples, and all others.
struct Parts {
    tenant: TenantId,
    /// Metrics with old samples; none when there are too many.
    old: BTreeSet<Vec<u8>>,
}

/// What is left of requests, in their order. What is left of parts is packed together, so that little is stored at once seldom.
struct Left<'a> {
    encoder: &'a Encoder,
    all: Vec<Request<Content>>,
    /// What is not packed yet, and the request that it is from first.
    open: Option<(WriteRequest, &'a Request<Content>)>,
}

impl<'a> Left<'a> {
    fn new(encoder: &'a Encoder) -> Self {
        Self {
            encoder,
            all: Vec::new(),
            open: None,
        }
    }

    /// All of a request is left.
    fn add_whole(&mut self, request: &Request<Content>) -> Result<(), ApiError> {
        self.end()?;
        self.all.push(request.clone());
        Ok(())
    }

    /// What `keep` wants is left of a request.
    fn add_part(
        &mut self,
        reader: &mut BodyReader,
        request: &'a Request<Content>,
        keep: impl FnMut(&[u8], Millis) -> bool,
    ) -> Result<(), ApiError> {
        let is_alike = |(open, first): &(WriteRequest, &Request<Content>)| {
            let alike = |one: &Request<Content>| (one.late, one.content.deletion);
            alike(first) == alike(request) && open.sample_count() < SAMPLES_MAX
        };
        if !self.open.as_ref().is_some_and(is_alike) {
            self.end()?;
        }
        let open = self
            .open
            .get_or_insert_with(|| (WriteRequest::default(), request));
        unpack_into(
            &mut open.0,
            reader,
            &request.content.body,
            &checked_limits(),
            keep,
        )
    }

    fn end(&mut self) -> Result<(), ApiError> {
        let Some((open, first)) = self.open.take() else {
            return Ok(());
        };
        for packed in self.encoder.pack_all(&open).map_err(unreadable)? {
            let content = Content {
                body: packed.body,
                ..first.content.clone()
            };
            let left = content.into_request((first.arrived, first.late), packed.samples);
            self.all.push(left);
        }
        Ok(())
    }
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
            old: old.0.unwrap_or_default(),
        })
    }

    /// Of a part: whether it is that of the metrics with old samples.
    fn all(&self) -> impl Iterator<Item = bool> + use<> {
        let has_old = !self.old.is_empty();
        std::iter::once(false).chain(has_old.then_some(true))
    }

    /// The hash of a series, if it is in this part.
    fn hash_in(&self, is_old: bool, canonical: &[u8]) -> Option<SeriesHash> {
        let own = !self.old.is_empty() && self.old.contains(value_of(canonical, METRIC_LABEL));
        (own == is_old).then(|| SeriesHash::of(self.tenant, canonical))
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
        let samples: u64 = requests.iter().map(|request| request.samples).sum();
        let mut left = Left::new(&self.encoder);
        let mut reader = BodyReader::new().map_err(unreadable)?;
        for part in parts.all() {
            let mut gathered = Gathered::new(others, if part { 0 } else { samples as usize });
            let mut names = Names::default();
            for request in requests {
                let add = |canonical: &[u8], times: &mut dyn Iterator<Item = _>| {
                    if let Some(hash) = parts.hash_in(part, canonical) {
                        gathered.add(hash, request.arrived, times);
                        names.add(canonical);
                    }
                };
                times_of(&mut reader, &request.content.body, add).map_err(unreadable)?;
                tokio::task::yield_now().await;
            }
            let mut comparison = gathered.into_comparison();
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
                if may_store == request.samples && (may_store > 0 || !part) {
                    left.add_whole(request)?;
                } else if may_store > 0 {
                    left.add_part(&mut reader, request, keep)?;
                }
                tokio::task::yield_now().await;
            }
        }
        left.end()?;
        Ok(left.all)
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
        // Later it would be too late.
        let deadline = Instant::now() + settings.query_timeout.min(GRACE);
        let is_late = move || Instant::now() >= deadline;
        // It is no query of the tenant's, so its limits of queries are not meant.
        let budget = Budget::with_deadline(settings.query_samples, settings.query_bytes, is_late);
        let source = self.source(sender.tenant, deadline, budget);
        let pages = source.accepting_loss(true).select(Select {
            alternatives: names.alternatives(of_pair)?,
            start,
            end,
            newest: 0,
            after: None,
            bytes_max: PAGE_BYTES,
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
    use trefoil_api::{TenantName, remote_write::Sample};
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
        };
        let packed = packed.into_iter();
        packed
            .map(|packed| content(packed.body).into_request((0, None), packed.samples))
            .collect()
    }

    #[tokio::test]
    async fn metrics_with_old_samples_are_compared_by_themselves() {
        let parts = Parts::of(TENANT, &requests(&[("new", 10), ("late", 9)]), 10).await;
        let parts = parts.expect("sound bodies");
        assert_eq!(parts.all().collect::<Vec<_>>(), [false, true]);
        for (name, part) in [("new", false), ("late", true)] {
            let labels = labels(name);
            let hash = SeriesHash::of(TENANT, labels.canonical());
            assert_eq!(parts.hash_in(part, labels.canonical()), Some(hash));
            assert_eq!(parts.hash_in(!part, labels.canonical()), None);
        }
        let parts = Parts::of(TENANT, &requests(&[("new", 10)]), 10).await;
        let parts = parts.expect("sound bodies");
        assert_eq!(parts.all().collect::<Vec<_>>(), [false]);
    }

    #[test]
    fn what_is_left_of_parts_is_packed_together() {
        let held: Vec<_> = [10, 20, 30, 40]
            .into_iter()
            .map(|time| requests(&[("one", time), ("other", time)]).remove(0))
            .collect();
        let mut held = held;
        held[3].late = Some(5);
        let encoder = Encoder::default();
        let (mut left, mut reader) = (Left::new(&encoder), BodyReader::new().expect("memory"));
        let one = labels("one");
        for (place, request) in held.iter().enumerate() {
            let keep = |canonical: &[u8], _| canonical == one.canonical();
            match place {
                1 => left.add_whole(request),
                _ => left.add_part(&mut reader, request, keep),
            }
            .expect("sound bodies");
        }
        // What came again between the two.
        left.add_part(&mut reader, &held[0], |_, _| true)
            .expect("a sound body");
        left.add_part(&mut reader, &held[2], |_, _| true)
            .expect("a sound body");
        left.end().expect("it fits");
        let told = left.all.iter().map(|one| (one.samples, one.late));
        let expected = [(1, None), (2, None), (1, None), (1, Some(5)), (4, None)];
        assert_eq!(told.collect::<Vec<_>>(), expected);
        let mut times = Vec::new();
        let body = &left.all[4].content.body;
        times_of(&mut reader, body, |_, own| times.extend(own)).expect("a sound body");
        assert_eq!(times, [10, 10, 30, 30]);
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
