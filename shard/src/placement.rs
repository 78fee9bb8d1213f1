//! Placement: which nodes should own which shard. Planned by the leader, kept as data.
//!
//! [`plan`] is a pure function of its arguments. It runs on the leader only, and its *result* is
//! proposed to the metadata plane, so nodes of different versions never have to agree on how it
//! computes. It decides, in this order:
//!
//! 1. **Balance.** Every node owns its fair share by weight, rounded down or up. With equal weights
//!    (and, under [`ZoneMode::Strict`], zones that allow it) owners per node differ by at most one.
//! 2. **Zones.** No zone holds two owners of a shard while there are enough zones. `Strict` makes
//!    this a bound and bends the fair shares to it; `Spread` keeps the balance and comes as close as
//!    it can.
//! 3. **Least movement.** Among those tables, one with the fewest owners that the present table
//!    does not have.
//! 4. **Preference.** Among those, the one whose new owners stand first in the shard's order on the
//!    consistent-hash ring.
//!
//! The four are one minimum-cost flow (`flow`), so each is optimal and not just tried for. Inputs
//! are sorted first and nothing iterates over a hash map: equal arguments give equal tables. This
//! module holds no state, so a crash has nothing to lose here.

mod flow;
mod ring;
mod shares;
#[cfg(test)]
mod tests;

use flow::{Edge, Network};
use shares::Share;
use std::collections::BTreeMap;
use trefoil_model::{
    Configuration, ConfigurationNumber, LineageId, NodeId, OwnerRecord, OwnerSet, PlacementTable,
    ShardEntry, ShardId, Zone,
};

/// The most owners that a shard ever has outside a change.
pub const REPLICATION_FACTOR_MAX: usize = 3;

/// How many owners a shard has in a cluster of so many members (not live nodes): 1, 2, then 3.
#[must_use]
pub fn replication_factor(members: usize) -> usize {
    members.min(REPLICATION_FACTOR_MAX)
}

/// A node as the planner sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacementNode {
    /// The node; unique in a list of nodes.
    pub id: NodeId,
    /// Its failure zone. A node without one (the empty text) counts as a zone of its own.
    pub zone: Zone,
    /// Its share of the shards relative to the other nodes; 0 counts as 1.
    pub weight: u32,
    /// Whether it may own shards. A node that is being drained may not.
    pub active: bool,
}

/// How zones weigh against balance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ZoneMode {
    /// Never two owners of a shard in one zone while there are as many zones as owners, even if the
    /// nodes of a small zone then own more than others.
    Strict,
    /// Owners per node differ by at most one (by weight); zones as far as that allows.
    #[default]
    Spread,
}

/// A member at the birth of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founder {
    /// The node.
    pub node: PlacementNode,
    /// The lineage of its data directory.
    pub lineage: LineageId,
}

/// Plans the owners of every shard: element `i` is the target of shard `i`.
///
/// `shards` is a power of two. `current` is the present table, if any; a shard whose owners are
/// changing counts with the owners it will have. Every set has `replication_factor` owners, or as
/// many as there are active nodes if those are fewer. `None` if no node is active.
///
/// # Panics
///
/// If `shards` is not a power of two, two nodes have the same id, or `replication_factor` is 0 although
/// a node is active.
#[must_use]
pub fn plan(
    nodes: &[PlacementNode],
    shards: u16,
    current: Option<&PlacementTable>,
    mode: ZoneMode,
    replication_factor: usize,
) -> Option<Vec<OwnerSet>> {
    assert!(
        shards.is_power_of_two(),
        "the number of shards is a power of two"
    );
    let mut active: Vec<&PlacementNode> = nodes.iter().filter(|n| n.active).collect();
    active.sort_unstable_by_key(|n| n.id);
    assert!(
        active.windows(2).all(|w| w[0].id != w[1].id),
        "node ids are unique"
    );
    if active.is_empty() {
        return None;
    }
    assert!(replication_factor > 0, "a shard has at least one owner");
    let owners = replication_factor.min(active.len());
    Some(Problem::new(&active, shards, current, mode, owners).solve())
}

/// The first table of a cluster: configuration 1 everywhere, every owner Serving from birth.
///
/// `None` if no founder is active. Panics as [`plan`] does.
#[must_use]
pub fn initial_table(
    founders: &[Founder],
    shards: u16,
    mode: ZoneMode,
    replication_factor: usize,
) -> Option<PlacementTable> {
    let nodes: Vec<PlacementNode> = founders.iter().map(|f| f.node.clone()).collect();
    let lineages: BTreeMap<NodeId, LineageId> =
        founders.iter().map(|f| (f.node.id, f.lineage)).collect();
    let number = ConfigurationNumber(1);
    let entry = |owners: OwnerSet| ShardEntry {
        owners: owners
            .iter()
            .map(|node| {
                let lineage = lineages[&node];
                (
                    node,
                    OwnerRecord {
                        lineage,
                        counts_from: number,
                        born_serving: true,
                    },
                )
            })
            .collect(),
        configuration: Configuration {
            number,
            old: owners.clone(),
            new: owners,
        },
    };
    let target = plan(&nodes, shards, None, mode, replication_factor)?;
    Some(PlacementTable {
        shards: target.into_iter().map(entry).collect(),
    })
}

/// Index of an active node in ascending order of id.
type NodeIndex = usize;

/// One planning problem, and the numbering of its network's vertices.
///
/// ```text
/// source --owners--> shard s --zone_bound--> (s, zone z) --1--> node n --share--> sink
/// ```
///
/// A unit of flow is one owner. The first `zone_bound` owners in a zone are free, more cost (or are
/// impossible); an owner that the present table has is free, another costs a movement and its place
/// in the preference order; owners up to a node's share rounded down are free, one more costs.
struct Problem {
    shards: usize,
    owners: usize,
    nodes: Vec<NodeId>,
    shares: Vec<Share>,
    /// The zone of each node; zones are numbered in ascending order of name, then of node.
    zone_of: Vec<usize>,
    zones: usize,
    /// Owners of one shard that one zone may have before it counts against the table.
    zone_bound: usize,
    mode: ZoneMode,
    /// Per shard: the active nodes that own it in the present table, ascending.
    present: Vec<Vec<NodeIndex>>,
    /// Per shard and node: the node's place in the shard's preference order.
    rank: Vec<Vec<usize>>,
}

/// What the criteria cost; one unit of each outweighs everything that the later ones can add up to.
struct Costs {
    movement: i128,
    crowded_zone: i128,
    above_share: i128,
}

impl Problem {
    fn new(
        active: &[&PlacementNode],
        shards: u16,
        current: Option<&PlacementTable>,
        mode: ZoneMode,
        owners: usize,
    ) -> Self {
        let weights: Vec<u64> = active.iter().map(|n| u64::from(n.weight.max(1))).collect();
        let (zone_of, zones) = number_zones(active);
        let mut nodes_in_zone = vec![0; zones];
        for zone in &zone_of {
            nodes_in_zone[*zone] += 1;
        }
        let zone_bound = zone_bound(&nodes_in_zone, owners);
        let shards_wide = usize::from(shards);
        let total = (shards_wide * owners) as u64;
        let shares = match mode {
            ZoneMode::Spread => shares::by_weight(&weights, total, u64::from(shards)),
            ZoneMode::Strict => {
                let bounds: Vec<u64> = nodes_in_zone
                    .iter()
                    .map(|nodes| u64::from(shards) * zone_bound.min(*nodes) as u64)
                    .collect();
                shares::by_weight_in_zones(&weights, &zone_of, &bounds, total, u64::from(shards))
            }
        };
        let index: BTreeMap<NodeId, NodeIndex> = active
            .iter()
            .enumerate()
            .map(|(index, node)| (node.id, index))
            .collect();
        let present = (0..shards)
            .map(|shard| {
                let row = current.and_then(|table| table.get(ShardId(shard)));
                let owners = row.into_iter().flat_map(|row| row.configuration.new.iter());
                owners
                    .filter_map(|node| index.get(&node).copied())
                    .collect()
            })
            .collect();
        let rank = ring::ranks(active, shards);
        let nodes = active.iter().map(|n| n.id).collect();
        Self {
            shards: shards_wide,
            owners,
            nodes,
            shares,
            zone_of,
            zones,
            zone_bound,
            mode,
            present,
            rank,
        }
    }

    fn solve(&self) -> Vec<OwnerSet> {
        let (mut network, choices, within_share) = self.network();
        self.keep_present(&mut network, &choices, &within_share);
        let placed = network.saturate(self.source(), self.sink());
        assert!(
            placed == self.shards * self.owners,
            "fair shares always admit a table: see placement::shares"
        );
        let owners_of = |shard: usize| {
            let chosen = choices[shard].iter().enumerate();
            chosen
                .filter(|(_, edge)| network.flow(edge.node) > 0)
                .map(|(n, _)| self.nodes[n])
        };
        (0..self.shards)
            .map(|shard| owners_of(shard).collect())
            .collect()
    }

    fn costs(&self) -> Costs {
        let total = (self.shards * self.owners) as i128;
        let movement = total * self.nodes.len() as i128 + 1;
        let crowded_zone = movement * (total + 1);
        Costs {
            movement,
            crowded_zone,
            above_share: crowded_zone * (total + 1),
        }
    }

    /// The network without flow, the edges of every shard and node, and each node's free edge to the
    /// sink.
    fn network(&self) -> (Network, Vec<Vec<Choice>>, Vec<Edge>) {
        let costs = self.costs();
        let mut network = Network::new(self.sink() + 1);
        let mut choices = Vec::with_capacity(self.shards);
        for shard in 0..self.shards {
            let source = network.edge(self.source(), self.shard(shard), self.owners, 0);
            let mut into_zone = Vec::with_capacity(self.zones);
            for zone in 0..self.zones {
                let (from, to) = (self.shard(shard), self.shard_zone(shard, zone));
                into_zone.push(network.edge(from, to, self.zone_bound, 0));
                if self.mode == ZoneMode::Spread && self.zone_bound < self.owners {
                    let more = self.owners - self.zone_bound;
                    network.edge(from, to, more, costs.crowded_zone);
                }
            }
            let mut row = Vec::with_capacity(self.nodes.len());
            for (node, &zone) in self.zone_of.iter().enumerate() {
                let kept = self.present[shard].contains(&node);
                let cost = if kept {
                    0
                } else {
                    costs.movement + self.rank[shard][node] as i128
                };
                let edge = network.edge(self.shard_zone(shard, zone), self.node(node), 1, cost);
                row.push(Choice {
                    source,
                    zone: into_zone[zone],
                    node: edge,
                });
            }
            choices.push(row);
        }
        let mut within_share = Vec::with_capacity(self.nodes.len());
        for (node, share) in self.shares.iter().enumerate() {
            let (from, to) = (self.node(node), self.sink());
            within_share.push(network.edge(from, to, share.floor as usize, 0));
            let more = (share.ceiling - share.floor) as usize;
            network.edge(from, to, more, costs.above_share);
        }
        (network, choices, within_share)
    }

    /// Starts from the owners that cost nothing, so that the flow only has to find what moves. All
    /// of them lie on free edges, hence no cheaper flow of this size exists and the search may go on
    /// from here; what is kept too much is pushed aside by it.
    fn keep_present(&self, network: &mut Network, choices: &[Vec<Choice>], within_share: &[Edge]) {
        for (shard, present) in self.present.iter().enumerate() {
            for &node in present {
                let choice = &choices[shard][node];
                let path = [choice.source, choice.zone, choice.node, within_share[node]];
                if path.iter().all(|edge| network.room(*edge) > 0) {
                    path.into_iter().for_each(|edge| network.push(edge));
                }
            }
        }
    }

    fn source(&self) -> usize {
        0
    }

    fn shard(&self, shard: usize) -> usize {
        1 + shard
    }

    fn shard_zone(&self, shard: usize, zone: usize) -> usize {
        1 + self.shards + shard * self.zones + zone
    }

    fn node(&self, node: NodeIndex) -> usize {
        1 + self.shards * (1 + self.zones) + node
    }

    fn sink(&self) -> usize {
        1 + self.shards * (1 + self.zones) + self.nodes.len()
    }
}

/// The three edges over which a shard reaches a node, besides the node's edge to the sink.
struct Choice {
    source: Edge,
    zone: Edge,
    node: Edge,
}

/// The zone number of every node, and how many zones there are.
fn number_zones(active: &[&PlacementNode]) -> (Vec<usize>, usize) {
    let key = |node: &PlacementNode| {
        let alone = node.zone.is_empty().then_some(node.id);
        (node.zone.clone(), alone)
    };
    let mut numbers: BTreeMap<_, usize> = active.iter().map(|node| (key(node), 0)).collect();
    for (number, slot) in numbers.values_mut().enumerate() {
        *slot = number;
    }
    (
        active.iter().map(|node| numbers[&key(node)]).collect(),
        numbers.len(),
    )
}

/// The smallest number of owners per zone with which a shard finds all its owners: 1 where there are
/// as many zones as owners.
fn zone_bound(nodes_in_zone: &[usize], owners: usize) -> usize {
    let reach = |bound: usize| {
        nodes_in_zone
            .iter()
            .map(|nodes| bound.min(*nodes))
            .sum::<usize>()
    };
    (1..=owners)
        .find(|bound| reach(*bound) >= owners)
        .unwrap_or(owners)
}
