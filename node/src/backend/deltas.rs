//! The way of deltas: to the node that adds them up, and there to what is stored.

use super::{NodeBackend, Origin, unavailable};
use crate::{
    clock,
    cluster::delta_lease::Holder,
    deltas::{
        interval::Refusal,
        message::{Answered, DeltaSeries, Deltas, Refused},
        read_back::Wanted,
        totals::Known,
    },
    ingest::Acceptance,
    query::{question, select::Select},
};
use bytes::Bytes;
use futures::{StreamExt, pin_mut};
use std::time::{Duration, Instant};
use tonic::Status;
use trefoil_api::{
    ApiError, ApiLimits, Backend, TenantName, WriteLimits, WriteOutcome, limit_refusals,
    remote_write::{Refusals, Sample, SampleValue, WriteRequest},
};
use trefoil_model::{Labels, Millis, SeriesHash, TenantId};

/// How often another holder is looked for before the client has to.
const TRIES_MAX: usize = 3;
/// Bytes of deltas of peers that are added up at the same time, in KiB; more are sent again later.
pub(super) const IN_WORK_KIB_MAX: usize = 256 << 10;
/// How far behind the first delta's start its total can stand, in milliseconds, and some more.
const READ_BACK_MARGIN: Millis = 10;
/// How far back a total is looked for when a delta does not say its start, in milliseconds.
const READ_BACK_MAX: Millis = 300_000;

/// Deltas of a series on their way into its total.
struct Work {
    series: SeriesHash,
    labels: Labels,
    deltas: Vec<Sample>,
}

/// Deltas that do not count.
#[derive(Default)]
struct LeftOut {
    refusals: Refusals,
    histograms: u64,
}

impl NodeBackend {
    /// Has deltas added up, and waits until a majority has the totals.
    pub(super) async fn accumulate_deltas(
        &self,
        tenant: &TenantName,
        request: &WriteRequest,
        deadline: Instant,
    ) -> Result<WriteOutcome, ApiError> {
        self.cluster.check_clock().map_err(unavailable)?;
        self.admit(tenant, &self.limits(tenant), request, None)?;
        let mut outcome = WriteOutcome::default();
        for mut deltas in Deltas::of(tenant.as_str(), request) {
            match self.send_deltas(&mut deltas, deadline).await? {
                Answered::Stored(refused) => {
                    let all = &mut outcome.refusals;
                    all.series += refused.series;
                    all.samples += refused.deltas;
                    all.reasons.extend(refused.reasons);
                    outcome.refused_histograms += refused.histograms;
                }
                Answered::Wrong(message) => return Err(ApiError::BadData(message)),
                Answered::Later {
                    message,
                    retry_after_ms,
                } => {
                    return Err(ApiError::Unavailable {
                        message,
                        retry_after: Duration::from_millis(retry_after_ms),
                    });
                }
                Answered::NotHere => return Err(moving(Duration::ZERO)),
            }
        }
        Ok(outcome)
    }

    async fn send_deltas(
        &self,
        deltas: &mut Deltas,
        deadline: Instant,
    ) -> Result<Answered, ApiError> {
        let mut last = self.cluster.delta_holder();
        for _ in 0..TRIES_MAX {
            if let Some(holder) = last {
                let answered = self.cluster.hand_over_deltas(holder, deltas, deadline);
                match answered.await {
                    Some(Answered::NotHere) | None => {}
                    Some(answered) => return Ok(answered),
                }
            }
            match self.cluster.hold_deltas().await? {
                Holder::Here(fencing) => return self.add_up(fencing, deltas, deadline).await,
                Holder::Other(holder, left) => {
                    // If it does not answer, nobody else may add until its term is over.
                    if Some(holder) == last || !self.cluster.is_reachable(holder) {
                        return Err(moving(left));
                    }
                    last = Some(holder);
                }
            }
        }
        Err(moving(Duration::ZERO))
    }

    /// Answers a peer that hands deltas over.
    ///
    /// # Errors
    /// When the question is malformed.
    pub(crate) async fn answer_deltas(&self, body: &Bytes) -> Result<Bytes, Status> {
        if self.cluster.is_done_with_deltas() {
            return question::encode(&Answered::NotHere);
        }
        let permits = (body.len() >> 10) as u32 + 1;
        let Ok(_turn) = self.delta_turns.try_acquire_many(permits) else {
            return question::encode(&Answered::Later {
                message: "too many deltas are in work".to_owned(),
                retry_after_ms: 1000,
            });
        };
        let deltas: Deltas = question::decode(body)?;
        let deadline = Instant::now() + Duration::from_millis(deltas.timeout_ms);
        let answered = match self.cluster.hold_deltas().await {
            Ok(Holder::Here(fencing)) => self.add_up(fencing, &deltas, deadline).await,
            Ok(Holder::Other(..)) => Ok(Answered::NotHere),
            Err(error) => Err(error),
        };
        let answered = answered.unwrap_or_else(|error| match error {
            ApiError::BadData(message) => Answered::Wrong(message),
            error => Answered::Later {
                retry_after_ms: 1000,
                message: error.to_string(),
            },
        });
        question::encode(&answered)
    }

    /// Adds deltas to their totals under a lease, and stores what comes of it.
    async fn add_up(
        &self,
        fencing: u64,
        deltas: &Deltas,
        deadline: Instant,
    ) -> Result<Answered, ApiError> {
        let name = TenantName::new(&deltas.tenant)?;
        let recorded = self.cluster.tenant_for_write(name.as_str()).await;
        let tenant = recorded
            .map_err(|error| unavailable(format!("the tenant cannot be recorded now: {error}")))?;
        let acceptance = self.acceptance(Some(tenant), &self.limits(&name));
        let mut left = LeftOut::default();
        let mut work = Vec::new();
        for series in &deltas.series {
            let labels = Labels::from_canonical(&series.labels)
                .map_err(|error| ApiError::BadData(format!("labels of a delta: {error}")))?;
            let deltas = accepted(series, &labels, acceptance, &mut left);
            if !deltas.is_empty() {
                work.push(Work {
                    series: SeriesHash::of(tenant, &series.labels),
                    labels,
                    deltas,
                });
            }
        }
        let mut wanted = self.not_remembered(fencing, &work)?;
        self.read_back(&name, tenant, &mut wanted, acceptance, deadline)
            .await?;
        let request = self.take_deltas(fencing, work, &wanted, &mut left)?;
        if !self.cluster.holds_deltas(fencing) {
            return Err(moving(Duration::ZERO));
        }
        let stored = self
            .store(&name, &request, Origin::Deltas, deadline)
            .await?;
        let mut refused = Refused {
            series: left.refusals.series + stored.refusals.series,
            deltas: left.refusals.samples + stored.refusals.samples,
            histograms: left.histograms + stored.refused_histograms,
            reasons: left.refusals.reasons,
        };
        refused.reasons.extend(stored.refusals.reasons);
        self.telemetry.refused_deltas.inc_by(refused.deltas);
        Ok(Answered::Stored(refused))
    }

    /// The series whose totals have to be looked for.
    fn not_remembered(&self, fencing: u64, work: &[Work]) -> Result<Wanted, ApiError> {
        let mut totals = self.totals.lock();
        if !totals.begin(fencing, clock::boot()) {
            return Err(moving(Duration::ZERO));
        }
        let mut wanted = Wanted::default();
        for one in work.iter().filter(|one| !totals.remembers(one.series)) {
            if let Some(first) = one.deltas.first() {
                let from = match first.start {
                    0 => first.time - READ_BACK_MAX,
                    start => start,
                };
                wanted.add(one.series, &one.labels, from - READ_BACK_MARGIN);
            }
        }
        Ok(wanted)
    }

    /// Reads the newest samples of series. Complete, as every query is.
    async fn read_back(
        &self,
        name: &TenantName,
        tenant: TenantId,
        wanted: &mut Wanted,
        acceptance: Acceptance,
        deadline: Instant,
    ) -> Result<(), ApiError> {
        let Some(start) = wanted.from else {
            return Ok(());
        };
        let failed = |error| unavailable(format!("the totals of deltas cannot be read: {error}"));
        for alternatives in wanted.questions().map_err(failed)? {
            let source = self.source_of(name, deadline).await.map_err(failed)?;
            // It is no query of the tenant's, so its limits of queries are not meant.
            let source = source.within(None);
            let pages = source.select(Select {
                alternatives,
                start,
                end: acceptance.newest,
                newest_only: true,
                after: None,
                bytes_max: 0,
            });
            pin_mut!(pages);
            while let Some(page) = pages.next().await {
                for series in page.map_err(failed)? {
                    wanted.found(tenant, &series);
                }
            }
        }
        Ok(())
    }

    /// Counts deltas. What is to be stored.
    fn take_deltas(
        &self,
        fencing: u64,
        work: Vec<Work>,
        wanted: &Wanted,
        left: &mut LeftOut,
    ) -> Result<WriteRequest, ApiError> {
        let mut request = WriteRequest::default();
        let mut totals = self.totals.lock();
        let now = clock::boot();
        if !totals.begin(fencing, now) {
            return Err(moving(Duration::ZERO));
        }
        let (mut samples, mut reasons) = (Vec::new(), Vec::new());
        for one in work {
            let mut has_paused = false;
            for part in one.deltas.chunk_by(|a, b| is_pause(a) == is_pause(b)) {
                if part.first().is_some_and(is_pause) {
                    totals.forget(one.series);
                    has_paused = true;
                    samples.extend_from_slice(part);
                    continue;
                }
                let known = match wanted.of(one.series) {
                    _ if has_paused => Known::ReadBack(None),
                    Some(stored) => Known::ReadBack(stored),
                    None => Known::Remembered,
                };
                let taken = totals.take(one.series, part, known, now, &mut samples, &mut reasons);
                // Another request's sweep was in between.
                taken.map_err(|_| moving(Duration::ZERO))?;
            }
            left.add(&mut reasons, &one);
            let mut pairs: Vec<(&str, &str)> = one.labels.iter().collect();
            request.push_samples(&mut pairs, samples.drain(..), &checked_limits())?;
        }
        self.telemetry.delta_series.set(totals.len() as i64);
        Ok(request)
    }
}

/// The deltas whose times are acceptable; the others are counted.
fn accepted(
    series: &DeltaSeries,
    labels: &Labels,
    acceptance: Acceptance,
    left: &mut LeftOut,
) -> Vec<Sample> {
    let mut deltas: Vec<Sample> = series.samples().collect();
    let before = deltas.len();
    let mut first = None;
    deltas.retain(|delta| {
        let is_accepted = acceptance.accepts(delta.time);
        if !is_accepted {
            first.get_or_insert(delta.time);
            left.histograms += u64::from(is_histogram(delta));
        }
        is_accepted
    });
    if let Some(time) = first {
        let count = (before - deltas.len()) as u64;
        left.refusals.add(count, || match time > acceptance.newest {
            true => limit_refusals::too_far_in_future(time, &labels.to_string()),
            false => limit_refusals::too_old(time, &labels.to_string()),
        });
    }
    deltas
}

/// Whether the series pauses here.
fn is_pause(delta: &Sample) -> bool {
    matches!(delta.value, SampleValue::Float(value) if value.to_bits() == trefoil_query_promql::STALE_NAN_BITS)
}

fn is_histogram(delta: &Sample) -> bool {
    matches!(delta.value, SampleValue::Histogram(_))
}

impl LeftOut {
    /// Adds deltas of a series that do not count.
    fn add(&mut self, reasons: &mut Vec<Refusal>, of: &Work) {
        let (count, labels) = (reasons.len() as u64, &of.labels);
        if let Some(first) = reasons.first() {
            self.refusals.add(count, || match count {
                1 => format!("a delta {first}, in series {labels}"),
                _ => format!(
                    "{count} deltas were refused, the first one {first}, in series {labels}"
                ),
            });
        }
        // Deltas of a series are of one kind.
        if of.deltas.iter().any(is_histogram) {
            self.histograms += count;
        }
        reasons.clear();
    }
}

/// Labels were checked by the node that took them from the client, by the tenant's limits.
pub(super) fn checked_limits() -> WriteLimits {
    WriteLimits {
        samples_max: usize::MAX,
        label_names_max: usize::MAX,
        label_name_bytes_max: usize::MAX,
        label_value_bytes_max: usize::MAX,
        ..ApiLimits::default().write
    }
}

fn moving(retry_after: Duration) -> ApiError {
    ApiError::Unavailable {
        message: "the node that adds deltas up is changing; send them again".to_owned(),
        retry_after: retry_after.max(Duration::from_secs(1)),
    }
}
