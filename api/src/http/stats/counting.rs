//! How many samples a query loads at its times: by queries of their own behind the query that is answered, so that nothing is
//! counted for everybody else.
//!
//! - Each different selector is one query, one after the other, at most [`QUERIES_MAX`]. Each has the tenant's limits to itself,
//!   and all are in the turn of the query that is answered.
//! - They take half of the time that is left until the deadline, so the answer goes out whatever becomes of them: a failure
//!   leaves numbers out, and never an answer.
//! - They neither use earlier answers nor leave any, and are not among the queries of the node's metrics. A query that is
//!   answered from earlier answers or from aggregates counts as if it had read the samples.

use super::App;
use crate::{InstantQuery, RangeQuery, TenantName};
use std::{collections::BTreeMap, time::Instant};
use trefoil_model::Millis;
use trefoil_query_promql::{Point, QueryData, QueryError, parse, sample_counts};

/// Queries that count for one request. An expression with more different selectors is answered without counts: each of
/// them would load its samples again. Dashboards have a handful.
const QUERIES_MAX: usize = 16;

/// What was asked, to be asked again.
#[derive(Clone)]
pub(in crate::http) enum Asked {
    Instant(InstantQuery),
    Range(RangeQuery),
}

/// What was counted.
#[derive(Default)]
pub(super) struct Counted {
    /// Samples by time; a time without any may be absent.
    pub(super) steps: BTreeMap<Millis, u64>,
    /// What data the counts may lack.
    pub(super) warnings: Vec<String>,
}

/// Counts the samples of what was asked, before `deadline`.
///
/// # Errors
/// Why there are no counts, for people.
pub(super) async fn count(
    app: &App,
    tenant: &TenantName,
    asked: &Asked,
    deadline: Instant,
) -> Result<Counted, String> {
    let counts = counts(app, asked.text()).map_err(|error| error.to_string())?;
    if counts.len() > QUERIES_MAX {
        return Err(format!(
            "it has more than {QUERIES_MAX} different selectors"
        ));
    }
    let now = Instant::now();
    let until = now + deadline.saturating_duration_since(now) / 2;
    let counting = async {
        let mut counted = Counted::default();
        for (text, often) in counts {
            let (points, warnings) = asked.points(app, tenant, text, until).await?;
            for point in points {
                let count = point.value.as_float().unwrap_or(0.0) as u64;
                *counted.steps.entry(point.time).or_default() += count * often;
            }
            counted.warnings.extend(warnings);
        }
        Ok(counted)
    };
    let counted = tokio::time::timeout_at(until.into(), counting).await;
    let counted = counted.unwrap_or(Err(QueryError::Timeout));
    counted.map_err(|error| error.to_string())
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

impl Asked {
    fn text(&self) -> &str {
        match self {
            Self::Instant(query) => &query.query,
            Self::Range(query) => &query.query,
        }
    }

    /// The points and warnings of a query that counts, at the times of this one.
    async fn points(
        &self,
        app: &App,
        tenant: &TenantName,
        text: String,
        deadline: Instant,
    ) -> Result<(Vec<Point>, Vec<String>), QueryError> {
        let answer = match self.clone() {
            Self::Instant(query) => {
                let query = InstantQuery {
                    query: text,
                    deadline,
                    anew: true,
                    limit: 0,
                    counts_samples: true,
                    ..query
                };
                app.backend.query_instant(tenant, query).await?
            }
            Self::Range(query) => {
                let query = RangeQuery {
                    query: text,
                    deadline,
                    anew: true,
                    limit: 0,
                    counts_samples: true,
                    ..query
                };
                app.backend.query_range(tenant, query).await?
            }
        };
        let points = match answer.data {
            QueryData::Vector(samples) => samples.into_iter().map(|one| one.point).collect(),
            QueryData::Matrix(series) => series.into_iter().flat_map(|one| one.points).collect(),
            QueryData::Scalar(_) | QueryData::String { .. } => Vec::new(),
        };
        Ok((points, answer.warnings))
    }
}
