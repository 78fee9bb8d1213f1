//! Following configurations: learn higher numbers, from the metadata plane or from peers, before anything
//! else is said.

use crate::{
    Action, Envelope, Message, Offset, Record, Replication, Trust, TrustRecord, replication::Step,
};
use std::{collections::BTreeMap, sync::Arc};
use trefoil_model::{
    ConfigurationNumber, DeletionVersion, LineageId, PlacementTable, ShardEntry, ShardSet, TenantId,
};

impl Replication {
    pub(crate) fn on_metadata(
        &mut self,
        step: &mut Step<'_>,
        table: &PlacementTable,
        deletions: Arc<BTreeMap<TenantId, DeletionVersion>>,
    ) {
        let risen: Vec<(TenantId, DeletionVersion)> = deletions
            .iter()
            .map(|(tenant, version)| (*tenant, *version))
            .filter(|(tenant, version)| *version > self.known_deletion(*tenant))
            .collect();
        if !risen.is_empty() {
            let mut known = (*self.deletions).clone();
            known.extend(risen.iter().copied());
            self.deletions = Arc::new(known);
            self.note_deletions(step, risen);
        }
        self.hear(table);
        let entries = self.rows.newer_in(table);
        self.follow(step, entries);
    }

    /// Makes known deletions durable before anything that presupposes them is stored.
    fn note_deletions(&mut self, step: &mut Step<'_>, risen: Vec<(TenantId, DeletionVersion)>) {
        let durable = &self.deletions_durable;
        let versions: Vec<_> = risen
            .into_iter()
            .filter(|(tenant, version)| durable.get(tenant).is_none_or(|known| version > known))
            .collect();
        if !versions.is_empty() {
            self.deletions_durable.extend(versions.iter().copied());
            self.append(step, Record::Deletions { versions });
        }
    }

    /// Whether every deletion is known that was known before the restart. Until then there is no checkpoint to
    /// flush with, and nothing is evaluated.
    #[must_use]
    pub fn deletions_are_known(&self) -> bool {
        let mut durable = self.deletions_durable.iter();
        durable.all(|(tenant, version)| self.known_deletion(*tenant) >= *version)
    }

    /// Follows those of the rows that are newer.
    pub(crate) fn follow(&mut self, step: &mut Step<'_>, entries: Vec<(ShardSet, ShardEntry)>) {
        let entries = self.rows.newer(entries);
        if entries.is_empty() {
            return;
        }
        let had = self.replicas.all();
        self.end_former_stays(step, &entries);
        if !self.faults.adoption_not_durable {
            let record = Record::Adopt {
                entries: entries.clone(),
            };
            self.append_gated(step, record);
        }
        self.adopt(&entries, self.journal.end);
        let changed = entries
            .iter()
            .fold(ShardSet::new(), |all, (shards, _)| all.union(shards));
        self.doubt_missing(step, &changed.difference(&had));
        step.out
            .push(Action::RoutingChanged(Arc::clone(self.rows.routing())));
        self.look_for_unheard();
        self.forget_partners(&changed);
        self.forget_outdated(&changed);
        self.abandon_copies(step, &changed);
        self.evaluate_trust(step, &changed);
        self.propose_amnesia(step);
        self.route_again(step, &changed);
        self.begin_waiting_barriers(step);
    }

    /// Ends the replicas of stays that are over, before another one begins. Who was no owner for a while was not asked
    /// whether it had applied the deletions of that while; they may be forgotten. A crash between this and the adoption
    /// leaves an owner without a replica, who serves nothing.
    fn end_former_stays(&mut self, step: &mut Step<'_>, entries: &[(ShardSet, ShardEntry)]) {
        if self.faults.former_stay_goes_on {
            return;
        }
        let mut former = ShardSet::new();
        for (shards, after) in entries {
            let mut unknown = shards.clone();
            let rows: Vec<_> = self.rows.within(shards).collect();
            for (both, before) in rows {
                unknown = unknown.difference(&both);
                former = former.union(&self.replicas.of_former_stay(&both, Some(before), after));
            }
            former = former.union(&self.replicas.of_former_stay(&unknown, None, after));
        }
        self.end_replicas(step, former);
    }

    /// The effect of an adoption, live and in replay.
    pub(crate) fn adopt(&mut self, entries: &[(ShardSet, ShardEntry)], at: Offset) {
        for (shards, after) in entries {
            let mut by_row: Vec<(ShardSet, Option<ShardEntry>)> = self
                .rows
                .within(shards)
                .map(|(both, entry)| (both, Some(entry.clone())))
                .collect();
            let known = by_row
                .iter()
                .fold(ShardSet::new(), |all, (both, _)| all.union(both));
            let unknown = shards.difference(&known);
            if !unknown.is_empty() {
                by_row.push((unknown, None));
            }
            for (both, before) in by_row {
                self.replicas.follow(&both, before.as_ref(), after, at);
                self.drop_unshared_positions(&both, before.as_ref(), after);
            }
        }
        self.rows.replace(entries);
    }

    /// A shard that two nodes did not share before has no position between them.
    fn drop_unshared_positions(
        &mut self,
        shards: &ShardSet,
        before: Option<&ShardEntry>,
        after: &ShardEntry,
    ) {
        if self.faults.position_per_peer || self.faults.drop_keeps_positions {
            return;
        }
        let me = self.me.node;
        let number_before =
            before.map_or(ConfigurationNumber(0), |entry| entry.configuration.number);
        let peers: Vec<_> = self.positions.peers().map(|(peer, _)| peer).collect();
        for peer in peers {
            let shared = |entry: &ShardEntry| {
                entry.configuration.has_owner(me) && entry.configuration.has_owner(peer)
            };
            let stayed = before.is_some_and(shared) && shared(after);
            let same_stay = after.owners.get(&peer).is_some_and(|record| {
                let lineage_before = before
                    .and_then(|entry| entry.owners.get(&peer))
                    .map(|record| record.lineage);
                record.counts_from <= number_before || lineage_before != Some(record.lineage)
            });
            if !(stayed && same_stay) {
                self.positions.drop_peer(peer, shards);
            }
        }
    }

    /// A replica that the row takes for an old one of this lineage, but of which nothing is here, was lost.
    fn doubt_missing(&mut self, step: &mut Step<'_>, fresh: &ShardSet) {
        let amnesiac = self.replicas.with_trust(Trust::Amnesiac);
        let unrecorded = self.replicas.unrecorded(&self.rows);
        let doubtful = fresh.intersection(&amnesiac).difference(&unrecorded);
        if !doubtful.is_empty() {
            let lineage = self.fresh_lineage();
            self.forget(step, &doubtful, lineage);
        }
    }

    /// A lineage that was never used: this run's id, changed by a running number.
    pub(crate) fn fresh_lineage(&mut self) -> LineageId {
        LineageId(self.me.incarnation.0 ^ u128::from(self.fresh_id()))
    }

    /// These replicas may lack anything.
    pub(crate) fn forget(&mut self, step: &mut Step<'_>, shards: &ShardSet, lineage: LineageId) {
        let record = TrustRecord::Forget {
            shards: shards.clone(),
            lineage,
        };
        self.append_gated(step, Record::Trust(record.clone()));
        self.replicas.apply(&record, self.journal.end);
        self.held.forget(shards);
        self.positions.drop_shards(shards);
        self.abandon_barriers();
        self.forget_outdated(shards);
        self.abandon_copies(step, shards);
        step.out.push(Action::Alarm(crate::Alarm::Amnesia {
            shards: shards.clone(),
        }));
        self.propose_amnesia(step);
    }

    /// Sends the rows that are newer than a peer's.
    pub(crate) fn teach(
        &self,
        step: &mut Step<'_>,
        envelope: Envelope,
        numbers: &[(ShardSet, ConfigurationNumber)],
    ) {
        let numbers = numbers.iter().map(|(shards, number)| (shards, *number));
        let newer = self.rows.compare(numbers).higher_here;
        if !newer.is_empty() {
            let entries = self.rows.entries(&newer);
            self.reply(step, &envelope, Message::Configurations { entries });
        }
    }
}
