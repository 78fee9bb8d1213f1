//! The coordinator's side: a tenant's data wherever it is, for one query.

use super::{
    allowance::{Allowance, Fetched},
    answering::{self, read_labels},
    counts::{Counted, Counts},
    pins::QueryKey,
    question::{Answer, Answered, Ask, FamilyMetadata, Filter, Question},
    reuse::Reuse,
    select::{PAGE_BYTES, Page, Select, histogram_bytes, merge_pages},
};
use crate::{
    cluster::admin::shard_ranges,
    data_plane::{DataPlane, ReadyPart},
    transport::{client::Connections, directory::Directory},
};
use async_trait::async_trait;
use futures::{Stream, StreamExt, future::join_all, stream};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::runtime::{Handle, RuntimeFlavor};
use tonic::Status;
use trefoil_api::{SeriesExemplars, remote_write::Exemplar};
use trefoil_model::{Labels, Millis, NodeId, ShardSet, TenantId};
use trefoil_query_promql::{
    Budget, Listing, Part, PartResult, QueryError, RawSeries, SeriesFilter, Source, merge,
};
use trefoil_raft::State;
use trefoil_shard::Routing;

/// Bytes to decode, and values or names to put together, from which that is long work: half of a millisecond, about.
const LONG_BYTES: usize = 512 << 10;
const LONG_ITEMS: usize = 16 << 10;

/// What an evaluator means that refuses shards without another reason.
const NOT_COMPLETE: &str = "it cannot prove that it is complete";

/// What a coordinator needs to reach the evaluators.
#[derive(Clone)]
pub(crate) struct Reach {
    pub(crate) node: NodeId,
    pub(crate) plane: Arc<DataPlane>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) directory: Arc<Directory>,
    /// What the metadata plane said when the query began: how nodes are called.
    pub(crate) state: Arc<State>,
    /// The query's name at the evaluators.
    pub(crate) query: QueryKey,
    /// This node's earlier answers.
    pub(crate) reuse: Arc<Reuse>,
}

/// One tenant's data for the life of one query: the local view is pinned once.
pub(crate) struct ClusterSource {
    reach: Reach,
    tenant: TenantId,
    deadline: Instant,
    budget: Budget,
    local: tokio::sync::OnceCell<Option<Arc<ReadyPart>>>,
    partial: bool,
    /// Whether an answer that cannot warn is given though data is lost for good.
    accepts_loss: bool,
    /// The tenant's limits, when it has some.
    allowance: Option<Allowance>,
    /// No earlier answer may be used.
    anew: bool,
    /// The other evaluators understand that.
    tells_anew: bool,
    fetched: parking_lot::Mutex<Fetched>,
    lacking: parking_lot::Mutex<Lacking>,
}

/// What the answers so far may lack.
#[derive(Default)]
struct Lacking {
    /// Shards of which data was lost for good.
    lost: ShardSet,
    /// Shards for which no owner can promise to be complete, though one has answered.
    unproven: ShardSet,
    /// Shards for which nobody has answered.
    absent: ShardSet,
}

/// One question on its way from owner to owner.
#[derive(Default)]
struct Round {
    answers: Vec<Answer>,
    excluded: Vec<(NodeId, ShardSet)>,
    /// Why nodes refused, for people.
    reasons: BTreeMap<NodeId, String>,
}

impl ClusterSource {
    pub(crate) fn new(reach: Reach, tenant: TenantId, deadline: Instant, budget: Budget) -> Self {
        Self {
            reach,
            tenant,
            deadline,
            budget,
            local: tokio::sync::OnceCell::new(),
            partial: false,
            accepts_loss: false,
            allowance: None,
            anew: false,
            tells_anew: false,
            fetched: parking_lot::Mutex::default(),
            lacking: parking_lot::Mutex::default(),
        }
    }

    /// The same source, which with `partial` answers without the shards that nobody can answer for, and warns.
    pub(crate) fn partial(self, partial: bool) -> Self {
        Self { partial, ..self }
    }

    /// The same source, whose pages and counts are given, or not, when data of some shards is lost for good.
    pub(crate) fn accepting_loss(self, accepts_loss: bool) -> Self {
        Self {
            accepts_loss,
            ..self
        }
    }

    /// The same source, as a further part of a query: evaluators answer on the views that they keep of it.
    pub(crate) fn part_of(mut self, query: QueryKey) -> Self {
        self.reach.query = query;
        self
    }

    /// What it collects within.
    pub(crate) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// The query's name at the evaluators.
    pub(crate) fn query(&self) -> QueryKey {
        self.reach.query
    }

    /// For answers that have no place for warnings.
    ///
    /// # Errors
    /// [`QueryError::Execution`] when data is lost for good and whoever asks does not accept that.
    fn check_loss(&self) -> Result<(), QueryError> {
        let shards = self.lacking.lock().lost.clone();
        if self.accepts_loss || shards.is_empty() {
            return Ok(());
        }
        Err(QueryError::Execution(format!(
            "{} shards lost data for good (shards {}); partial_response=true asks for what there is",
            shards.len(),
            listed(&shards)
        )))
    }

    /// The same source, which asks and fetches within a tenant's limits.
    pub(crate) fn within(self, allowance: Option<Allowance>) -> Self {
        Self { allowance, ..self }
    }

    /// The same source, which with `anew` uses no earlier answers. `is_told`: all evaluators know that question.
    pub(crate) fn anew(self, anew: bool, is_told: bool) -> Self {
        Self {
            anew,
            tells_anew: anew && is_told,
            ..self
        }
    }

    /// Counts what was fetched for an answer.
    ///
    /// # Errors
    /// [`QueryError::Execution`] when it is more than the tenant may fetch.
    fn fetch(&self, fetched: Fetched) -> Result<(), QueryError> {
        let mut all = self.fetched.lock();
        all.add(fetched);
        self.allowance.map_or(Ok(()), |one| one.check(*all))
    }

    /// Warnings for the client about what the answers so far may lack; none when they are complete.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let lacking = self.lacking.lock();
        let all = self.reach.plane.routing().shards();
        let about = |(shards, text): (&ShardSet, &str)| {
            let count = shards.len();
            (count > 0)
                .then(|| format!("{count} of {all} shards {text} (shards {})", listed(shards)))
        };
        let texts = [
            (
                &lacking.lost,
                "lost data for good, which may be missing from this answer",
            ),
            (
                &lacking.unproven,
                "cannot be promised to be complete: acknowledged items may be missing from this partial answer",
            ),
            (
                &lacking.absent,
                "could not answer and are missing from this partial answer",
            ),
        ];
        texts.into_iter().filter_map(about).collect()
    }

    /// Declared types and help texts of metric families.
    ///
    /// # Errors
    /// As for [`Source::evaluate`].
    pub(crate) async fn metadata(
        &self,
        metric: Option<String>,
    ) -> Result<Vec<FamilyMetadata>, QueryError> {
        let mut families = BTreeSet::new();
        for answer in self.ask_all(Question::Metadata(metric)).await? {
            match answer {
                Answer::Metadata(part) => families.extend(part),
                _ => return Err(wrong_kind()),
            }
        }
        Ok(families.into_iter().collect())
    }

    /// The exemplars of the series that fit, series ascending.
    ///
    /// # Errors
    /// As for [`Source::evaluate`].
    pub(crate) async fn exemplars(
        &self,
        wanted: SeriesFilter,
    ) -> Result<Listing<SeriesExemplars>, QueryError> {
        let mut items = Vec::new();
        for answer in self.ask_all(Question::Exemplars(filter(wanted))).await? {
            let Answer::Exemplars(part) = answer else {
                return Err(wrong_kind());
            };
            for (series, exemplars) in part {
                items.push(read_exemplars(series, exemplars)?);
            }
        }
        items.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(Listing {
            items,
            warnings: self.warnings(),
        })
    }

    /// How many series there are, by labels and values.
    ///
    /// # Errors
    /// As for [`Source::evaluate`].
    pub(crate) async fn count(&self, counts: Counts) -> Result<Counted, QueryError> {
        let mut counted = Counted::default();
        for answer in self.ask_all(Question::Counts(counts)).await? {
            match answer {
                Answer::Counts(part) => counted.merge(part),
                _ => return Err(wrong_kind()),
            }
        }
        self.check_loss()?;
        Ok(counted)
    }

    /// The series that fit, page by page, until there are no more or one could not be had. Pages are of the usual size unless
    /// `bytes_max` says another one. A page that was taken out counts no longer in the query's budget.
    pub(crate) fn select(
        self,
        select: Select,
    ) -> impl Stream<Item = Result<Vec<RawSeries>, QueryError>> + Send {
        stream::unfold(Some((self, select)), |state| async move {
            let (source, mut select) = state?;
            if select.bytes_max == 0 {
                select.bytes_max = PAGE_BYTES;
            }
            match source.page(&select).await {
                Ok(page) => {
                    select.after = page.series.last().map(|s| s.labels.canonical().to_vec());
                    let rest = page.has_more.then_some((source, select));
                    Some((Ok(page.series), rest))
                }
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    async fn page(&self, select: &Select) -> Result<Page, QueryError> {
        let before = self.budget.bytes_left();
        let answers = self.ask_all(Question::Select(select.clone())).await?;
        let held = before.saturating_sub(self.budget.bytes_left());
        self.budget.release_bytes(held as usize);
        let page = |answer| match answer {
            Answer::Page(page) => Ok(page),
            _ => Err(wrong_kind()),
        };
        let pages: Result<Vec<Page>, QueryError> = answers.into_iter().map(page).collect();
        let pages = pages?;
        let series: usize = pages.iter().map(|page| page.series.len()).sum();
        let page = aside(series >= LONG_ITEMS / 16, || merge_pages(pages));
        self.check_loss()?;
        if self.allowance.is_some() {
            // Not what evaluators have found: what lies behind the page is found again.
            let mut fetched = Fetched::default();
            for one in &page.series {
                fetched.add_series(one.timestamps.len(), histogram_bytes(one));
            }
            self.fetch(fetched)?;
        }
        Ok(page)
    }

    /// Asks every shard's evaluator; asks others where some refuse.
    async fn ask_all(&self, question: Question) -> Result<Vec<Answer>, QueryError> {
        let routing = self.reach.plane.routing();
        let all = ShardSet::all(routing.shards());
        if all.is_empty() {
            return Err(QueryError::Unavailable(
                "the cluster has not begun yet".into(),
            ));
        }
        let mut round = Round::default();
        let missing = self.ask_owners(&mut round, all, &question, false).await?;
        if missing.is_empty() {
            return Ok(round.answers);
        }
        if !self.partial {
            return Err(unavailable(&missing, &round.reasons, &self.reach.state));
        }
        let mut unproven = Round {
            answers: round.answers,
            ..Round::default()
        };
        let absent = self
            .ask_owners(&mut unproven, missing.clone(), &question, true)
            .await?;
        let mut lacking = self.lacking.lock();
        lacking.unproven = lacking.unproven.union(&missing.difference(&absent));
        lacking.absent = lacking.absent.union(&absent);
        Ok(unproven.answers)
    }

    /// Asks the owners of these shards, one after the other where they refuse. Returns the shards for which no owner
    /// is left.
    async fn ask_owners(
        &self,
        round: &mut Round,
        mut remaining: ShardSet,
        question: &Question,
        unproven: bool,
    ) -> Result<ShardSet, QueryError> {
        let mut missing = ShardSet::new();
        while !remaining.is_empty() {
            let routing = self.reach.plane.routing();
            let reachable = |node| self.reach.directory.get(node).is_some_and(|w| w.alive);
            let plan = routing.plan(self.reach.node, &remaining, &round.excluded, reachable);
            missing = missing.union(&plan.missing);
            if !missing.is_empty() && !self.partial {
                return Ok(missing);
            }
            let asked = plan.parts.into_iter().map(|(node, shards)| async move {
                let answered = self.ask(node, shards.clone(), question, unproven).await;
                (node, shards, answered)
            });
            remaining = ShardSet::new();
            for (node, shards, answered) in join_all(asked).await {
                let refused = self.take(round, node, shards, answered)?;
                remaining = remaining.union(&refused);
            }
            self.budget.check()?;
        }
        Ok(missing)
    }

    /// Takes what a node answered for these shards. Returns those that others must be asked for.
    fn take(
        &self,
        round: &mut Round,
        node: NodeId,
        shards: ShardSet,
        answered: Result<Answered, String>,
    ) -> Result<ShardSet, QueryError> {
        let (refused, reason) = match answered {
            Ok(Answered {
                answer: Some(Err(error)),
                ..
            }) if error.is_local_to_evaluator() => {
                tracing::warn!(%node, %error, "a part is evaluated elsewhere");
                (shards, error.to_string())
            }
            Ok(answered) => {
                round.answers.extend(answered.answer.transpose()?);
                self.fetch(answered.fetched)?;
                let mut lacking = self.lacking.lock();
                lacking.lost = lacking.lost.union(&answered.gaps);
                (answered.refused, NOT_COMPLETE.to_owned())
            }
            Err(reason) => {
                tracing::debug!(%node, reason, "an evaluator did not answer");
                (shards, reason)
            }
        };
        if !refused.is_empty() {
            round.excluded.push((node, refused.clone()));
            round.reasons.insert(node, reason);
        }
        Ok(refused)
    }

    async fn ask(
        &self,
        node: NodeId,
        shards: ShardSet,
        question: &Question,
        unproven: bool,
    ) -> Result<Answered, String> {
        if node == self.reach.node {
            return Ok(self.ask_here(shards, question, unproven).await);
        }
        let left = self.patience();
        let ask = Ask {
            tenant: self.tenant,
            shards,
            timeout_ms: left.as_millis() as u64,
            samples_max: self.budget.samples_max(),
            bytes_max: self.budget.bytes_left(),
            query: question.is_one_of_several().then_some(self.reach.query),
            unproven,
            allowance: self.allowance,
            anew: self.tells_anew,
            question: question.clone(),
        };
        let (kind, body) = ask
            .to_bytes()
            .map_err(|status| status.message().to_owned())?;
        let exchange = async {
            let mut chunks = self
                .reach
                .connections
                .evaluate(node, kind, body, left)
                .await?;
            // Counted as it arrives; what is decoded from it is about as large and stays.
            let mut answer = HeldBytes::new(&self.budget);
            while let Some(chunk) = chunks.next().await {
                if let Err(error) = answer.append(&chunk?.body) {
                    return Ok(answering::failed(error));
                }
            }
            let is_long = answer.bytes.len() >= LONG_BYTES;
            let answered = aside(is_long, || Answered::from_bytes(kind, &answer.bytes))?;
            answer.keep();
            Ok(answered)
        };
        match tokio::time::timeout(left, exchange).await {
            Ok(answered) => answered.map_err(|status: Status| status.message().to_owned()),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }

    /// How long one node may take. With a partial answer in view, there must be time left for it.
    fn patience(&self) -> Duration {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if self.partial { left / 2 } else { left }
    }

    async fn ask_here(&self, shards: ShardSet, question: &Question, unproven: bool) -> Answered {
        let left = self.patience();
        let plane = &self.reach.plane;
        let reach = match question.reach() {
            Ok(reach) => reach,
            Err(error) => return answering::failed(error),
        };
        let pin = || async {
            let all = owned_by(&plane.routing(), self.reach.node);
            let ready = plane.query(all, reach, local_patience(left)).await;
            ready.map(Arc::new)
        };
        let reuse = (!unproven && !self.anew).then(|| Arc::clone(&self.reach.reuse));
        let unproven = unproven.then(|| Arc::new(plane.unproven(&shards, reach)));
        let ready = match &unproven {
            Some(ready) => Some(ready),
            None => self.local.get_or_init(pin).await.as_ref(),
        };
        let Some(ready) = ready else {
            return answering::refuse(shards);
        };
        let asked = (question.clone(), self.allowance, reuse);
        let budget = self.budget.clone();
        answering::answer_on(plane, ready, shards, self.tenant, asked, budget, true).await
    }
}

/// An answer that arrives, counted in the budget of its query until it is dropped, or for good.
struct HeldBytes<'a> {
    budget: &'a Budget,
    bytes: Vec<u8>,
    /// Bytes that go back to the budget when this is dropped.
    returned: usize,
}

impl<'a> HeldBytes<'a> {
    fn new(budget: &'a Budget) -> Self {
        Self {
            budget,
            bytes: Vec::new(),
            returned: 0,
        }
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), QueryError> {
        self.returned += bytes.len();
        self.budget.hold_bytes(bytes.len())?;
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// The content goes on, and its bytes stay counted.
    fn keep(mut self) {
        self.returned = 0;
    }
}

impl Drop for HeldBytes<'_> {
    fn drop(&mut self) {
        self.budget.release_bytes(self.returned);
    }
}

/// All shards that a node stores.
pub(crate) fn owned_by(routing: &Routing, node: NodeId) -> ShardSet {
    let own = routing
        .groups()
        .iter()
        .filter(|group| group.owners.contains(node));
    own.fold(ShardSet::new(), |all, group| all.union(&group.shards))
}

/// How long the local barrier may take before the other owners are asked instead.
fn local_patience(left: Duration) -> Duration {
    left.min(Duration::from_secs(3)).min(left / 2)
}

/// Shards as people read them: `0-3, 7`, cut after some.
pub(crate) fn listed(shards: &ShardSet) -> String {
    const RANGES_MAX: usize = 8;
    let ranges = shard_ranges(shards);
    let text = |(first, last): &(u16, u16)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    let shown: Vec<String> = ranges.iter().take(RANGES_MAX).map(text).collect();
    let more = if ranges.len() > RANGES_MAX {
        ", ..."
    } else {
        ""
    };
    format!("{}{more}", shown.join(", "))
}

fn unavailable(shards: &ShardSet, reasons: &BTreeMap<NodeId, String>, state: &State) -> QueryError {
    let name = |node: &NodeId| {
        let member = state.member(*node);
        member.map_or_else(|| node.to_string(), |m| m.description.name.clone())
    };
    let asked = reasons.iter();
    let asked: Vec<String> = asked
        .map(|(node, reason)| format!("{}: {reason}", name(node)))
        .collect();
    QueryError::Unavailable(format!(
        "no node can promise a complete answer for {} of the shards (asked: {}); try again, or at another node",
        shards.len(),
        if asked.is_empty() {
            "none is reachable".to_owned()
        } else {
            asked.join("; ")
        }
    ))
}

pub(super) fn wrong_kind() -> QueryError {
    QueryError::Internal("an evaluator gave an answer of another kind".into())
}

/// # Errors
/// [`QueryError::Internal`] when a peer sent malformed bytes.
fn read_exemplars(
    series: Vec<u8>,
    exemplars: Vec<(Vec<u8>, Millis, f64)>,
) -> Result<SeriesExemplars, QueryError> {
    let mut labels = vec![series];
    labels.extend(exemplars.iter().map(|(labels, _, _)| labels.clone()));
    let mut labels = read_labels(labels)?.into_iter();
    let series = labels.next().unwrap_or_default();
    let exemplars = labels
        .zip(exemplars)
        .map(|(labels, (_, time, value))| Exemplar {
            labels,
            value,
            time,
        });
    Ok(SeriesExemplars {
        labels: series,
        exemplars: exemplars.collect(),
    })
}

pub(super) fn filter(filter: SeriesFilter) -> Filter {
    Filter {
        alternatives: filter.alternatives,
        start: filter.start,
        end: filter.end,
        limit: filter.limit,
    }
}

/// Sorts, removes duplicates and cuts to the limit. The caller asks for one more than it shows, and says
/// when there was more.
pub(super) fn listing<T: Ord>(
    mut items: Vec<T>,
    limit: usize,
    warnings: Vec<String>,
) -> Listing<T> {
    aside(items.len() >= LONG_ITEMS, || {
        items.sort();
        items.dedup();
    });
    if limit > 0 {
        items.truncate(limit);
    }
    Listing { items, warnings }
}

#[async_trait]
impl Source for ClusterSource {
    async fn evaluate(&self, part: Part) -> Result<PartResult, QueryError> {
        let mut results = Vec::new();
        let (steps, mut items) = (part.grid.steps(), 0);
        for answer in self.ask_all(Question::Part(Box::new(part))).await? {
            match answer {
                Answer::Part(result) => {
                    items += steps * result.body.len();
                    results.push(result);
                }
                _ => return Err(wrong_kind()),
            }
        }
        aside(items >= LONG_ITEMS, || merge(results, &self.budget))
    }

    async fn series(&self, wanted: SeriesFilter) -> Result<Listing<Labels>, QueryError> {
        let limit = wanted.limit;
        let mut series = Vec::new();
        for answer in self.ask_all(Question::Series(filter(wanted))).await? {
            match answer {
                Answer::Series(canonical) => series.extend(read_labels(canonical)?),
                _ => return Err(wrong_kind()),
            }
        }
        Ok(listing(series, limit, self.warnings()))
    }

    async fn label_names(&self, wanted: SeriesFilter) -> Result<Listing<String>, QueryError> {
        let limit = wanted.limit;
        self.texts(Question::LabelNames(filter(wanted)), limit)
            .await
    }

    async fn label_values(
        &self,
        name: &str,
        wanted: SeriesFilter,
    ) -> Result<Listing<String>, QueryError> {
        let limit = wanted.limit;
        self.texts(
            Question::LabelValues(name.to_owned(), filter(wanted)),
            limit,
        )
        .await
    }

    fn work_long(&self, work: &mut dyn FnMut()) {
        aside(true, work);
    }
}

/// Does work, and if it is long has the thread's other tasks go on on another one; a runtime of one thread has none.
fn aside<T>(is_long: bool, work: impl FnOnce() -> T) -> T {
    let has_others = || {
        let flavor = Handle::try_current().map(|runtime| runtime.runtime_flavor());
        matches!(flavor, Ok(RuntimeFlavor::MultiThread))
    };
    match is_long && has_others() {
        true => tokio::task::block_in_place(work),
        false => work(),
    }
}

impl ClusterSource {
    async fn texts(&self, question: Question, limit: usize) -> Result<Listing<String>, QueryError> {
        let mut texts = Vec::new();
        for answer in self.ask_all(question).await? {
            match answer {
                Answer::Texts(part) => texts.extend(part),
                _ => return Err(wrong_kind()),
            }
        }
        Ok(listing(texts, limit, self.warnings()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrives_counts_until_it_is_given_up() {
        let budget = Budget::with_deadline(1, 10, || false);
        let mut given_up = HeldBytes::new(&budget);
        given_up.append(&[0; 6]).expect("6 of 10");
        let mut kept = HeldBytes::new(&budget);
        let error = kept.append(&[0; 5]).expect_err("11 of 10");
        assert_eq!(error.error_type(), "execution");
        drop(kept);
        drop(given_up);
        let mut kept = HeldBytes::new(&budget);
        kept.append(&[0; 8]).expect("8 of 10");
        kept.keep();
        assert_eq!(budget.bytes_left(), 2);
    }
}
