//! What a query took, for whoever asks with the parameter `stats`.
//!
//! ```text
//! timings  seconds: evalTotalTime, execQueueTime, and execTotalTime, which is both; the parts of evalTotalTime that
//!          Prometheus has apart (preparation, inner evaluation, sorting) are absent, because nobody measures them
//! samples  totalQueryableSamples, peakSamples, and with stats=all totalQueryableSamplesPerStep: [[time, samples], ...];
//!          without the first and the last when they could not be counted (`counting`), which a warning says
//! ```
//! The `samplesRead` of newer versions of Prometheus are absent: nobody counts what is read.
//!
//! Source: `util/stats` of Prometheus.

mod counting;

use super::{App, parameters::Parameters};
use crate::{ApiError, TenantName};
pub(super) use counting::Asked;
use counting::Counted;
use serde_json::{Value as Json, json};
use std::time::{Duration, Instant};
use trefoil_model::Millis;
use trefoil_query_promql::QueryResult;

/// What is known of a query that has begun.
pub(super) struct Stats {
    has_steps: bool,
    waited: Duration,
    begun: Instant,
    deadline: Instant,
    times: Vec<Millis>,
}

impl Stats {
    /// Begins, if the parameter is there and not empty. `times`: those that the client asks for, ascending.
    ///
    /// # Errors
    /// Those of the deadline, which was read before.
    pub(super) fn begin(
        parameters: &Parameters,
        app: &App,
        deadline: Instant,
        times: impl Iterator<Item = Millis>,
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
            deadline,
            times: times.collect(),
        }))
    }

    /// Prometheus' form of what a query took that is answered now; `asked`: what of it was within the tenant's limits.
    /// The answer gets the warnings of the counts.
    pub(super) async fn end(
        self,
        app: &App,
        tenant: &TenantName,
        asked: Option<Asked>,
        result: &mut QueryResult,
    ) -> Json {
        let evaluated = self.begun.elapsed();
        let counted = match &asked {
            Some(asked) => counting::count(app, tenant, asked, self.deadline).await,
            None => Ok(Counted::default()),
        };
        let mut samples = json!({"peakSamples": result.samples_peak});
        match counted {
            Ok(counted) => {
                samples["totalQueryableSamples"] = json!(counted.steps.values().sum::<u64>());
                if self.has_steps {
                    let of = |time| counted.steps.get(time).copied().unwrap_or(0);
                    let steps = self.times.iter();
                    samples["totalQueryableSamplesPerStep"] = steps
                        .map(|time| json!([seconds(*time), of(time)]))
                        .collect();
                }
                for warning in counted.warnings {
                    if !result.warnings.contains(&warning) {
                        result.warnings.push(warning);
                    }
                }
            }
            Err(reason) => result.warnings.push(format!(
                "the samples of the query were not counted: {reason}"
            )),
        }
        json!({
            "timings": {
                "evalTotalTime": evaluated.as_secs_f64(),
                "execQueueTime": self.waited.as_secs_f64(),
                "execTotalTime": (self.waited + evaluated).as_secs_f64(),
            },
            "samples": samples,
        })
    }
}

/// Unix seconds as a number that has no point where none is needed.
fn seconds(time: Millis) -> Json {
    match time % 1000 {
        0 => json!(time / 1000),
        _ => json!(time as f64 / 1000.0),
    }
}
