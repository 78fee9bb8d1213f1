//! When this owner may say that a deletion is applied to everything that it stores, so that the cluster can forget it.
//!
//! A deletion that all owners have confirmed is forgotten: nobody can erase an item by it any more. So nothing may be
//! left that is older: no block, no parcel in the journal that a peer could fetch or a restart replay, no view that is
//! being copied. And nothing older may come afterwards, by whatever way.
//!
//! ```text
//! learnt --grace, then a whole barrier with every peer--> closed: older items are not taken any more
//!                   --> what came before is trimmed from the journal, older views are copied
//!                   --> the driver finds no older block --> confirmed
//! ```
//! Closing waits for peers that are away: they have to confirm too, so nothing is forgotten the sooner without them, and
//! what they have is fetched as ever. What turns up at a peer after that, and is older, is copied with the peer's view.
//!
//! In memory only. A restart begins anew, with what the metadata plane says that this node has confirmed; until the
//! driver is sure that it knows that, it gives the core no message with items.

use crate::{Action, Offset, Replication, replication::Step};
use std::{collections::BTreeMap, time::Duration};
use trefoil_model::{
    ConfigurationNumber, DeletionVersion, NodeId, PlacementTable, ShardId, ShardSet, TenantId,
};

/// What this owner has confirmed, and what it is about to.
#[derive(Debug, Default)]
pub(crate) struct Forgetting {
    /// By tenant: items of lower versions are not taken.
    closed: BTreeMap<TenantId, DeletionVersion>,
    /// By tenant: confirmed up to this deletion, by the metadata plane's word.
    confirmed: BTreeMap<TenantId, DeletionVersion>,
    /// By tenant: what is to be confirmed next. A newer deletion waits until this one is.
    waiting: BTreeMap<TenantId, Waiting>,
    /// By shard, the highest number that the metadata plane itself has said.
    heard: Vec<ConfigurationNumber>,
    /// Shards in which this node's stay began with a number that it has only from peers.
    pub(crate) unheard: ShardSet,
    /// Whether any owner of the cluster has yet to confirm a deletion.
    pub(crate) pending: bool,
    /// Whether positions were taken that are not noted, because they pass no parcel of this owner's shards.
    pub(crate) positions_moved: bool,
    /// When such positions were noted last.
    positions_noted_at: Duration,
}

#[derive(Debug)]
struct Waiting {
    version: DeletionVersion,
    learnt_at: Duration,
    /// Set when the tenant is closed: exports with ids up to this one may give older items.
    exports: Option<u64>,
}

impl Replication {
    /// Whether items of this version are too old to be taken: they would stay for ever, though a deletion was meant
    /// for them.
    pub(crate) fn is_closed_for(&self, tenant: TenantId, version: DeletionVersion) -> bool {
        let closed = self.forgetting.closed.get(&tenant);
        closed.is_some_and(|closed| version < *closed) && !self.faults.closed_taken
    }

    /// Takes what this node has confirmed, and what is forgotten, by the metadata plane's word.
    pub(crate) fn on_confirmed(
        &mut self,
        step: &mut Step<'_>,
        confirmed: &BTreeMap<TenantId, DeletionVersion>,
    ) {
        let forgetting = &mut self.forgetting;
        for (tenant, version) in confirmed {
            for known in [&mut forgetting.closed, &mut forgetting.confirmed] {
                let known = known.entry(*tenant).or_default();
                *known = (*known).max(*version);
            }
            if forgetting
                .waiting
                .get(tenant)
                .is_some_and(|waiting| waiting.version <= *version)
            {
                forgetting.waiting.remove(tenant);
            }
        }
        self.trim_confirmed(step, confirmed);
    }

    /// A journal is trimmed by whole files, so a restart finds parcels again that this node has said to be gone.
    fn trim_confirmed(
        &mut self,
        step: &mut Step<'_>,
        confirmed: &BTreeMap<TenantId, DeletionVersion>,
    ) {
        let older = confirmed
            .iter()
            .filter_map(|(tenant, version)| self.journal.last_older(*tenant, *version));
        let Some(end) = older.max() else {
            return;
        };
        let pinned = self.exports.needs_behind().unwrap_or(end);
        let below = end.min(self.journal.flushed).min(pinned);
        if below > self.journal.floor {
            self.journal.trim(below);
            step.out.push(Action::Trim { below });
        }
    }

    /// Notes which rows the metadata plane itself has said.
    pub(crate) fn hear(&mut self, table: &PlacementTable) {
        for (shard, entry) in table.iter() {
            self.hear_number(shard, entry.configuration.number);
        }
        self.look_for_unheard();
    }

    fn hear_number(&mut self, shard: ShardId, number: ConfigurationNumber) {
        let heard = &mut self.forgetting.heard;
        let index = usize::from(shard.0);
        if heard.len() <= index {
            heard.resize(index + 1, ConfigurationNumber(0));
        }
        heard[index] = heard[index].max(number);
    }

    /// What was followed before a restart counts as heard: the driver gives no items before it knows all that was decided
    /// by then.
    pub(crate) fn hear_recovered(&mut self) {
        let all = self.rows.groups().iter();
        let all: Vec<(ShardSet, ConfigurationNumber)> = all
            .map(|group| (group.shards.clone(), group.entry.configuration.number))
            .collect();
        for (shards, number) in all {
            shards
                .iter()
                .for_each(|shard| self.hear_number(shard, number));
        }
        self.look_for_unheard();
    }

    /// Finds the shards in which nothing may be stored yet: deletions may have been forgotten before this node's stay
    /// began, because nobody waited for it, and it has not heard of them.
    pub(crate) fn look_for_unheard(&mut self) {
        let mut unheard = ShardSet::new();
        for group in self.rows.groups() {
            let Some(record) = group.entry.owners.get(&self.me.node) else {
                continue;
            };
            let heard = |shard: &ShardId| {
                let heard = self.forgetting.heard.get(usize::from(shard.0));
                heard.is_some_and(|heard| *heard >= record.counts_from)
            };
            unheard = unheard.union(&group.shards.iter().filter(|shard| !heard(shard)).collect());
        }
        if self.faults.unheard_owner_stores {
            unheard = ShardSet::new();
        }
        self.forgetting.unheard = unheard;
    }

    /// The shards of which a peer has parcels that are too old to be taken.
    pub(crate) fn outdated_at(&self, peer: NodeId) -> ShardSet {
        let outdated = self.copies.outdated.get(&peer);
        outdated
            .filter(|_| !self.faults.outdated_asked_again)
            .cloned()
            .unwrap_or_default()
    }

    /// Has these shards copied from a peer.
    pub(crate) fn note_outdated(&mut self, peer: NodeId, shards: &ShardSet) {
        if !shards.is_empty() {
            self.copies.outdated_met += 1;
            let outdated = self.copies.outdated.entry(peer).or_default();
            *outdated = outdated.union(shards);
        }
    }

    /// These shards follow new numbers, or nothing of them counts any more: barriers ask anew.
    pub(crate) fn forget_outdated(&mut self, changed: &ShardSet) {
        self.copies.outdated.retain(|_, shards| {
            *shards = shards.difference(changed);
            !shards.is_empty()
        });
    }

    /// Closes tenants for what is older than deletions that have been known for long enough.
    pub(crate) fn tick_forgetting(&mut self, step: &mut Step<'_>) {
        let forgetting = &mut self.forgetting;
        for (tenant, newest) in self.deletions.iter() {
            let confirmed = forgetting.confirmed.get(tenant).copied();
            if *newest > confirmed.unwrap_or_default() {
                forgetting.waiting.entry(*tenant).or_insert(Waiting {
                    version: *newest,
                    learnt_at: step.now,
                    exports: None,
                });
            }
        }
        let grace = self.settings.deletion_grace;
        let open = self.forgetting.waiting.iter();
        let open = open.filter(|(_, waiting)| waiting.exports.is_none());
        let due = open.filter(|(_, waiting)| {
            let since = waiting.learnt_at + grace;
            step.now >= since && self.has_all_since(since)
        });
        let due: Vec<TenantId> = due.map(|(tenant, _)| *tenant).collect();
        for tenant in due {
            self.close_for_older(tenant);
        }
        self.note_moved_positions(step.now);
    }

    /// While a deletion is pending, has positions noted that pass no parcel of this owner's shards, now and then: another
    /// owner may keep an older parcel of other shards for nothing else, and on data at rest no news comes.
    fn note_moved_positions(&mut self, now: Duration) {
        let forgetting = &mut self.forgetting;
        let due = forgetting.positions_noted_at + self.settings.positions_interval;
        let wanted = forgetting.pending && forgetting.positions_moved && now >= due;
        let is_kept_from =
            self.faults.positions_noted_at_closing || self.faults.positions_noted_with_news;
        if wanted && !is_kept_from {
            forgetting.positions_noted_at = now;
            self.positions_dirty = true;
        }
    }

    /// Whether all that the peers had at that time is here: nothing older is lacking but what has come to them since.
    fn has_all_since(&self, since: Duration) -> bool {
        if self.faults.closed_by_the_clock {
            return true;
        }
        let is_whole = self.serving() == self.rows.owned_by(self.me.node)
            && self.replicas.damages.is_empty()
            && !self.copies.is_running();
        let compared = |node: &NodeId| {
            let begun = self.peers.get(node).and_then(|peer| peer.pair.whole_since);
            begun.is_some_and(|begun| begun >= since)
        };
        is_whole && self.rows.peers_of(self.me.node).iter().all(compared)
    }

    fn close_for_older(&mut self, tenant: TenantId) {
        let forgetting = &mut self.forgetting;
        let Some(waiting) = forgetting.waiting.get_mut(&tenant) else {
            return;
        };
        let closed = forgetting.closed.entry(tenant).or_default();
        *closed = (*closed).max(waiting.version);
        waiting.exports = Some(self.last_id);
        // The peers keep their journals for this node up to where it has noted that it has them. Positions that pass no
        // parcel of its own shards are not noted otherwise, and at rest nothing else comes.
        self.positions_dirty |= !self.faults.positions_noted_with_news;
    }

    /// Tenants that are closed, with the deletions that are to be confirmed for them.
    fn closing(&self) -> impl Iterator<Item = (TenantId, DeletionVersion, u64)> {
        let waiting = self.forgetting.waiting.iter();
        waiting.filter_map(|(tenant, waiting)| Some((*tenant, waiting.version, waiting.exports?)))
    }

    /// The deletions that are applied to everything here but perhaps to blocks: all that is older has left the journal,
    /// no view with it is given to others, and none is taken. The driver looks at its blocks, and has the metadata plane
    /// note that this node confirms them.
    #[must_use]
    pub fn deletions_to_confirm(&self) -> Vec<(TenantId, DeletionVersion)> {
        let gone = self.closing().filter(|(tenant, version, exports)| {
            let in_journal = self.journal.last_older(*tenant, *version).is_some();
            !in_journal && !self.exports.has_up_to(*exports)
        });
        gone.map(|(tenant, version, _)| (tenant, version)).collect()
    }

    /// Whether a deletion cannot be confirmed before the journal is flushed, even if there is nothing in the head that
    /// is worth a flush.
    #[must_use]
    pub fn deletions_wait_for_flush(&self) -> bool {
        let flushed = self.journal.flushed;
        let older = |(tenant, version, _)| self.journal.last_older(tenant, version);
        self.closing()
            .filter_map(older)
            .any(|end: Offset| end > flushed)
    }
}
