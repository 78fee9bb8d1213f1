//! Movement under seeds: members join, drain, die and lose disks while shards are written to, and reports
//! and proposals arrive late, twice, out of order or never.
//!
//! The replicas here are as simple as the rules allow (a set of items each, one exchange that brings all
//! of a peer's items), so that what is tested is the leader's decisions. Two things are checked whenever a
//! change finishes: every item that was acknowledged is at a majority of the new owners, and the metadata
//! plane accepted no step that is not one. At the end, when everybody is up and reachable, all
//! movement must come to rest with a balanced table and drained members empty.

use super::*;
use crate::{ReplicaGroup, Trust};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use trefoil_model::{Configuration, ShardSet};

const SHARDS: usize = 4;
const NODES_MAX: u64 = 6;
const STEPS: usize = 700;

/// One shard's data on one node.
#[derive(Clone, Debug, Default)]
struct Replica {
    number: ConfigurationNumber,
    items: BTreeSet<u32>,
    trust: Option<Trust>,
    caught_up_with: BTreeSet<NodeId>,
}

/// One acknowledged or open write.
struct Write {
    shard: usize,
    configuration: Configuration,
    holders: BTreeSet<NodeId>,
    acknowledged: bool,
}

struct World {
    random: StdRng,
    now: Duration,
    table: PlacementTable,
    /// Earlier rows of each shard: coordinators and owners may be behind.
    history: Vec<Vec<Configuration>>,
    members: Vec<MemberView>,
    replicas: BTreeMap<(NodeId, usize), Replica>,
    writes: Vec<Write>,
    mail: Vec<(NodeId, ReplicaReport)>,
    reports: BTreeMap<NodeId, ReplicaReport>,
    proposals: Vec<Step>,
    settings: MovementSettings,
    finished: usize,
    finding: Option<String>,
}

impl World {
    fn new(seed: u64, faults: MovementFaults) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let members: Vec<MemberView> = (1..=random.random_range(1..=4)).map(member).collect();
        let nodes: Vec<PlacementNode> = members.iter().map(|m| m.node.clone()).collect();
        let factor = crate::placement::replication_factor(nodes.len());
        let first = plan(&nodes, SHARDS as u16, None, ZoneMode::Spread, factor).unwrap();
        let number = ConfigurationNumber(1);
        let row = |owners: OwnerSet| Configuration {
            number,
            old: owners.clone(),
            new: owners,
        };
        let rows: Vec<Configuration> = first.into_iter().map(row).collect();
        let mut replicas = BTreeMap::new();
        for (shard, configuration) in rows.iter().enumerate() {
            for node in configuration.new.iter() {
                let born = Replica {
                    number,
                    trust: Some(Trust::Serving),
                    ..Replica::default()
                };
                replicas.insert((node, shard), born);
            }
        }
        let entry = |configuration: &Configuration| ShardEntry {
            configuration: configuration.clone(),
            owners: BTreeMap::new(),
        };
        Self {
            random,
            now: Duration::from_secs(10_000),
            table: PlacementTable {
                shards: rows.iter().map(entry).collect(),
            },
            history: rows.into_iter().map(|row| vec![row]).collect(),
            members,
            replicas,
            writes: Vec::new(),
            mail: Vec::new(),
            reports: BTreeMap::new(),
            proposals: Vec::new(),
            settings: MovementSettings {
                shards_moving_max: 3,
                faults,
                ..MovementSettings::default()
            },
            finished: 0,
            finding: None,
        }
    }

    fn pick_node(&mut self) -> NodeId {
        let index = self.random.random_range(0..self.members.len());
        self.members[index].node.id
    }

    fn is_up(&self, node: NodeId) -> bool {
        self.members
            .iter()
            .any(|m| m.node.id == node && m.dead_since.is_none())
    }

    /// A node follows a configuration: durably, at once.
    fn follow(&mut self, node: NodeId, shard: usize, configuration: &Configuration) {
        let replica = self.replicas.entry((node, shard)).or_default();
        if configuration.number <= replica.number {
            return;
        }
        replica.number = configuration.number;
        replica.caught_up_with.clear();
        if !configuration.has_owner(node) {
            // The leaving owner keeps its items: when it may drop them is not decided here. Should the
            // shard come back, it begins from nothing.
            *replica = Replica {
                number: configuration.number,
                ..Replica::default()
            };
        } else if replica.trust.is_none() {
            replica.trust = Some(Trust::Joining);
        }
    }

    fn owners_drop_only_when_confirmed(
        &self,
        node: NodeId,
        shard: usize,
        next: &Configuration,
    ) -> bool {
        let new = &self.table.shards[shard].configuration.new;
        let confirmed = |owner: NodeId| {
            self.replicas
                .get(&(owner, shard))
                .is_some_and(|r| r.number >= next.number)
        };
        next.has_owner(node) || new.iter().all(confirmed)
    }

    fn learn(&mut self) {
        let (node, shard) = (self.pick_node(), self.random.random_range(0..SHARDS));
        let latest = self.history[shard].len() - 1;
        let known = self
            .random
            .random_range(0..=latest)
            .max(latest.saturating_sub(1));
        let row = self.history[shard][known].clone();
        if self.is_up(node) && self.owners_drop_only_when_confirmed(node, shard, &row) {
            self.follow(node, shard, &row);
        }
    }

    /// `a` catches up with `b` under one number.
    fn exchange(&mut self) {
        let (a, b, shard) = (
            self.pick_node(),
            self.pick_node(),
            self.random.random_range(0..SHARDS),
        );
        let Some(asker) = self.replicas.get(&(a, shard)).cloned() else {
            return;
        };
        let row = |number| {
            self.history[shard]
                .iter()
                .find(|row| row.number == number)
                .cloned()
        };
        let Some(configuration) = row(asker.number) else {
            return;
        };
        let both_own = configuration.has_owner(a) && configuration.has_owner(b);
        if a == b || !self.is_up(a) || !self.is_up(b) || !both_own {
            return;
        }
        self.follow(b, shard, &configuration);
        let Some(source) = self.replicas.get(&(b, shard)).cloned() else {
            return;
        };
        if source.number != asker.number {
            return;
        }
        let Some(asker) = self.replicas.get_mut(&(a, shard)) else {
            return;
        };
        asker.items.extend(&source.items);
        if source.trust == Some(Trust::Serving) {
            asker.caught_up_with.insert(b);
        }
        let caught = |set: &OwnerSet| set.count_in(asker.caught_up_with.iter().copied());
        let meets = |set: &OwnerSet| !set.contains(a) || caught(set) >= set.meets_every_majority();
        let refilled = match asker.trust {
            Some(Trust::Amnesiac) => meets(&configuration.old) && meets(&configuration.new),
            Some(Trust::Joining) => caught(&configuration.old) >= configuration.old.majority(),
            _ => false,
        };
        if refilled {
            asker.trust = Some(Trust::Serving);
        }
    }

    fn write(&mut self) {
        let shard = self.random.random_range(0..SHARDS);
        let known = self.random.random_range(0..self.history[shard].len());
        let configuration = self.history[shard][known].clone();
        self.writes.push(Write {
            shard,
            configuration,
            holders: BTreeSet::new(),
            acknowledged: false,
        });
    }

    fn push(&mut self) {
        let node = self.pick_node();
        if self.writes.is_empty() || !self.is_up(node) {
            return;
        }
        let item = self
            .random
            .random_range(self.writes.len().saturating_sub(6)..self.writes.len());
        let (shard, configuration) = (
            self.writes[item].shard,
            self.writes[item].configuration.clone(),
        );
        let number = self
            .replicas
            .get(&(node, shard))
            .map_or(ConfigurationNumber(0), |r| r.number);
        if !configuration.has_owner(node) || number > configuration.number {
            return;
        }
        self.follow(node, shard, &configuration);
        if let Some(replica) = self.replicas.get_mut(&(node, shard)) {
            replica.items.insert(item as u32);
        }
        let write = &mut self.writes[item];
        write.holders.insert(node);
        let majority =
            |set: &OwnerSet| set.count_in(write.holders.iter().copied()) >= set.majority();
        write.acknowledged |= majority(&configuration.old) && majority(&configuration.new);
    }

    fn report(&mut self) {
        let node = self.pick_node();
        if !self.is_up(node) {
            return;
        }
        let group = |(key, replica): (&(NodeId, usize), &Replica)| {
            let trust = replica.trust.filter(|_| key.0 == node)?;
            Some(ReplicaGroup {
                shards: std::iter::once(ShardId(key.1 as u16)).collect::<ShardSet>(),
                number: replica.number,
                trust,
                whole: true,
                caught_up_with: replica.caught_up_with.iter().copied().collect(),
            })
        };
        let groups = self.replicas.iter().filter_map(group).collect();
        self.mail.push((node, ReplicaReport { groups }));
        if self.mail.len() > 12 {
            self.mail.remove(0);
        }
    }

    /// Delivers a report out of order; it may come again.
    fn deliver(&mut self) {
        if !self.mail.is_empty() {
            let index = self.random.random_range(0..self.mail.len());
            let (node, report) = self.mail[index].clone();
            if self.random.random_bool(0.6) {
                self.mail.remove(index);
            }
            self.reports.insert(node, report);
        }
    }

    fn decide(&mut self) {
        let view = MovementView {
            now: self.now,
            table: &self.table,
            members: &self.members,
            reports: &self.reports,
        };
        let decided = decide(&view, &self.settings);
        self.proposals.extend(decided.steps);
        let drop_oldest = self.proposals.len().saturating_sub(8);
        self.proposals.drain(..drop_oldest);
    }

    /// The metadata plane takes a proposal, at some later time, perhaps again.
    fn apply(&mut self) {
        if self.proposals.is_empty() {
            return;
        }
        let index = self.random.random_range(0..self.proposals.len());
        let step = self.proposals[index].clone();
        if self.random.random_bool(0.7) {
            self.proposals.remove(index);
        }
        let present =
            |change: &ShardChange| &self.table.shards[usize::from(change.shard.0)].configuration;
        if step
            .changes
            .iter()
            .any(|change| present(change).number != change.expected)
        {
            return;
        }
        for change in &step.changes {
            let shard = usize::from(change.shard.0);
            let before = self.table.shards[shard].configuration.clone();
            let begins = !before.is_joint() && change.old == before.old && change.old != change.new;
            let ends = before.is_joint() && change.old == change.new;
            let to_either = change.new == before.new || change.new == before.old;
            if !(begins || ends && to_either) {
                self.finding = Some(format!(
                    "shard {shard}: {before:?} cannot become {change:?}"
                ));
            }
            let number = before.number.next();
            let row = Configuration {
                number,
                old: change.old.clone(),
                new: change.new.clone(),
            };
            self.table.shards[shard].configuration = row.clone();
            self.history[shard].push(row);
            if step.kind == StepKind::Finish {
                self.finished += 1;
                self.check(shard);
            }
        }
    }

    /// Every acknowledged item is at a majority of the owners that a change just gave the shard.
    fn check(&mut self, shard: usize) {
        let new = &self.table.shards[shard].configuration.new;
        for (item, write) in self.writes.iter().enumerate() {
            if write.shard != shard || !write.acknowledged {
                continue;
            }
            let has = |node: &NodeId| {
                let replica = self.replicas.get(&(*node, shard));
                replica.is_some_and(|replica| replica.items.contains(&(item as u32)))
            };
            if new.iter().filter(has).count() < new.majority() {
                self.finding = Some(format!(
                    "shard {shard}: item {item} is not at a majority of {new:?}"
                ));
            }
        }
    }

    fn lose_disk(&mut self) {
        let node = self.pick_node();
        let amnesiac = self
            .replicas
            .values()
            .any(|r| r.trust == Some(Trust::Amnesiac));
        let rows = || self.table.shards.iter().map(|entry| &entry.configuration);
        // One copy cannot survive the loss of its disk, and two losses at once are more than D1 promises.
        if amnesiac || rows().any(|row| row.old.len() < 2 || row.new.len() < 2) {
            return;
        }
        for shard in 0..SHARDS {
            let row = &mut self.table.shards[shard].configuration;
            let owned = row.has_owner(node);
            if owned {
                row.number = row.number.next();
                self.history[shard].push(row.clone());
            }
            let number = row.number;
            let trust = owned.then_some(Trust::Amnesiac);
            if owned || self.replicas.contains_key(&(node, shard)) {
                let empty = Replica {
                    number,
                    trust,
                    ..Replica::default()
                };
                self.replicas.insert((node, shard), empty);
            }
        }
    }

    fn change_members(&mut self) {
        let now = self.now;
        let count = self.members.len();
        let index = self.random.random_range(0..count);
        let all_up = self.members.iter().all(|m| m.dead_since.is_none());
        let draining = self.members.iter().any(|m| !m.node.active);
        match self.random.random_range(0..6) {
            0 if (count as u64) < NODES_MAX => self.members.push(member(count as u64 + 1)),
            1 if !draining && count > 2 => self.members[index].node.active = false,
            2 => self.members.iter_mut().for_each(|m| m.node.active = true),
            3 if all_up => self.members[index].dead_since = Some(now),
            4 => self.members.iter_mut().for_each(|m| m.dead_since = None),
            _ => self.lose_disk(),
        }
    }

    fn event(&mut self, quiet: bool) {
        self.now += Duration::from_secs(self.random.random_range(1..10));
        match self.random.random_range(0..100) {
            0..=1 if !quiet => self.change_members(),
            2..=5 if !quiet => self.write(),
            6..=25 if !quiet => self.push(),
            26..=45 => self.learn(),
            46..=75 => self.exchange(),
            76..=82 => self.report(),
            83..=90 => self.deliver(),
            91..=95 => self.decide(),
            _ => self.apply(),
        }
    }

    /// Runs the schedule; then everybody is up and movement must come to rest.
    fn run(mut self) -> Result<usize, String> {
        for _ in 0..STEPS {
            self.event(false);
            if let Some(finding) = self.finding {
                return Err(finding);
            }
        }
        self.members.iter_mut().for_each(|m| m.dead_since = None);
        for _ in 0..60_000 {
            self.event(true);
            if let Some(finding) = self.finding {
                return Err(finding);
            }
            if self.at_rest() {
                return Ok(self.finished);
            }
        }
        Err(format!("movement does not come to rest: {:?}", self.table))
    }

    fn at_rest(&self) -> bool {
        let active = || {
            self.members
                .iter()
                .filter(|m| m.node.active)
                .map(|m| m.node.id)
        };
        let rows = || self.table.shards.iter().map(|entry| &entry.configuration);
        let load = |node| rows().filter(|row| row.new.contains(node)).count();
        let loads: Vec<usize> = active().map(load).collect();
        let even = loads
            .iter()
            .max()
            .zip(loads.iter().min())
            .is_some_and(|(a, b)| a - b <= 1);
        let active: BTreeSet<NodeId> = active().collect();
        let factor = crate::placement::replication_factor(active.len());
        let settled = |row: &Configuration| {
            !row.is_joint()
                && row.new.len() == factor
                && row.new.iter().all(|n| active.contains(&n))
        };
        even && rows().all(settled)
    }
}

fn member(id: u64) -> MemberView {
    MemberView {
        node: PlacementNode {
            id: NodeId(id),
            zone: String::new(),
            weight: 1,
            active: true,
        },
        dead_since: None,
        has_space: Some(true),
    }
}

/// The first seed below `seeds` that finds something.
fn first_finding(seeds: u64, faults: MovementFaults) -> Option<(u64, String)> {
    (0..seeds).find_map(|seed| {
        World::new(seed, faults)
            .run()
            .err()
            .map(|what| (seed, what))
    })
}

#[test]
fn changes_of_owners_lose_nothing_and_come_to_rest() {
    let mut finished = 0;
    for seed in 0..300 {
        match World::new(seed, MovementFaults::default()).run() {
            Ok(changes) => finished += changes,
            Err(what) => panic!("seed {seed}: {what}"),
        }
    }
    assert!(finished > 300, "only {finished} changes finished");
}

#[test]
fn planted_faults_are_found() {
    let none = MovementFaults::default();
    let planted = [
        (
            "adoption",
            MovementFaults {
                adoption_unchecked: true,
                ..none
            },
        ),
        (
            "catch-up",
            MovementFaults {
                catch_up_unchecked: true,
                ..none
            },
        ),
        (
            "one old owner",
            MovementFaults {
                one_old_owner_is_enough: true,
                ..none
            },
        ),
    ];
    for (name, faults) in planted {
        assert!(
            first_finding(1000, faults).is_some(),
            "{name} was not found"
        );
    }
}
