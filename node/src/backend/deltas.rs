//! The way of deltas: to the node that adds them up, and there to what is stored.

use super::{NodeBackend, Origin, unavailable};
use crate::{
    clock,
    cluster::{delta_lease::Holder, known_deletions::Since},
    deltas::{
        counter::{Refusal, ZERO_BEFORE_MAX, start_of},
        message::{Answered, DeltaSeries, Deltas, Refused},
        read_back::{Settled, Wanted, newest_for},
        totals::{NoRoom, Now, Step, Totals},
        turns::Ticket,
    },
    formats,
    ingest::{
        Acceptance,
        pairs::{Filter, Kept},
    },
    query::{question, select::Select},
};
use bytes::Bytes;
use futures::{StreamExt, pin_mut};
use parking_lot::MutexGuard;
use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};
use tonic::Status;
use trefoil_api::{
    ApiError, ApiLimits, Backend, TenantName, WriteLimits, WriteOutcome,
    remote_write::{Refusals, Sample, SampleValue, WriteRequest, refused_of_series},
};
use trefoil_model::{DeletionVersion, Labels, Millis, SeriesHash, TenantId};
use trefoil_query_promql::Budget;

/// How often another holder is looked for before the client has to.
const TRIES_MAX: usize = 3;
/// Bytes of deltas of peers that are added up at the same time, in KiB; more are sent again later. In work they take some five
/// times as much memory, and this is four of the largest messages.
pub(super) const IN_WORK_KIB_MAX: usize = 64 << 10;
/// How far in front of a delta's end its total is looked for, in milliseconds: what takes longer than an hour begins a new counter
/// when the holder changes. First deltas of series may begin long ago, and all of a request are looked for from one time on.
const READ_BACK_MAX: Millis = 3_600_000;
/// Requests that read totals back at the same time; others wait in order. At an evaluator each takes one of the turns that queries
/// have, of which there are forty by default.
pub(super) const READ_BACKS_MAX: usize = 4;
/// Memory of each. Pages are so small that it is not reached but by histograms: see [`page_bytes`].
const READ_BACK_BYTES_MAX: usize = 64 << 20;
/// Bytes of the pages of all alternatives of a question, at all evaluators together, and of one page at least.
const PAGES_BYTES: u64 = 16 << 20;
const PAGE_BYTES_MIN: u64 = 4 << 10;

/// Deltas of a series on their way into its total, ascending by time.
struct Work {
    series: SeriesHash,
    labels: Labels,
    deltas: Vec<Sample>,
    /// How many of them count.
    counted: usize,
    /// How many of them were looked at, the first ones.
    taken: usize,
}

/// Under what a request's deltas are added up.
#[derive(Clone, Copy)]
struct Holding<'a> {
    fencing: u64,
    name: &'a TenantName,
    tenant: TenantId,
    acceptance: Acceptance,
    /// The newest one that was known before anything was read for the request.
    deletion: DeletionVersion,
    deadline: Instant,
}

/// Series that one request works on or waits for, until it is dropped.
struct Reserved<'a> {
    backend: &'a NodeBackend,
    ticket: Ticket,
    series: Vec<SeriesHash>,
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
        let mut outcome = WriteOutcome::default();
        let counting = self.of_counting_senders(tenant, request, &mut outcome);
        let counting = counting.await?;
        let request = counting.as_ref().unwrap_or(request);
        self.admit(tenant, &self.limits(tenant), request, None)?;
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
        self.telemetry
            .deduplicated_samples
            .inc_by(outcome.deduplicated);
        Ok(outcome)
    }

    /// The series of senders that count, under the labels of their pairs, when pairs of senders are told. What the others
    /// send is not held back: a total that comes later than those of the other sender would not go on from them.
    async fn of_counting_senders(
        &self,
        name: &TenantName,
        request: &WriteRequest,
        outcome: &mut WriteOutcome,
    ) -> Result<Option<WriteRequest>, ApiError> {
        if !self.cluster.settings.pairs.accepted {
            return Ok(None);
        }
        let tenant = self.tenant_of_deltas(name).await?;
        let Some(verdicts) = self.verdicts(tenant, request).await? else {
            return Ok(None);
        };
        let filter = Filter::new(&self.cluster.settings.pairs, &verdicts);
        let (mut counting, mut memory) = (WriteRequest::default(), Vec::new());
        for series in request.series() {
            let samples = series.samples().len() as u64;
            match filter.keep(series.canonical(), &mut memory) {
                Kept::Stored(canonical, _) => {
                    let labels = Labels::from_canonical(canonical)
                        .map_err(|error| ApiError::BadData(error.to_string()))?;
                    let mut pairs: Vec<(&str, &str)> = labels.iter().collect();
                    counting.push_samples(&mut pairs, series.whole_samples(), &checked_limits())?;
                }
                Kept::Held => outcome.deduplicated += samples,
                Kept::Refused(reason) => {
                    let labels = series.to_labels();
                    let refusals = &mut outcome.refusals;
                    refusals.add(samples, || refused_of_series(&reason, &labels));
                    let histograms = series.whole_samples().filter(is_histogram);
                    outcome.refused_histograms += histograms.count() as u64;
                }
            }
        }
        Ok(Some(counting))
    }

    async fn tenant_of_deltas(&self, name: &TenantName) -> Result<TenantId, ApiError> {
        let recorded = self.cluster.tenant_for_write(name.as_str()).await;
        recorded.map_err(|error| unavailable(format!("the tenant cannot be recorded now: {error}")))
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
            ApiError::Unavailable {
                message,
                retry_after,
            } => Answered::Later {
                retry_after_ms: retry_after.as_millis() as u64,
                message,
            },
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
        // By its clock it is told which deltas another holder may have tried.
        self.cluster.check_clock().map_err(unavailable)?;
        let name = TenantName::new(&deltas.tenant)?;
        let tenant = self.tenant_of_deltas(&name).await?;
        let acceptance = self.acceptance(Some(tenant), &self.limits(&name));
        let mut left = LeftOut::default();
        let mut work = work_of(tenant, deltas, acceptance, &mut left)?;
        let _reserved = self.reserve(&work, deadline).await?;
        let on = Holding {
            fencing,
            name: &name,
            tenant,
            acceptance,
            // What is stored from here on was made by this request.
            deletion: self.cluster.newest_deletion(tenant),
            deadline,
        };
        self.heed_deletions(on, &work)?;
        self.read_back(on, &work).await?;
        self.recall(on, &mut work, &mut left)?;
        // A total may go on only from one that a majority has.
        self.store_totals(on, &mut work, &mut left).await?;
        loop {
            let is_all = self.take_deltas(on, &mut work, &mut left)?;
            self.store_totals(on, &mut work, &mut left).await?;
            if is_all {
                break;
            }
        }
        let refused = Refused {
            series: left.refusals.series,
            deltas: left.refusals.samples,
            histograms: left.histograms,
            reasons: left.refusals.reasons,
        };
        self.telemetry.refused_deltas.inc_by(refused.deltas);
        Ok(Answered::Stored(refused))
    }

    /// Waits until no request that came before works on these series.
    async fn reserve(&self, work: &[Work], deadline: Instant) -> Result<Reserved<'_>, ApiError> {
        let series: Vec<SeriesHash> = work.iter().map(|one| one.series).collect();
        let ticket = self.totals.lock().ask(&series);
        let reserved = Reserved {
            backend: self,
            ticket,
            series,
        };
        loop {
            let freed = self.delta_freed.notified();
            if self.totals.lock().has_turn(ticket, &reserved.series) {
                return Ok(reserved);
            }
            let freed = tokio::time::timeout_at(deadline.into(), freed);
            freed.await.map_err(|_| {
                unavailable("earlier deltas of the same series are still in work".to_owned())
            })?;
        }
    }

    /// Forgets the totals that deletions have erased since they were made.
    fn heed_deletions(&self, on: Holding<'_>, work: &[Work]) -> Result<(), ApiError> {
        let mut known: HashMap<DeletionVersion, Since> = HashMap::new();
        let mut totals = self.remembered(on)?;
        for one in work {
            totals.heed(one.series, on.deletion, |version, newest| {
                let since = known.entry(version);
                let since =
                    since.or_insert_with(|| self.cluster.deletions_since(on.tenant, version));
                match since {
                    Since::Known(_, erasing) => erasing.iter().any(|deletion| {
                        let labels = one.labels.canonical();
                        deletion.range.contains(newest) && deletion.selects(labels)
                    }),
                    Since::Forgotten => true,
                }
            });
        }
        Ok(())
    }

    /// Reads the newest samples of the series that are not remembered. Complete, as every query is. What was read is kept when
    /// the rest could not be, so that the next try goes on from there; half of the request's time is left to store.
    async fn read_back(&self, on: Holding<'_>, work: &[Work]) -> Result<(), ApiError> {
        let mut wanted = Wanted::default();
        let has_before = self.asks_for_before();
        {
            let mut totals = self.remembered(on)?;
            totals.ask_for_before(has_before);
            for one in work {
                let from = one.begin() - 1;
                if totals.lacks(one.series, from) {
                    wanted.add(one.series, &one.labels, from, one.deltas.len());
                }
            }
        }
        let Some(start) = wanted.from else {
            return Ok(());
        };
        let asked = (start, has_before);
        let now = Instant::now();
        let until = now + on.deadline.saturating_duration_since(now) / 2;
        let turn = tokio::time::timeout_at(until.into(), self.read_backs.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            return Err(unavailable(
                "totals of other deltas are still read".to_owned(),
            ));
        };
        let nodes = self.cluster.nodes_that_write();
        // How many samples tell what a total is, and are to be written again with it.
        let newest = match has_before {
            true => newest_for(wanted.deltas_max),
            false => 1,
        };
        let mut query = None;
        for mut question in wanted.questions() {
            let samples_max = self.cluster.settings.query_samples;
            let is_late = move || Instant::now() >= until;
            let budget = Budget::with_deadline(samples_max, READ_BACK_BYTES_MAX as u64, is_late);
            // It is no query of the tenant's, so its limits of queries are not meant. What is lost for good begins anew.
            let source = self.source(on.tenant, until, budget).accepting_loss(true);
            // All questions reach the same times, and evaluators keep few views.
            let query = *query.get_or_insert(source.query());
            let pages = source.part_of(query).select(Select {
                // What is in front of the newest sample is wanted, too, where it may be its zero.
                start: start.saturating_sub(ZERO_BEFORE_MAX),
                end: on.acceptance.newest,
                newest,
                after: question.after().map(|after| after.canonical().to_vec()),
                bytes_max: page_bytes(nodes, question.alternatives.len()),
                alternatives: std::mem::take(&mut question.alternatives),
            });
            pin_mut!(pages);
            while let Some(page) = pages.next().await {
                let page = page.map_err(|error| {
                    unavailable(format!("the totals of deltas cannot be read: {error}"))
                })?;
                page.iter().for_each(|series| question.found(series));
                if let Some(last) = page.last() {
                    self.keep_found(on, asked, question.settle(Some(&last.labels)))?;
                }
            }
            self.keep_found(on, asked, question.settle(None))?;
        }
        Ok(())
    }

    /// Whether what is in front of newest samples is asked for: all members know how to answer.
    fn asks_for_before(&self) -> bool {
        formats::asks_for_newest(&self.cluster.metadata.state())
    }

    /// Keeps what was read back, from a time on, and whether what is in front was asked for.
    fn keep_found(
        &self,
        on: Holding<'_>,
        (from, has_before): (Millis, bool),
        settled: Vec<Settled>,
    ) -> Result<(), ApiError> {
        let mut totals = self.remembered(on)?;
        // It has changed since the question.
        if has_before != self.asks_for_before() {
            return Err(moving(Duration::ZERO));
        }
        let now = self.now_of_totals();
        for (series, stored) in settled {
            let stored = stored.filter(|stored| stored.time() >= from);
            let kept = totals.keep_found(series, stored, from, on.deletion, now);
            kept.map_err(|_| no_memory())?;
        }
        Ok(())
    }

    /// Remembers series again, by what was found of them. Those that are too many are left out.
    fn recall(
        &self,
        on: Holding<'_>,
        work: &mut Vec<Work>,
        left: &mut LeftOut,
    ) -> Result<(), ApiError> {
        let mut totals = self.remembered(on)?;
        let (now, mut is_short) = (self.now_of_totals(), false);
        work.retain(|one| {
            if totals.remembers(one.series) {
                return true;
            }
            let recalled = totals.recall(one.series, &one.deltas, now);
            match recalled {
                Ok(()) => {}
                Err(NoRoom::Bytes) => is_short = true,
                Err(NoRoom::Series(reason)) => {
                    left.add(&vec![reason; one.deltas.len()], one);
                }
            }
            recalled.is_ok()
        });
        if is_short { Err(no_memory()) } else { Ok(()) }
    }

    /// Stores what a majority may not have of series. Those that limits refuse are left out and forgotten: nothing is
    /// stored of them.
    async fn store_totals(
        &self,
        on: Holding<'_>,
        work: &mut Vec<Work>,
        left: &mut LeftOut,
    ) -> Result<(), ApiError> {
        let mut request = WriteRequest::default();
        let now = self.cluster.now();
        let oldest = self.cluster.oldest_accepted(Some(on.tenant), now);
        let oldest = oldest.saturating_sub(ZERO_BEFORE_MAX);
        {
            let totals = self.remembered(on)?;
            for one in work.iter() {
                let unstored = storable(totals.unstored(one.series), oldest);
                if !unstored.is_empty() {
                    let mut pairs: Vec<(&str, &str)> = one.labels.iter().collect();
                    request.push_samples(&mut pairs, unstored.to_vec(), &checked_limits())?;
                }
            }
        }
        let mut refused = Vec::new();
        let stored = match request.is_empty() {
            true => Ok(WriteOutcome::default()),
            false => {
                let deletion = on.deletion;
                let origin = Origin::Deltas { deletion, oldest };
                self.store_telling(on.name, &request, origin, on.deadline, &mut refused)
                    .await
            }
        };
        let mut totals = self.totals.lock();
        let outcome = match stored {
            Ok(outcome) => outcome,
            Err(error) => {
                if let ApiError::BadData(_) = error {
                    work.iter().for_each(|one| totals.forget(one.series));
                }
                return Err(error);
            }
        };
        let refused: HashSet<SeriesHash> = refused.into_iter().collect();
        work.retain(|one| {
            let is_refused = refused.contains(&one.series);
            match is_refused {
                true => {
                    totals.forget(one.series);
                    left.count(one.counted, one);
                }
                false => totals.stored(one.series),
            }
            !is_refused
        });
        left.refusals.series += refused.len() as u64;
        left.refusals.reasons.extend(outcome.refusals.reasons);
        Ok(())
    }

    /// Counts deltas, as many as one step may; what comes of them is to be stored. Whether those were all.
    fn take_deltas(
        &self,
        on: Holding<'_>,
        work: &mut [Work],
        left: &mut LeftOut,
    ) -> Result<bool, ApiError> {
        // What this node knows to be stored under the lease the next holder will find.
        if !self.cluster.holds_deltas(on.fencing) {
            return Err(moving(Duration::ZERO));
        }
        let mut totals = self.remembered(on)?;
        let (now, mut step) = (self.now_of_totals(), Step::default());
        let (mut is_all, mut has_taken) = (true, false);
        for one in work {
            if one.taken == 0 {
                totals.expect(one.series, one.deltas.len());
            }
            let (mut reasons, next) = (Vec::new(), &one.deltas[one.taken..]);
            let taken = totals.take(one.series, next, now, &mut step, &mut reasons);
            let taken = taken.ok_or_else(|| moving(Duration::ZERO))?;
            is_all &= taken == next.len();
            has_taken |= taken > 0;
            one.taken += taken;
            one.counted -= reasons.len();
            left.add(&reasons, one);
        }
        match is_all || has_taken {
            true => Ok(is_all),
            // What was taken before is stored.
            false => Err(no_memory()),
        }
    }

    /// What is remembered under a lease, unless another one has begun here.
    fn remembered(&self, on: Holding<'_>) -> Result<MutexGuard<'_, Totals>, ApiError> {
        let mut totals = self.totals.lock();
        match totals.begin(on.fencing, self.now_of_totals()) {
            true => Ok(totals),
            false => Err(moving(Duration::ZERO)),
        }
    }

    fn now_of_totals(&self) -> Now {
        let time = self.cluster.now();
        let oldest = self.cluster.oldest_written(time);
        Now {
            boot: clock::boot(),
            time,
            oldest: oldest.saturating_sub(ZERO_BEFORE_MAX),
        }
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.backend.totals.lock().end(self.ticket, &self.series);
        self.backend.delta_freed.notify_waiters();
    }
}

impl Work {
    /// Where the first of its deltas begins, as far as it matters.
    fn begin(&self) -> Millis {
        let begins = self.deltas.iter();
        let begins = begins.map(|delta| start_of(delta).max(delta.time - READ_BACK_MAX));
        begins.min().unwrap_or(Millis::MAX)
    }
}

/// The deltas of a message whose times are acceptable; the others are left out.
fn work_of(
    tenant: TenantId,
    deltas: &Deltas,
    acceptance: Acceptance,
    left: &mut LeftOut,
) -> Result<Vec<Work>, ApiError> {
    let mut work = Vec::new();
    for series in &deltas.series {
        let labels = Labels::from_canonical(&series.labels)
            .map_err(|error| ApiError::BadData(format!("labels of a delta: {error}")))?;
        let deltas = accepted(series, &labels, acceptance, left);
        if !deltas.is_empty() {
            work.push(Work {
                series: SeriesHash::of(tenant, &series.labels),
                labels,
                counted: deltas.len(),
                taken: 0,
                deltas,
            });
        }
    }
    Ok(work)
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
        left.refusals
            .add(count, || acceptance.refusal(time, &labels.to_string()));
    }
    deltas
}

fn is_histogram(delta: &Sample) -> bool {
    matches!(delta.value, SampleValue::Histogram(_))
}

impl LeftOut {
    /// Adds deltas of a series that do not count.
    fn add(&mut self, reasons: &[Refusal], of: &Work) {
        let (count, labels) = (reasons.len(), &of.labels);
        let Some(first) = reasons.first() else {
            return;
        };
        self.refusals.add(0, || match count {
            1 => format!("a delta {first}, in series {labels}"),
            _ => format!("{count} deltas were refused, the first one {first}, in series {labels}"),
        });
        self.count(count, of);
    }

    /// Counts deltas of a series that do not count.
    fn count(&mut self, count: usize, of: &Work) {
        self.refusals.samples += count as u64;
        // Deltas of a series are of one kind.
        if of.deltas.iter().any(is_histogram) {
            self.histograms += count as u64;
        }
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

/// What is stored of samples that ascend: not what is so old that it would vanish at once, or nobody may write it.
fn storable(unstored: &[Sample], oldest: Millis) -> &[Sample] {
    &unstored[unstored.partition_point(|sample| sample.time < oldest)..]
}

/// Bytes of a page of one alternative, so that those of all alternatives fit into memory wherever they come from.
fn page_bytes(nodes: usize, alternatives: usize) -> u64 {
    let pages = (nodes.max(1) * alternatives.max(1)) as u64;
    (PAGES_BYTES / pages).max(PAGE_BYTES_MIN)
}

fn no_memory() -> ApiError {
    unavailable("memory for totals of deltas is short; send them again".to_owned())
}

fn moving(retry_after: Duration) -> ApiError {
    ApiError::Unavailable {
        message: "the node that adds deltas up is changing; send them again".to_owned(),
        retry_after: retry_after.max(Duration::from_secs(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_vanish_at_once_is_not_stored_again() {
        let samples = [10, 20, 30].map(|time| Sample::float(time, 1.0));
        assert_eq!(storable(&samples, Millis::MIN), samples);
        assert_eq!(storable(&samples, 20), &samples[1..]);
        assert_eq!(storable(&samples, 31), []);
    }

    #[test]
    fn pages_fit_into_memory() {
        assert_eq!(page_bytes(1, 1), PAGES_BYTES);
        assert_eq!(page_bytes(3, 64) * 3 * 64 / PAGES_BYTES, 0);
        assert_eq!(page_bytes(100, 64), PAGE_BYTES_MIN);
        // They are held as they arrived, and decoded.
        assert!(PAGES_BYTES * 2 < READ_BACK_BYTES_MAX as u64);
    }
}
