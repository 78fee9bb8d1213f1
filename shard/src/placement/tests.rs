//! Properties of plans, over many clusters: balance, zones, least movement, stability.

use super::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const SHARDS: u16 = 256;

fn node(id: u64, zone: &str) -> PlacementNode {
    PlacementNode {
        id: NodeId(id),
        zone: zone.to_owned(),
        weight: 1,
        active: true,
    }
}

fn nodes(count: u64) -> Vec<PlacementNode> {
    (1..=count).map(|id| node(id, "")).collect()
}

/// A table with these owners.
fn table(target: &[OwnerSet]) -> PlacementTable {
    let shards = target.iter().map(|owners| ShardEntry {
        configuration: Configuration {
            number: ConfigurationNumber(1),
            old: owners.clone(),
            new: owners.clone(),
        },
        owners: BTreeMap::new(),
    });
    PlacementTable {
        shards: shards.collect(),
    }
}

fn loads(target: &[OwnerSet]) -> BTreeMap<NodeId, usize> {
    let mut loads = BTreeMap::new();
    for node in target.iter().flat_map(OwnerSet::iter) {
        *loads.entry(node).or_default() += 1;
    }
    loads
}

/// Owners in `after` that `before` does not have.
fn moved(before: &[OwnerSet], after: &[OwnerSet]) -> usize {
    let new_owners = |(old, new): (&OwnerSet, &OwnerSet)| new.len() - new.count_in(old.iter());
    before.iter().zip(after).map(new_owners).sum()
}

fn crowded(nodes: &[PlacementNode], target: &[OwnerSet]) -> usize {
    let zone = |id: NodeId| nodes.iter().find(|n| n.id == id).map(|n| n.zone.clone());
    let surplus = |owners: &OwnerSet| {
        let mut zones: Vec<_> = owners.iter().map(zone).collect();
        zones.sort();
        zones.dedup();
        owners.len() - zones.len()
    };
    target.iter().map(surplus).sum()
}

fn spread(target: &[OwnerSet], members: usize) -> usize {
    let loads = loads(target);
    let least = if loads.len() < members {
        0
    } else {
        loads.values().copied().min().unwrap_or(0)
    };
    loads.values().copied().max().unwrap_or(0) - least
}

fn planned(nodes: &[PlacementNode], before: Option<&[OwnerSet]>, mode: ZoneMode) -> Vec<OwnerSet> {
    let current = before.map(table);
    let active = nodes.iter().filter(|n| n.active).count();
    plan(
        nodes,
        SHARDS,
        current.as_ref(),
        mode,
        replication_factor(active),
    )
    .unwrap()
}

#[test]
fn growing_one_by_one_stays_balanced_and_moves_the_least() {
    let mut before = planned(&nodes(3), None, ZoneMode::Spread);
    assert_eq!(
        loads(&before).values().copied().collect::<Vec<_>>(),
        vec![256; 3]
    );
    for count in 4..=12 {
        let after = planned(&nodes(count), Some(&before), ZoneMode::Spread);
        assert!(
            spread(&after, count as usize) <= 1,
            "{count} nodes: {:?}",
            loads(&after)
        );
        // Nothing moves but what the newcomer gets, and that is its fair share.
        let newcomer = loads(&after)[&NodeId(count)];
        assert_eq!(moved(&before, &after), newcomer, "{count} nodes");
        assert!(newcomer <= (768 / count as usize) + 1);
        before = after;
    }
}

#[test]
fn four_to_three_and_back_moves_a_quarter() {
    let three = planned(&nodes(3), None, ZoneMode::Spread);
    let four = planned(&nodes(4), Some(&three), ZoneMode::Spread);
    assert_eq!(moved(&three, &four), 192);
    let mut draining = nodes(4);
    draining[1].active = false;
    let drained = planned(&draining, Some(&four), ZoneMode::Spread);
    assert_eq!(moved(&four, &drained), 192);
    assert!(drained.iter().all(|owners| !owners.contains(NodeId(2))));
}

#[test]
fn nothing_changes_when_nothing_changed() {
    for mode in [ZoneMode::Strict, ZoneMode::Spread] {
        for count in 1..=9 {
            let zoned: Vec<_> = (1..=count)
                .map(|id| node(id, ["a", "b", "c"][id as usize % 3]))
                .collect();
            for nodes in [nodes(count), zoned] {
                let before = planned(&nodes, None, mode);
                assert_eq!(
                    planned(&nodes, Some(&before), mode),
                    before,
                    "{count} {mode:?}"
                );
            }
        }
    }
}

#[test]
fn order_of_nodes_does_not_matter() {
    let mut shuffled = nodes(7);
    shuffled.reverse();
    shuffled.swap(1, 4);
    let before = planned(&nodes(6), None, ZoneMode::Spread);
    let expected = planned(&nodes(7), Some(&before), ZoneMode::Spread);
    assert_eq!(
        planned(&shuffled, Some(&before), ZoneMode::Spread),
        expected
    );
}

#[test]
fn zones_hold_one_owner_each() {
    let nodes: Vec<_> = (1..=9)
        .map(|id| node(id, ["a", "b", "c"][id as usize % 3]))
        .collect();
    for mode in [ZoneMode::Strict, ZoneMode::Spread] {
        let before = planned(&nodes[..6], None, mode);
        let after = planned(&nodes, Some(&before), mode);
        assert_eq!(crowded(&nodes, &before) + crowded(&nodes, &after), 0);
        assert!(spread(&after, 9) <= 1);
        assert_eq!(moved(&before, &after), 255, "6 -> 9 nodes: a third moves");
    }
}

#[test]
fn uneven_zones_bend_either_the_zones_or_the_balance() {
    let nodes = [node(1, "a"), node(2, "b"), node(3, "c"), node(4, "c")];
    let strict = planned(&nodes, None, ZoneMode::Strict);
    assert_eq!(crowded(&nodes, &strict), 0);
    assert_eq!(
        loads(&strict).values().copied().collect::<Vec<_>>(),
        [256, 256, 128, 128]
    );
    let spread_table = planned(&nodes, None, ZoneMode::Spread);
    assert!(spread(&spread_table, 4) <= 1);
    // Nodes 3 and 4 have 384 owners together for 256 shards: 128 shards must have both.
    assert_eq!(crowded(&nodes, &spread_table), 128);
}

#[test]
fn two_zones_get_two_and_one() {
    let nodes = [node(1, "a"), node(2, "a"), node(3, "b"), node(4, "b")];
    for mode in [ZoneMode::Strict, ZoneMode::Spread] {
        let target = planned(&nodes, None, mode);
        assert_eq!(crowded(&nodes, &target), 256, "every shard has both zones");
        assert!(spread(&target, 4) <= 1);
    }
}

#[test]
fn weights_are_shares() {
    let mut nodes = nodes(6);
    nodes[0].weight = 2;
    let loads = loads(&planned(&nodes, None, ZoneMode::Spread));
    assert!((219..=220).contains(&loads[&NodeId(1)]), "{loads:?}");
    assert!((109..=110).contains(&loads[&NodeId(2)]), "{loads:?}");
}

#[test]
fn replication_factor_follows_the_members() {
    let one = planned(&nodes(1), None, ZoneMode::Spread);
    assert!(one.iter().all(|owners| owners.as_slice() == [NodeId(1)]));
    let two = planned(&nodes(2), Some(&one), ZoneMode::Spread);
    assert_eq!((moved(&one, &two), two[9].len()), (256, 2));
    let three = planned(&nodes(3), Some(&two), ZoneMode::Spread);
    assert_eq!((moved(&two, &three), three[9].len()), (256, 3));
    assert_eq!(plan(&[], SHARDS, None, ZoneMode::Spread, 3), None);
}

/// Random clusters change at random; every plan keeps its promises.
#[test]
fn random_histories() {
    for seed in 0..16 {
        let mut random = StdRng::seed_from_u64(seed);
        let mode = if random.random_bool(0.5) {
            ZoneMode::Strict
        } else {
            ZoneMode::Spread
        };
        let zones = random.random_range(1..=4u64);
        let mut nodes: Vec<PlacementNode> = Vec::new();
        let mut before: Option<Vec<OwnerSet>> = None;
        for step in 0..12u64 {
            let leaves = nodes.len() > 3 && random.random_bool(0.4);
            if leaves {
                nodes.swap_remove(random.random_range(0..nodes.len()));
            } else {
                let zone = format!("zone-{}", random.random_range(0..zones));
                nodes.push(node(random.random(), &zone));
            }
            let after = planned(&nodes, before.as_deref(), mode);
            let what = format!("seed {seed} step {step} {mode:?}");
            let factor = replication_factor(nodes.len());
            assert!(after.iter().all(|owners| owners.len() == factor), "{what}");
            if mode == ZoneMode::Spread {
                assert!(
                    spread(&after, nodes.len()) <= 1,
                    "{what}: {:?}",
                    loads(&after)
                );
            } else {
                let mut names: Vec<_> = nodes.iter().map(|n| &n.zone).collect();
                names.sort();
                names.dedup();
                let surplus = factor.saturating_sub(names.len()) * usize::from(SHARDS);
                assert_eq!(crowded(&nodes, &after), surplus, "{what}");
            }
            assert_eq!(planned(&nodes, Some(&after), mode), after, "{what}: stable");
            before = Some(after);
        }
    }
}

#[test]
fn a_hundred_nodes_are_planned() {
    let before = planned(&nodes(100), None, ZoneMode::Spread);
    let after = planned(&nodes(101), Some(&before), ZoneMode::Spread);
    assert!(spread(&after, 101) <= 1);
    assert_eq!(moved(&before, &after), loads(&after)[&NodeId(101)]);
}

#[test]
fn the_first_table_is_born_serving() {
    let founder = |id| Founder {
        node: node(id, ""),
        lineage: LineageId(u128::from(id) + 100),
    };
    let founders = [3, 1, 2].map(founder);
    let table = initial_table(&founders, 4, ZoneMode::Spread, 3).unwrap();
    assert_eq!(table.len(), 4);
    for (_, entry) in table.iter() {
        assert_eq!(entry.configuration.number, ConfigurationNumber(1));
        assert!(!entry.configuration.is_joint());
        assert_eq!(entry.owners.len(), 3);
        for (node, record) in &entry.owners {
            assert_eq!(record.lineage, LineageId(u128::from(node.0) + 100));
            assert!(record.born_serving && record.counts_from == ConfigurationNumber(1));
        }
    }
}
