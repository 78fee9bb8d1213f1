//! Making ready to stop: a node that will be back soon leaves in a moment when the others can do without it.
//!
//! ```text
//!            no other is stopping whose absence would matter
//! Waiting ------------------------------------------------> Claiming: phase Stopping in gossip, still ready
//!    ^  ^                                                       |
//!    |  +-- a smaller id has claimed too: after its turn -------+ nobody with a smaller id has claimed meanwhile
//!    |                                                          v
//!    +----- another owner went away meanwhile ------------ Leaving: not ready -> clients go elsewhere -> answer -> (SIGTERM)
//! ```
//! Only a node whose turn has come stops being ready, so nodes that are told together never empty a load balancer
//! together. Nothing is moved: the replicas stay and are the node's again when it is back. Nobody is held for ever:
//! after the asker's patience the answer is a refusal that says what would be missing, and the node goes on as before.
//!
//! Not durable: a node that restarts has not made ready.

use super::Cluster;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};
use trefoil_api::{ApiError, admin};
use trefoil_gossip::NodePhase;
use trefoil_model::{NodeId, PlacementTable, ShardSet};

/// How long a claim takes to reach all nodes: ten rounds of gossip, each to several nodes.
const CLAIM_TRAVEL: Duration = Duration::from_secs(2);
/// How long the news that a node goes takes to reach load balancers; until then it serves. Endpoints of Kubernetes
/// and probes of proxies take a few seconds.
const NEWS_TRAVEL: Duration = Duration::from_secs(5);
/// Time between two looks at the others.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// A node that nobody stops takes requests again after this.
const FORGET_AFTER: Duration = Duration::from_secs(300);

/// That this node is about to stop. Ends by itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stop {
    until: Instant,
    /// Whether its turn has come: requests should go elsewhere.
    leaving: bool,
}

/// Takes the announcement back when it is dropped, unless the node may go.
struct Claim<'a> {
    cluster: &'a Cluster,
    granted: bool,
}

impl<'a> Claim<'a> {
    fn begin(cluster: &'a Cluster) -> Self {
        cluster.announce_stop(false);
        Self {
            cluster,
            granted: false,
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if !self.granted {
            *self.cluster.stopping.lock() = None;
            self.cluster.described_anew.notify_one();
        }
    }
}

impl Cluster {
    /// Waits for this node's turn to stop, takes it out of readiness, and answers when clients have had time to notice.
    ///
    /// # Errors
    /// [`ApiError::Conflict`] when the turn has not come within `wait`: the node is as ready as before. The answer
    /// says how many shards would lose their majority.
    pub(crate) async fn prepare_stop(&self, wait: Duration) -> Result<admin::Accepted, ApiError> {
        let _one_at_a_time = self.preparing_stop.lock().await;
        let begun = Instant::now();
        tracing::info!("making ready to stop");
        loop {
            let missing = self.take_turn().await;
            let waited = begun.elapsed().as_secs();
            if missing == 0 {
                let message = match needing_all(
                    self.metadata.state().placement(),
                    self.identity.node,
                ) {
                    0 => format!("the cluster goes on without this node; waited {waited} s"),
                    needing => format!(
                        "{needing} shards have one or two owners and take no writes until this node is back; waited {waited} s"
                    ),
                };
                return Ok(admin::Accepted { message });
            }
            if begun.elapsed() >= wait {
                let message = format!(
                    "without this node {missing} shards lose their majority and take no writes until it is back: \
                     other owners are away, being filled or stopping; waited {waited} s"
                );
                tracing::warn!("{message}");
                return Err(ApiError::Conflict(message));
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Whether somebody has said that this node is about to stop; it may wait for its turn.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stop().is_some()
    }

    /// Whether this node is about to stop and its turn has come.
    pub(crate) fn is_leaving(&self) -> bool {
        self.stop().is_some_and(|stop| stop.leaving)
    }

    fn stop(&self) -> Option<Stop> {
        let stop = *self.stopping.lock();
        stop.filter(|stop| Instant::now() < stop.until)
    }

    fn announce_stop(&self, leaving: bool) {
        let until = Instant::now() + FORGET_AFTER;
        *self.stopping.lock() = Some(Stop { until, leaving });
        self.described_anew.notify_one();
    }

    /// Tries to be the next that stops. How many shards would lose their majority; 0: it may go.
    async fn take_turn(&self) -> usize {
        let before_me = self.others_stopping();
        let missing = self.shards_in_need(&before_me).await;
        if missing > 0 {
            return missing;
        }
        let mut claim = Claim::begin(self);
        tokio::time::sleep(CLAIM_TRAVEL).await;
        let missing = self.shards_without(&before_me).await;
        if missing > 0 {
            return missing;
        }
        self.announce_stop(true);
        tokio::time::sleep(NEWS_TRAVEL).await;
        let missing = self.shards_without(&before_me).await;
        claim.granted = missing == 0;
        missing
    }

    /// How many shards lose their majority without this node and those that go before it.
    async fn shards_without(&self, before_me: &BTreeSet<NodeId>) -> usize {
        let gone = go_first(self.identity.node, before_me, &self.others_stopping());
        self.shards_in_need(&gone).await
    }

    /// The other nodes that are about to stop, as they say.
    fn others_stopping(&self) -> BTreeSet<NodeId> {
        let view = self.gossip.view();
        let stopping = view
            .members
            .iter()
            .filter(|member| member.info.phase == NodePhase::Stopping);
        stopping
            .map(|member| member.identity.node)
            .filter(|node| *node != self.identity.node)
            .collect()
    }

    /// How many shards would have no majority of owners without this node and `gone`, by what the others say now.
    async fn shards_in_need(&self, gone: &BTreeSet<NodeId>) -> usize {
        let me = self.identity.node;
        let serving = self.replicas_serving().await;
        let stays = |(node, _): &(NodeId, ShardSet)| *node != me && !gone.contains(node);
        let staying = serving.into_iter().filter(stays).collect();
        in_need(self.metadata.state().placement(), me, &staying)
    }
}

/// Those of the stopping nodes that stop before `me`: those that had claimed when `me` claimed, and of those that
/// claimed at the same time the ones with smaller ids. Of two nodes at least one counts the other.
fn go_first(
    me: NodeId,
    before_me: &BTreeSet<NodeId>,
    stopping: &BTreeSet<NodeId>,
) -> BTreeSet<NodeId> {
    let smaller = stopping.iter().copied().filter(|node| *node < me);
    before_me.iter().copied().chain(smaller).collect()
}

/// Shards of `me` that take no writes without it whatever the others do: one or two owners need all of them.
fn needing_all(table: &PlacementTable, me: NodeId) -> usize {
    let owners = |old: &trefoil_model::OwnerSet| old.contains(me) && old.len() <= 2;
    let entries = table.iter();
    entries
        .filter(|(_, entry)| owners(&entry.configuration.old) || owners(&entry.configuration.new))
        .count()
}

/// Shards of `me` that have no majority among those that stay, whether they have one with it or not.
///
/// Shards with one or two owners do not count: they need every owner, so that no waiting helps.
fn in_need(table: &PlacementTable, me: NodeId, staying: &BTreeMap<NodeId, ShardSet>) -> usize {
    let entries = table.iter();
    entries
        .filter(|(shard, entry)| {
            let serves = |node: &NodeId| staying.get(node).is_some_and(|s| s.contains(*shard));
            [&entry.configuration.old, &entry.configuration.new]
                .into_iter()
                .any(|owners| {
                    let left = owners.iter().filter(serves).count();
                    owners.contains(me) && owners.len() > 2 && left < owners.majority()
                })
        })
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use trefoil_model::{Configuration, ConfigurationNumber, OwnerSet, ShardEntry, ShardId};

    /// A table whose shards have these old and new owners.
    fn table(rows: &[(&[u64], &[u64])]) -> PlacementTable {
        let owners = |ids: &[u64]| -> OwnerSet { ids.iter().copied().map(NodeId).collect() };
        let entry = |(old, new): &(&[u64], &[u64])| ShardEntry {
            configuration: Configuration {
                number: ConfigurationNumber(1),
                old: owners(old),
                new: owners(new),
            },
            owners: BTreeMap::new(),
        };
        PlacementTable {
            shards: rows.iter().map(entry).collect(),
        }
    }

    /// Nodes that stay, and the shards that they serve.
    fn staying(nodes: &[(u64, &[u16])]) -> BTreeMap<NodeId, ShardSet> {
        let of = |(node, shards): &(u64, &[u16])| {
            let shards = shards.iter().copied().map(ShardId).collect();
            (NodeId(*node), shards)
        };
        nodes.iter().map(of).collect()
    }

    #[test]
    fn both_other_owners_of_three_must_serve() {
        let three: &[u64] = &[1, 2, 3];
        let table = table(&[(three, three), (three, three), (&[2, 3, 4], &[2, 3, 4])]);
        let me = NodeId(1);
        let all: &[u16] = &[0, 1, 2];
        assert_eq!(in_need(&table, me, &staying(&[(2, all), (3, all)])), 0);
        // One is being filled, away, or stopping before this node.
        assert_eq!(in_need(&table, me, &staying(&[(2, all), (3, &[0, 2])])), 1);
        assert_eq!(in_need(&table, me, &staying(&[(2, all)])), 2);
        assert_eq!(in_need(&table, me, &staying(&[])), 2);
    }

    #[test]
    fn shards_that_need_every_owner_hold_up_nothing_and_are_told() {
        let three: &[u64] = &[1, 2, 3];
        let table = table(&[(&[1], &[1]), (&[1, 2], &[1, 2]), (three, three)]);
        let all: &[u16] = &[0, 1, 2];
        let others = staying(&[(2, all), (3, all)]);
        assert_eq!(in_need(&table, NodeId(1), &others), 0);
        assert_eq!(needing_all(&table, NodeId(1)), 2);
        assert_eq!(needing_all(&table, NodeId(3)), 0);
    }

    /// Whatever two nodes saw of each other's claims, never do both leave the other out of account.
    #[test]
    fn of_two_that_claim_one_goes_first() {
        let (one, two) = (NodeId(1), NodeId(2));
        let set = |nodes: &[NodeId]| nodes.iter().copied().collect::<BTreeSet<NodeId>>();
        let (none, only_one, only_two) = (set(&[]), set(&[one]), set(&[two]));
        // At the same time: the smaller id.
        assert_eq!(go_first(one, &none, &only_two), none);
        assert_eq!(go_first(two, &none, &only_one), only_one);
        // One after the other: who was first, whatever its id.
        assert_eq!(go_first(one, &only_two, &only_two), only_two);
        assert_eq!(go_first(two, &none, &none), none);
    }

    #[test]
    fn while_owners_change_both_sets_need_their_majority() {
        let table = table(&[(&[1, 2, 3], &[2, 3, 4])]);
        let me = NodeId(1);
        let shard: &[u16] = &[0];
        assert_eq!(in_need(&table, me, &staying(&[(2, shard), (3, shard)])), 0);
        assert_eq!(in_need(&table, me, &staying(&[(2, shard), (4, shard)])), 1);
    }
}
