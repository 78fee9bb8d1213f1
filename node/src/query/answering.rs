//! The evaluator's side: proves completeness, pins a view, and works out the question on it.

use super::{
    allowance::{Allowance, Fetched, Meter},
    attended::CancelOnDrop,
    evaluator::Evaluator,
    parallel,
    question::{Answer, Answered, Ask, FamilyMetadata, Filter, Question},
    reuse::{Asked, Reuse, Worked},
    storage::{Brief, Damaged, ViewStorage},
};
use crate::data_plane::{DataPlane, ReadyPart};
use std::{
    cell::{Cell, OnceCell},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::JoinError;
use tonic::Status;
use trefoil_model::{Labels, ShardSet, TenantId};
use trefoil_query_promql::{Budget, Part, PartResult, QueryError};

/// What the thread that asks works out itself: less than half of a millisecond, and it waits for nothing.
const BRIEF: Brief = Brief {
    series_max: 256,
    work_max: 32 << 10,
};

/// Answers a peer's question for those of its shards that this node can promise.
///
/// # Errors
/// `UNAVAILABLE` when this node works on too many already.
pub(crate) async fn answer(
    plane: &Arc<DataPlane>,
    evaluator: &Evaluator,
    ask: Ask,
) -> Result<Answered, Status> {
    let deadline = Instant::now() + Duration::from_millis(ask.timeout_ms);
    // The other half is for another owner, should this one refuse.
    let _turn = evaluator
        .turn(Duration::from_millis(ask.timeout_ms / 2))
        .await?;
    Ok(answer_now(plane, evaluator, ask, deadline).await)
}

async fn answer_now(
    plane: &Arc<DataPlane>,
    evaluator: &Evaluator,
    ask: Ask,
    deadline: Instant,
) -> Answered {
    let reach = match ask.question.reach() {
        Ok(reach) => reach,
        Err(error) => return failed(error),
    };
    let timeout = deadline.saturating_duration_since(Instant::now());
    let shards = ask.shards.clone();
    let pin = async move {
        let ready = plane.query(shards, reach, timeout).await;
        ready.map(Arc::new)
    };
    let ready = match ask.query {
        _ if ask.unproven => Some(Arc::new(plane.unproven(&ask.shards, reach))),
        Some(query) => evaluator.pins.view(query, &ask.shards, pin).await,
        None => pin.await,
    };
    let Some(ready) = ready else {
        return refuse(ask.shards);
    };
    let is_late = move || Instant::now() >= deadline;
    let budget = Budget::with_deadline(ask.samples_max, ask.bytes_max, is_late);
    let reuse = (!ask.unproven && !ask.anew).then(|| Arc::clone(&evaluator.reuse));
    let asked = (ask.question, ask.allowance, reuse);
    answer_on(plane, &ready, ask.shards, ask.tenant, asked, budget, false).await
}

/// Answers a question on a view that was pinned already, for the times that it asks about. `reuse`: earlier answers may be used, if
/// the view is proven to be complete. `may_be_here`: what takes little is worked out by the thread that asks, which should be none
/// that others wait for.
pub(crate) async fn answer_on(
    plane: &Arc<DataPlane>,
    ready: &Arc<ReadyPart>,
    shards: ShardSet,
    tenant: TenantId,
    asked: (Question, Option<Allowance>, Option<Arc<Reuse>>),
    budget: Budget,
    may_be_here: bool,
) -> Answered {
    let evaluation = match Evaluation::new(ready, shards, tenant, asked, budget) {
        Ok(evaluation) => evaluation,
        Err(answered) => return answered,
    };
    let brief = may_be_here.then(|| evaluation.brief()).flatten();
    let outcome = match brief {
        Some(outcome) => Ok(outcome),
        None => evaluation.aside().await,
    };
    evaluation.answered(plane, outcome)
}

/// One question on one view.
struct Evaluation {
    ready: Arc<ReadyPart>,
    shards: ShardSet,
    refused: ShardSet,
    gaps: ShardSet,
    tenant: TenantId,
    question: Question,
    allowance: Option<Allowance>,
    reuse: Option<Arc<Reuse>>,
    budget: Budget,
}

/// What came of it, what was fetched for it, and what turned out to be unreadable.
type Outcome = (Result<Answer, QueryError>, Fetched, Option<Damaged>);

impl Evaluation {
    /// # Errors
    /// The answer, if there is nothing to work out.
    fn new(
        ready: &Arc<ReadyPart>,
        shards: ShardSet,
        tenant: TenantId,
        (question, allowance, reuse): (Question, Option<Allowance>, Option<Arc<Reuse>>),
        budget: Budget,
    ) -> Result<Arc<Self>, Answered> {
        match question.reach() {
            Ok(reach) if ready.covers(reach) => {}
            // Nobody proved that the view is complete for these times.
            Ok(_) => return Err(refuse(shards)),
            Err(error) => return Err(failed(error)),
        }
        let complete = shards.intersection(&ready.complete);
        let refused = shards.difference(&ready.complete);
        if complete.is_empty() {
            return Err(refuse(refused));
        }
        let gaps = ready.gaps.intersection(&complete);
        // What limits leave depends on the time, and what is fetched counts.
        let reuse = reuse.filter(|_| allowance.is_none() && gaps.is_empty());
        Ok(Arc::new(Self {
            ready: Arc::clone(ready),
            shards: complete,
            refused,
            gaps,
            tenant,
            question,
            allowance,
            reuse,
            budget,
        }))
    }

    fn run(&self, budget: &Budget, brief: Option<Brief>) -> Outcome {
        let storage = ViewStorage {
            view: &self.ready.view,
            tenant: self.tenant,
            shards: &self.shards,
            damaged: Cell::new(None),
            budget,
            meter: Arc::new(Meter::new(self.allowance)),
            brief,
        };
        let question = self.question.clone();
        // Putting earlier answers together may take longer than the little that is worked out here.
        let reuse = self.reuse.as_deref().filter(|_| brief.is_none());
        let answer = evaluate(&storage, question, budget, reuse);
        (answer, storage.meter.fetched(), storage.damaged.get())
    }

    /// What this thread works out at once, because handing it to another one would take as long.
    fn brief(&self) -> Option<Outcome> {
        if !matches!(self.question, Question::Part(_)) {
            return None;
        }
        let budget = self.budget.branch();
        let outcome = catch_unwind(AssertUnwindSafe(|| self.run(&budget, Some(BRIEF))));
        // What panics does so again, where that is told.
        let outcome = outcome
            .ok()
            .filter(|outcome| !matches!(outcome.0, Err(QueryError::Canceled)));
        if outcome.is_none() {
            budget.release_all();
        }
        outcome
    }

    /// The same by a thread that has time for it. Ends early when nobody waits for it any more.
    async fn aside(self: &Arc<Self>) -> Result<Outcome, JoinError> {
        let guard = CancelOnDrop::new(vec![self.budget.clone()]);
        let evaluation = Arc::clone(self);
        let outcome =
            tokio::task::spawn_blocking(move || evaluation.run(&evaluation.budget, None)).await;
        guard.ended();
        outcome
    }

    fn answered(&self, plane: &DataPlane, outcome: Result<Outcome, JoinError>) -> Answered {
        let (answer, fetched, damaged) = outcome.unwrap_or_else(|panic| {
            let reason = format!("the evaluation ended early: {panic}");
            (Err(QueryError::Internal(reason)), Fetched::default(), None)
        });
        if let Some((block, piece)) = damaged {
            plane.damaged(block, piece);
        }
        match answer {
            // Whatever was made of it: an answer that met an unreadable block may lack something.
            _ if damaged.is_some() => refuse(self.refused.union(&self.shards)),
            Err(QueryError::Damaged(_)) => refuse(self.refused.union(&self.shards)),
            answer => Answered {
                refused: self.refused.clone(),
                gaps: self.gaps.clone(),
                fetched,
                answer: Some(answer),
            },
        }
    }
}

pub(super) fn refuse(refused: ShardSet) -> Answered {
    Answered {
        refused,
        gaps: ShardSet::new(),
        fetched: Fetched::default(),
        answer: None,
    }
}

/// The query's own mistake: nobody else would answer it either.
pub(super) fn failed(error: QueryError) -> Answered {
    Answered {
        refused: ShardSet::new(),
        gaps: ShardSet::new(),
        fetched: Fetched::default(),
        answer: Some(Err(error)),
    }
}

/// Works out a question, as far as the tenant's limits leave something of it, on what an evaluator stores.
pub(super) fn evaluate(
    storage: &ViewStorage<'_>,
    question: Question,
    budget: &Budget,
    reuse: Option<&Reuse>,
) -> Result<Answer, QueryError> {
    let question = match storage.meter.confine(question) {
        Ok(question) => question,
        Err(nothing) => return Ok(nothing),
    };
    match question {
        Question::Part(part) => match reuse {
            Some(reuse) => part_with(reuse, &part, storage, budget).map(Answer::Part),
            None => parallel::evaluate(&part, storage, budget).map(Answer::Part),
        },
        Question::Series(filter) => {
            let series = storage.series(&filter)?;
            let series = limited(series, &filter);
            Ok(Answer::Series(
                series
                    .iter()
                    .map(|labels| labels.canonical().to_vec())
                    .collect(),
            ))
        }
        Question::LabelNames(filter) => {
            let names = storage.label_names(&filter)?;
            Ok(Answer::Texts(limited(names, &filter)))
        }
        Question::LabelValues(name, filter) => {
            let values = storage.label_values(&name, &filter)?;
            Ok(Answer::Texts(limited(values, &filter)))
        }
        Question::Metadata(metric) => {
            let mut families: Vec<FamilyMetadata> = storage.metadata(metric.as_deref())?;
            families.sort();
            Ok(Answer::Metadata(families))
        }
        Question::Exemplars(filter) => Ok(Answer::Exemplars(storage.exemplars(&filter)?)),
        Question::Select(select) => storage.page(&select).map(Answer::Page),
        Question::Counts(counts) => storage.count(&counts).map(Answer::Counts),
    }
}

/// Works out a part with the help of earlier answers.
fn part_with(
    reuse: &Reuse,
    part: &Part,
    storage: &ViewStorage<'_>,
    budget: &Budget,
) -> Result<PartResult, QueryError> {
    let stamps = OnceCell::new();
    let stamp = |window| {
        let stamps = stamps.get_or_init(|| storage.view.stamps(storage.tenant));
        stamps.of(window)
    };
    let asked = Asked {
        tenant: storage.tenant,
        shards: storage.shards,
        stamp: &stamp,
    };
    reuse.evaluate(part, &asked, budget, &|part, ends, budget| {
        let (answer, work) = parallel::evaluate_in(part, ends, storage, budget)?;
        Ok(Worked {
            answer,
            work,
            is_sound: storage.damaged.get().is_none(),
        })
    })
}

/// One more than the limit, so that the coordinator sees that there is more.
fn limited<T>(mut items: Vec<T>, filter: &Filter) -> Vec<T> {
    if filter.limit > 0 {
        items.truncate(filter.limit + 1);
    }
    items
}

/// Reads label sets that travelled as canonical bytes.
///
/// # Errors
/// [`QueryError::Internal`] when a peer sent malformed bytes.
pub(crate) fn read_labels(canonical: Vec<Vec<u8>>) -> Result<Vec<Labels>, QueryError> {
    let read = |bytes: Vec<u8>| Labels::from_canonical(&bytes);
    canonical
        .into_iter()
        .map(read)
        .collect::<Result<_, _>>()
        .map_err(|error| QueryError::Internal(format!("read labels from a peer: {error}")))
}
