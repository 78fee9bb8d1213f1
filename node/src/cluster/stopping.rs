//! Making ready to stop: a node that will be back soon leaves in a moment when the others can do without it.
//!
//! ```text
//! prepare-stop: not ready any more, phase Stopping in gossip -> clients and peers go elsewhere
//!   -> wait until every shard keeps a majority of its owners -> answer -> (SIGTERM)
//! ```
//! Nothing is moved: the replicas stay and are the node's again when it is back. Several nodes that make ready
//! at the same time go one after the other, the smallest id first, because each counts those before it as gone.
//! Nobody is held for ever: after the asker's patience the answer says what would be missing.
//!
//! Not durable: a node that restarts has not made ready.

use super::Cluster;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};
use trefoil_api::admin;
use trefoil_gossip::NodePhase;
use trefoil_model::{NodeId, PlacementTable, ShardSet};

/// How long the news that a node goes takes to reach load balancers and the other nodes; until then it serves.
/// Endpoints of Kubernetes and probes of proxies take a few seconds.
const NEWS_TRAVEL: Duration = Duration::from_secs(5);
/// Time between two looks at the others.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// A node that nobody stops takes requests again after this.
const FORGET_AFTER: Duration = Duration::from_secs(300);

impl Cluster {
    /// Takes the node out of readiness, waits for the others, and says how that went.
    pub(crate) async fn prepare_stop(&self, wait: Duration) -> admin::Accepted {
        let begun = Instant::now();
        let expires = begun + wait + FORGET_AFTER;
        *self.stopping_until.lock() = Some(expires);
        self.described_anew.notify_one();
        tracing::info!("making ready to stop");
        tokio::time::sleep(NEWS_TRAVEL).await;
        loop {
            let missing = self.shards_in_need().await;
            let waited = begun.elapsed().as_secs();
            if missing == 0 {
                let message = format!("the cluster goes on without this node; waited {waited} s");
                return admin::Accepted { message };
            }
            if begun.elapsed() >= wait {
                let message = format!(
                    "without this node {missing} shards take no writes until it is back: other owners are away, \
                     being filled or stopping; waited {waited} s"
                );
                tracing::warn!("{message}");
                return admin::Accepted { message };
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Whether somebody has said that this node is about to stop.
    pub(crate) fn is_stopping(&self) -> bool {
        let until = *self.stopping_until.lock();
        until.is_some_and(|until| Instant::now() < until)
    }

    /// How many shards would have no majority of owners without this node, by what the others say now.
    async fn shards_in_need(&self) -> usize {
        let me = self.identity.node;
        let view = self.gossip.view();
        let goes_before_me: BTreeSet<NodeId> = view
            .members
            .iter()
            .filter(|member| member.info.phase == NodePhase::Stopping)
            .map(|member| member.identity.node)
            .filter(|node| *node < me)
            .collect();
        let serving = self.replicas_serving().await;
        let stays = |(node, _): &(NodeId, ShardSet)| *node != me && !goes_before_me.contains(node);
        let staying = serving.into_iter().filter(stays).collect();
        in_need(self.metadata.state().placement(), me, &staying)
    }
}

/// Shards of `me` that had a majority with it and have none among those that stay.
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
    fn shards_that_need_every_owner_hold_up_nothing() {
        let table = table(&[(&[1], &[1]), (&[1, 2], &[1, 2])]);
        assert_eq!(in_need(&table, NodeId(1), &staying(&[])), 0);
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
