//! Losing trust and winning it back.
//!
//! A replica that may lack what it acknowledged has its loss recorded first (its shards get the next number),
//! then catches up with so many Serving owners that follow that number that it has met every majority of which it may
//! have been part. A new owner catches up with a majority of the old owners. The evidence of having caught up
//! is a finished barrier; it is void when the number changes.

use crate::{
    Action, Alarm, Proposal, Record, ReplicaGroup, ReplicaReport, Replication, ReplicationStatus,
    Trust, TrustRecord, quorum, replication::Step,
};
use std::collections::BTreeMap;
use trefoil_model::{Configuration, LineageId, NodeId, OwnerSet, ShardSet, TimeRange};

impl Replication {
    /// Looks whether replicas of these shards have caught up with enough owners.
    pub(crate) fn evaluate_trust(&mut self, step: &mut Step<'_>, shards: &ShardSet) {
        let unrecorded = self.replicas.unrecorded(&self.rows);
        let filling = self
            .replicas
            .with_trust(Trust::Amnesiac)
            .union(&self.replicas.with_trust(Trust::Joining))
            .union(&self.replicas.damaged(None));
        let waiting = filling.intersection(shards).difference(&unrecorded);
        let rows: Vec<(ShardSet, Configuration)> = self
            .rows
            .within(&waiting)
            .map(|(both, entry)| (both, entry.configuration.clone()))
            .filter(|(_, configuration)| configuration.has_owner(self.me.node))
            .collect();
        for (both, configuration) in rows {
            self.refill_amnesiacs(step, &both, &configuration);
            self.admit_joining(step, &both, &configuration);
            self.repair_damage(step, &both, &configuration);
        }
    }

    /// How many others meet every majority; a sole owner has nobody to ask.
    fn others_needed(&self) -> impl Fn(&OwnerSet) -> usize + use<> {
        let one = self.faults.refill_from_one;
        move |owners: &OwnerSet| match owners.len() {
            1 => 0,
            _ if one => 1,
            _ => owners.meets_every_majority(),
        }
    }

    fn refill_amnesiacs(
        &mut self,
        step: &mut Step<'_>,
        shards: &ShardSet,
        configuration: &Configuration,
    ) {
        if is_newcomer(self.me.node, configuration) {
            return;
        }
        let amnesiac = self
            .replicas
            .with_trust(Trust::Amnesiac)
            .intersection(shards);
        let caught = &self.replicas.caught;
        let need = self.others_needed();
        let full = self
            .replicas
            .met_every_majority(configuration, &amnesiac, caught, need);
        self.set_serving(step, full, self.is_sole_owner(configuration));
    }

    /// Whether nobody else has what this node may have lost.
    fn is_sole_owner(&self, configuration: &Configuration) -> bool {
        [&configuration.old, &configuration.new]
            .iter()
            .any(|owners| owners.len() == 1 && owners.contains(self.me.node))
    }

    fn admit_joining(
        &mut self,
        step: &mut Step<'_>,
        shards: &ShardSet,
        configuration: &Configuration,
    ) {
        if !is_newcomer(self.me.node, configuration) {
            return;
        }
        // Whatever was acknowledged during the change is at a majority of the old owners too, so this holds for
        // a newcomer that lost what it had already got as well, once its loss is recorded.
        let old = &configuration.old;
        let joining = self.replicas.with_trust(Trust::Joining);
        let amnesiac = self.replicas.with_trust(Trust::Amnesiac);
        let joining = joining.union(&amnesiac).intersection(shards);
        let caught = self.replicas.caught.iter().map(|(node, set)| (*node, set));
        let need = match self.faults.join_from_one {
            true => 1,
            false => old.majority(),
        };
        let full = quorum::owners_with(need, &joining, old, caught);
        self.set_serving(step, full, false);
    }

    fn set_serving(&mut self, step: &mut Step<'_>, shards: ShardSet, gap: bool) {
        if shards.is_empty() {
            return;
        }
        if gap {
            let shards = shards.clone();
            step.out.push(Action::Alarm(Alarm::Gap { shards }));
        }
        let trust = Trust::Serving;
        self.change_trust(step, TrustRecord::Set { shards, trust, gap });
    }

    fn change_trust(&mut self, step: &mut Step<'_>, record: TrustRecord) {
        self.append_gated(step, Record::Trust(record.clone()));
        self.replicas.apply(&record, self.journal.end);
    }

    fn repair_damage(
        &mut self,
        step: &mut Step<'_>,
        shards: &ShardSet,
        configuration: &Configuration,
    ) {
        let mut repaired = Vec::new();
        for damage in &self.replicas.damages {
            let lost = damage.shards.intersection(shards);
            let met: BTreeMap<NodeId, ShardSet> = damage
                .copied
                .iter()
                .filter_map(|(node, copied)| {
                    let caught = self.replicas.caught.get(node)?;
                    Some((*node, copied.intersection(caught)))
                })
                .collect();
            let need = self.others_needed();
            let full = self
                .replicas
                .met_every_majority(configuration, &lost, &met, need);
            if !full.is_empty() {
                repaired.push((full, damage.range));
            }
        }
        let gap = self.is_sole_owner(configuration);
        for (shards, range) in repaired {
            if gap {
                let serving = self.replicas.with_trust(Trust::Serving);
                self.set_serving(step, serving.intersection(&shards), true);
            }
            let record = TrustRecord::Repaired {
                shards: shards.clone(),
                range,
            };
            self.change_trust(step, record);
            self.repairs.push_back((self.journal.end, shards, range));
        }
    }

    /// Tells the driver of repairs that are durable.
    pub(crate) fn say_repaired(&mut self, step: &mut Step<'_>) {
        let durable = self.journal.durable;
        while let Some((_, shards, range)) = self.repairs.pop_front_if(|(at, ..)| *at <= durable) {
            step.out.push(Action::Repaired { shards, range });
        }
    }

    /// The shards that lack something in the range since a block of theirs was unreadable. A shard is named
    /// until its repair is durable, and no longer if it has left.
    #[must_use]
    pub fn damaged(&self, range: TimeRange) -> ShardSet {
        let repairs = self.repairs.iter();
        let repairs = repairs.filter(|(_, _, repaired)| repaired.overlaps(&range));
        let damaged = self.replicas.damaged(Some(range));
        repairs.fold(damaged, |all, (_, shards, _)| all.union(shards))
    }

    /// A block was lost: the replicas lack a range of time, and what they hold by number is not all here.
    pub(crate) fn on_damaged(&mut self, step: &mut Step<'_>, shards: &ShardSet, range: TimeRange) {
        let gone = shards.difference(&self.replicas.all());
        if !gone.is_empty() {
            // Nothing of them is wanted here.
            let shards = gone.clone();
            step.out.push(Action::Repaired { shards, range });
        }
        let shards = shards.difference(&gone);
        if shards.is_empty() || self.faults.damage_ignored {
            return;
        }
        let lineage = self.fresh_lineage();
        self.held.forget(&shards);
        self.abandon_barriers();
        self.change_trust(
            step,
            TrustRecord::Damage {
                shards,
                range,
                lineage,
            },
        );
        self.propose_amnesia(step);
        self.answer_queries(step);
    }

    /// Whether a peer has noted a position in this node's journal that the journal never had.
    pub(crate) fn is_restored_copy(&self, seen: Option<crate::Position>) -> bool {
        let unknown = |seen| self.journal.judge(seen) == crate::journal_state::Judgement::Unknown;
        !self.faults.restored_copy_ignored && seen.is_some_and(unknown)
    }

    /// This data directory is older than it once was: everything in it may be incomplete.
    pub(crate) fn on_restored_copy(&mut self, step: &mut Step<'_>, peer: NodeId) {
        step.out.push(Action::Alarm(Alarm::RestoredCopy { peer }));
        let lineage = self.fresh_lineage();
        self.begin_lineage(step, lineage);
        let shards = self.replicas.all();
        self.forget(step, &shards, lineage);
        self.answer_queries(step);
    }

    /// The data directory begins another history.
    pub(crate) fn begin_lineage(&mut self, step: &mut Step<'_>, lineage: LineageId) {
        let incarnation = self.me.incarnation;
        let record = Record::Start {
            incarnation,
            lineage,
        };
        self.append_gated(step, record);
        self.replicas.lineage = lineage;
    }

    /// Has every loss recorded that is not.
    pub(crate) fn propose_amnesia(&mut self, step: &mut Step<'_>) {
        let unrecorded = self.replicas.unrecorded(&self.rows);
        if unrecorded.is_empty() {
            return;
        }
        let mut by_lineage: BTreeMap<LineageId, ShardSet> = BTreeMap::new();
        for shard in unrecorded.iter() {
            let lineage = self.replicas.lineage_of(shard);
            by_lineage.entry(lineage).or_default().insert(shard);
        }
        for (lineage, shards) in by_lineage {
            let of_directory = lineage == self.replicas.lineage;
            let shards = Some(shards).filter(|_| !of_directory);
            let proposal = Proposal::RecordAmnesia { shards, lineage };
            step.out.push(Action::Propose(proposal));
        }
    }

    /// Tells the leader what the replicas have reached, once all of it is durable.
    pub(crate) fn report(&mut self, step: &mut Step<'_>) {
        if self.gate_is_open() {
            let groups = self.report_groups();
            step.out.push(Action::Report(ReplicaReport { groups }));
        }
    }

    fn report_groups(&self) -> Vec<ReplicaGroup> {
        let unrecorded = self.replicas.unrecorded(&self.rows);
        let owned = self.rows.owned_by(self.me.node).difference(&unrecorded);
        let damaged = self.replicas.damaged(None);
        let mut groups: Vec<ReplicaGroup> = Vec::new();
        for (shards, number) in self.rows.numbers(&owned) {
            for (part, replica) in self.replicas.replicas.within(&shards) {
                let Some(replica) = replica else {
                    continue;
                };
                for (piece, whole) in split(&part, &damaged) {
                    for (shards, caught_up_with) in self.by_caught(piece) {
                        groups.push(ReplicaGroup {
                            shards,
                            number,
                            trust: replica.trust,
                            whole: !whole,
                            caught_up_with,
                        });
                    }
                }
            }
        }
        groups.sort_by_key(|group| group.number);
        groups
    }

    /// Splits shards by the owners with which they have caught up.
    fn by_caught(&self, shards: ShardSet) -> Vec<(ShardSet, Vec<NodeId>)> {
        let mut parts = vec![(shards, Vec::new())];
        for (node, caught) in &self.replicas.caught {
            let mut next = Vec::with_capacity(parts.len());
            for (part, nodes) in parts {
                for (piece, inside) in split(&part, caught) {
                    let mut nodes = nodes.clone();
                    if inside {
                        nodes.push(*node);
                    }
                    next.push((piece, nodes));
                }
            }
            parts = next;
        }
        parts
    }

    /// Shards whose replica here lacks something that is lost for good.
    #[must_use]
    pub fn gaps(&self) -> ShardSet {
        self.replicas.gaps()
    }

    /// How far this node's replicas are, for people.
    #[must_use]
    pub fn status(&self) -> ReplicationStatus {
        let serving = self.serving();
        let owned = self.rows.owned_by(self.me.node);
        let damaged = self.replicas.damaged(None).intersection(&serving);
        let filling = owned.difference(&serving);
        let peers = self.peers.iter();
        ReplicationStatus {
            filling: filling.clone(),
            copied: self.copied(&filling),
            serving: serving.difference(&damaged),
            damaged,
            leaving: self.replicas.all().difference(&owned),
            lag_bytes: peers
                .map(|(node, peer)| (*node, peer.pair.lag_bytes))
                .collect(),
            compared: self
                .peers
                .iter()
                .map(|(node, peer)| (*node, peer.pair.compared.clone()))
                .collect(),
            misdirected: self.misdirected,
            open_writes: self.writes.open_count(),
            open_queries: self.queries.open_count(),
            journal_floor: self.journal.floor,
            journal_parcels: self.journal.parcels(),
            fetched_parcels: self.fetched,
            outdated: self.copies.outdated_met,
            copies: self.copies.completed,
        }
    }
}

/// Whether the node becomes an owner by a change that is under way.
fn is_newcomer(node: NodeId, configuration: &Configuration) -> bool {
    configuration.is_joint() && !configuration.old.contains(node)
}

/// The part of `shards` inside `of`, and the part outside; empty ones are left out.
fn split(shards: &ShardSet, of: &ShardSet) -> impl Iterator<Item = (ShardSet, bool)> + use<> {
    let parts = [
        (shards.intersection(of), true),
        (shards.difference(of), false),
    ];
    parts.into_iter().filter(|(part, _)| !part.is_empty())
}
