//! Which series of a tenant there are in the cluster, for limits of series: this node's own answer, and those of other owners for
//! the shards that it does not store.
//!
//! Only requests with series that this node does not know ask at all. An owner speaks for the shards of which it has a
//! complete replica, once it has been ready since its start, so that it does not lack what was written in its absence, and
//! once it has found out which series were active. When one owner of a shard does not speak another is asked. Shards of which
//! nobody speaks in time count by estimate, and none of their series is refused.

use super::Cluster;
use crate::{
    clock,
    data_plane::DataPlane,
    limits::series::{Candidate, Count},
    query::source::owned_by,
};
use futures::future::join_all;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::sync::watch;
use tonic::Status;
use trefoil_model::{NodeId, ShardSet, TenantId};
use trefoil_store_metrics::KnownSeries;

/// The kind of a [`KnownAsk`] among the calls of the `Queries` service.
pub(super) const KIND_KNOWN_SERIES: u32 = 7;
/// How long a request waits for what other owners know, and how many of them it asks one after the other. Series of shards
/// of which none answers are let in.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
const OWNERS_ASKED_MAX: usize = 2;
/// How long a request waits, after a start, until this node has found out which series its tenant has. All of its series
/// are let in when it takes longer.
pub(crate) const RECALL_PATIENCE: Duration = Duration::from_secs(5);

/// What is asked of an owner.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct KnownAsk {
    tenant: TenantId,
    /// Shards to count.
    shards: ShardSet,
    /// Low halves of the hashes of series of these shards.
    series: Vec<u64>,
    /// Metrics to count.
    metrics: Vec<Vec<u8>>,
}

/// What it answers.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct KnownAnswer {
    /// The shards that it speaks for: all that follows is about these only.
    shards: ShardSet,
    /// Those of the series that it knows.
    known: Vec<u64>,
    series: u64,
    /// In the order of the question.
    of_metric: Vec<u64>,
}

/// What a cluster says of a request's series.
pub(crate) struct Verdict {
    /// Series that are there after all.
    pub(crate) known: HashSet<u64>,
    /// Series that nobody has.
    pub(crate) fresh: HashSet<u64>,
    pub(crate) count: Count,
}

/// Tenants of which was found out, since the start, which series are active; at most as many as the cluster has tenants.
#[derive(Default)]
pub(super) struct Recalled {
    /// Each says whether it is done.
    tenants: Mutex<BTreeMap<TenantId, watch::Receiver<bool>>>,
    /// Held while one tenant is looked at: all at once would read all blocks at once.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// What was asked, and what has been said so far.
struct Round {
    spoken_for: ShardSet,
    /// Who does not speak for what.
    excluded: Vec<(NodeId, ShardSet)>,
    verdict: Verdict,
}

impl Cluster {
    /// What this node knows of a tenant's series; nothing when it does not know them within `patience`.
    pub(crate) async fn known_here(
        &self,
        tenant: TenantId,
        patience: Duration,
    ) -> Option<KnownSeries> {
        let mut recalled = self.recalled(tenant);
        let done = recalled.wait_for(|is_done| *is_done);
        let is_done = matches!(tokio::time::timeout(patience, done).await, Ok(Ok(_)));
        is_done
            .then(|| self.plane.engine().known_series(tenant))
            .flatten()
    }

    /// Whether it is known which of a tenant's series are active. The first call begins to find out.
    fn recalled(&self, tenant: TenantId) -> watch::Receiver<bool> {
        let mut tenants = self.recalled.tenants.lock();
        if let Some(recalled) = tenants.get(&tenant) {
            return recalled.clone();
        }
        let (sender, receiver) = watch::channel(false);
        tenants.insert(tenant, receiver.clone());
        let (plane, turn) = (self.plane.clone(), Arc::clone(&self.recalled.turn));
        tokio::spawn(async move {
            let _turn = turn.lock().await;
            let work = tokio::task::spawn_blocking(move || recall(&plane, tenant));
            if let Err(error) = work.await {
                tracing::warn!(%error, "recall series for limits");
            }
            sender.send_replace(true);
        });
        receiver
    }

    /// Whether this node lacks nothing that was written while it was away.
    fn has_caught_up(&self) -> bool {
        self.was_ready.load(Ordering::Relaxed) || self.readiness().is_ok()
    }

    /// Asks who knows these series, and counts all that there are.
    pub(crate) async fn judge_series(
        &self,
        tenant: TenantId,
        known: &KnownSeries,
        candidates: &[Candidate],
        counts_metrics: bool,
    ) -> Verdict {
        let metrics: HashSet<&[u8]> = match counts_metrics {
            true => candidates.iter().map(|one| &one.metric[..]).collect(),
            false => HashSet::new(),
        };
        let metrics: Vec<Vec<u8>> = metrics.into_iter().map(<[u8]>::to_vec).collect();
        let all = ShardSet::all(self.plane.routing().shards());
        let not_here = match self.has_caught_up() {
            true => self.plane.status().filling,
            false => all.clone(),
        };
        let mut round = Round {
            spoken_for: ShardSet::new(),
            excluded: vec![(self.identity.node, not_here)],
            verdict: Verdict {
                known: HashSet::new(),
                fresh: HashSet::new(),
                count: Count::default(),
            },
        };
        for _ in 0..OWNERS_ASKED_MAX {
            let missing = all.difference(&round.spoken_for);
            if !missing.is_empty() {
                self.ask_owners((tenant, known), candidates, &metrics, missing, &mut round)
                    .await;
            }
        }
        let mut verdict = round.verdict;
        verdict.count.scale(round.spoken_for.len(), all.len());
        let fresh = candidates.iter().filter(|one| {
            round.spoken_for.contains(one.shard) && !verdict.known.contains(&one.hash)
        });
        verdict.fresh = fresh.map(|one| one.hash).collect();
        verdict
    }

    /// Asks one owner of each of these shards.
    async fn ask_owners(
        &self,
        (tenant, known): (TenantId, &KnownSeries),
        candidates: &[Candidate],
        metrics: &[Vec<u8>],
        missing: ShardSet,
        round: &mut Round,
    ) {
        let here = self.identity.node;
        let reachable = |node: NodeId| self.directory.get(node).is_some_and(|w| w.alive);
        let routing = self.plane.routing();
        let plan = routing.plan(here, &missing, &round.excluded, reachable);
        let asked = plan.parts.into_iter().map(|(node, shards)| {
            let of_part = candidates.iter().filter(|one| shards.contains(one.shard));
            let ask = KnownAsk {
                tenant,
                series: of_part.map(|one| one.hash).collect(),
                metrics: metrics.to_vec(),
                shards,
            };
            async move {
                let answer = match node == here {
                    true => Ok(answer_of(known, ask.shards.clone(), &ask)),
                    false => {
                        self.ask(node, KIND_KNOWN_SERIES, &ask, ANSWER_TIMEOUT)
                            .await
                    }
                };
                (node, ask.shards, answer)
            }
        });
        for (node, shards, answer) in join_all(asked).await {
            let answer: KnownAnswer = answer.unwrap_or_else(|status| {
                tracing::debug!(%node, %status, "ask an owner which series it knows");
                KnownAnswer::default()
            });
            round
                .excluded
                .push((node, shards.difference(&answer.shards)));
            round.take(answer, metrics);
        }
    }

    /// Answers a peer.
    ///
    /// # Errors
    /// `UNAVAILABLE` while this node cannot speak for the tenant.
    pub(super) async fn answer_known(&self, ask: &KnownAsk) -> Result<KnownAnswer, Status> {
        if !self.has_caught_up() {
            return Err(Status::unavailable("it may lack what was written lately"));
        }
        let known = self.known_here(ask.tenant, Duration::ZERO).await;
        let known = known.ok_or_else(|| Status::unavailable("its blocks are being looked into"))?;
        let filling = self.plane.status().filling;
        let own = owned_by(&self.plane.routing(), self.identity.node);
        let shards = ask.shards.intersection(&own).difference(&filling);
        Ok(answer_of(&known, shards, ask))
    }
}

impl Round {
    fn take(&mut self, answer: KnownAnswer, metrics: &[Vec<u8>]) {
        self.spoken_for = self.spoken_for.union(&answer.shards);
        self.verdict.known.extend(answer.known);
        let of_metric = metrics.iter().cloned().zip(answer.of_metric);
        self.verdict.count.add(Count {
            series: answer.series,
            of_metric: of_metric.collect::<HashMap<_, _>>(),
        });
    }
}

fn answer_of(known: &KnownSeries, shards: ShardSet, ask: &KnownAsk) -> KnownAnswer {
    let metrics = ask.metrics.iter();
    KnownAnswer {
        known: known.present(ask.series.iter().copied()),
        series: known.count(&shards),
        of_metric: metrics
            .map(|metric| known.count_of_metric(metric, &shards))
            .collect(),
        shards,
    }
}

/// Lets the store find out which series are active.
fn recall(plane: &DataPlane, tenant: TenantId) {
    let begun = Instant::now();
    let engine = plane.engine();
    engine.set_time(clock::boot(), clock::wall());
    match engine.recall_series(tenant) {
        Ok(()) => tracing::debug!(%tenant, elapsed = ?begun.elapsed(), "recalled series"),
        // The others are there; those of the block are refilled.
        Err(error) => tracing::warn!(%error, "recall series for limits"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::question;
    use trefoil_model::ShardId;

    /// Pins the bytes of docs/formats/peer.md.
    #[test]
    fn golden_question_and_answer() {
        let hex = |bytes: &[u8]| -> String { bytes.iter().map(|b| format!("{b:02x}")).collect() };
        let ask = KnownAsk {
            tenant: TenantId(7),
            shards: ShardSet::all(4),
            series: vec![5],
            metrics: vec![b"up".to_vec()],
        };
        let bytes = question::encode(&ask).expect("small");
        assert_eq!(hex(&bytes), "0407010f010501027570");
        let answer = KnownAnswer {
            shards: [ShardId(1)].into_iter().collect(),
            known: vec![5],
            series: 9,
            of_metric: vec![3],
        };
        let bytes = question::encode(&answer).expect("small");
        assert_eq!(hex(&bytes), "04010201050901 03".replace(' ', ""));
    }

    #[test]
    fn answers_of_owners_add_up() {
        let metrics = [b"a".to_vec(), b"b".to_vec()];
        let mut round = Round {
            spoken_for: ShardSet::new(),
            excluded: Vec::new(),
            verdict: Verdict {
                known: HashSet::new(),
                fresh: HashSet::new(),
                count: Count::default(),
            },
        };
        let answer = |shard, known, series, of_metric| KnownAnswer {
            shards: [ShardId(shard)].into_iter().collect(),
            known: vec![known],
            series,
            of_metric,
        };
        round.take(answer(0, 1, 10, vec![1, 2]), &metrics);
        // One that does not speak.
        round.take(KnownAnswer::default(), &metrics);
        round.take(answer(2, 2, 5, vec![0, 4]), &metrics);
        assert_eq!(round.spoken_for.len(), 2);
        assert_eq!(round.verdict.known, HashSet::from([1, 2]));
        assert_eq!(round.verdict.count.series, 15);
        assert_eq!(round.verdict.count.of_metric[&b"b".to_vec()], 6);
    }
}
