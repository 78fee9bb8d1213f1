//! What a query took, for whoever asks with the parameter `stats`.
//!
//! ```text
//! timings  seconds: evalTotalTime, execQueueTime, and execTotalTime, which is both; the parts of evalTotalTime that
//!          Prometheus has apart (preparation, inner evaluation, sorting) are absent, because nobody measures them
//! samples  totalQueryableSamples, peakSamples, and with stats=all totalQueryableSamplesPerStep: [[time, samples], ...]
//! ```
//! Samples are counted by queries of their own behind the query that is answered, so that nothing is counted for
//! everybody else. They read the same samples again, and their time is not in the timings.
//!
//! Source: `util/stats` of Prometheus.

use super::{App, parameters::Parameters};
use crate::{ApiError, InstantQuery, RangeQuery, TenantName};
use serde_json::{Value as Json, json};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use trefoil_model::Millis;
use trefoil_query_promql::{Point, QueryData, QueryError, QueryResult, parse, sample_counts};

/// What was asked, to be asked again.
pub(super) enum Asked {
    Instant(InstantQuery),
    Range(RangeQuery),
}

/// What is known of a query that has begun.
pub(super) struct Stats {
    has_steps: bool,
    waited: Duration,
    begun: Instant,
}

impl Stats {
    /// Begins, if the parameter is there and not empty.
    ///
    /// # Errors
    /// Those of the deadline, which was read before.
    pub(super) fn begin(
        parameters: &Parameters,
        app: &App,
        deadline: Instant,
    ) -> Result<Option<Self>, ApiError> {
        let Some(wanted) = parameters.get("stats").filter(|wanted| !wanted.is_empty()) else {
            return Ok(None);
        };
        let begun = Instant::now();
        // The deadline was set when the request had been read.
        let left = deadline.saturating_duration_since(begun);
        let timeout = parameters.timeout(app.limits.query_timeout)?;
        Ok(Some(Self {
            has_steps: wanted == "all",
            waited: timeout.saturating_sub(left),
            begun,
        }))
    }

    /// Prometheus' form of what a query took that is answered now; `asked`: what of it was within the tenant's limits.
    ///
    /// # Errors
    /// Those of the queries that count.
    pub(super) async fn end(
        self,
        app: &App,
        tenant: &TenantName,
        asked: Option<Asked>,
        result: &QueryResult,
    ) -> Result<Json, ApiError> {
        let evaluated = self.begun.elapsed();
        let steps = match asked {
            Some(Asked::Instant(query)) => instant_samples(app, tenant, query).await?,
            Some(Asked::Range(query)) => range_samples(app, tenant, query).await?,
            None => BTreeMap::new(),
        };
        let mut samples = json!({
            "totalQueryableSamples": steps.values().sum::<u64>(),
            "peakSamples": result.samples_peak,
        });
        if self.has_steps {
            let steps = steps
                .iter()
                .map(|(time, count)| json!([seconds(*time), count]));
            samples["totalQueryableSamplesPerStep"] = steps.collect();
        }
        Ok(json!({
            "timings": {
                "evalTotalTime": evaluated.as_secs_f64(),
                "execQueueTime": self.waited.as_secs_f64(),
                "execTotalTime": (self.waited + evaluated).as_secs_f64(),
            },
            "samples": samples,
        }))
    }
}

/// Unix seconds as a number that has no point where none is needed.
fn seconds(time: Millis) -> Json {
    match time % 1000 {
        0 => json!(time / 1000),
        _ => json!(time as f64 / 1000.0),
    }
}

/// The queries that count, and how often each counts: a selector that stands there twice is loaded twice.
fn counts(app: &App, text: &str) -> Result<BTreeMap<String, u64>, QueryError> {
    let eval = app.backend.node_info().eval;
    let mut counts = BTreeMap::new();
    for count in sample_counts(&parse(text, &eval)?, &eval)? {
        *counts.entry(count).or_default() += 1;
    }
    Ok(counts)
}

fn add(points: impl IntoIterator<Item = Point>, often: u64, to: &mut BTreeMap<Millis, u64>) {
    for point in points {
        let count = point.value.as_float().unwrap_or(0.0);
        *to.entry(point.time).or_default() += count as u64 * often;
    }
}

async fn instant_samples(
    app: &App,
    tenant: &TenantName,
    asked: InstantQuery,
) -> Result<BTreeMap<Millis, u64>, ApiError> {
    let mut steps = BTreeMap::from([(asked.time, 0)]);
    for (query, often) in counts(app, &asked.query)? {
        let query = InstantQuery {
            query,
            limit: 0,
            ..asked.clone()
        };
        let answer = app.backend.query_instant(tenant, query).await?;
        if let QueryData::Vector(samples) = answer.data {
            let points = samples.into_iter().map(|sample| sample.point);
            add(points, often, &mut steps);
        }
    }
    Ok(steps)
}

async fn range_samples(
    app: &App,
    tenant: &TenantName,
    asked: RangeQuery,
) -> Result<BTreeMap<Millis, u64>, ApiError> {
    let times = (asked.start..=asked.end).step_by(asked.step.max(1) as usize);
    let mut steps: BTreeMap<Millis, u64> = times.map(|time| (time, 0)).collect();
    for (query, often) in counts(app, &asked.query)? {
        let query = RangeQuery {
            query,
            limit: 0,
            ..asked.clone()
        };
        let answer = app.backend.query_range(tenant, query).await?;
        if let QueryData::Matrix(series) = answer.data {
            let points = series.into_iter().flat_map(|one| one.points);
            add(points, often, &mut steps);
        }
    }
    Ok(steps)
}
