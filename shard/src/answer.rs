//! The answering side of a barrier: what this node's journal has behind a peer's positions.
//!
//! Everything in an answer is durable. Numbers are compared first: nothing is said about shards of which the
//! two nodes follow different numbers.

use crate::{
    AskGroup, BarrierAnswer, BarrierAsk, Envelope, FetchedParcel, ListedParcel, Message, Offset,
    Position, ReadId, Replication, Span, Trust, journal_state::Judgement, replication::Step,
};
use std::collections::BTreeMap;
use trefoil_model::{NodeId, ShardSet};

/// Fetches that wait for the own disk.
pub(crate) type Reads = BTreeMap<ReadId, (Envelope, u64)>;

/// Most fetches that wait for the own disk. More are dropped: their senders ask again.
const READS_MAX: usize = 64;

/// From where on a group of shards is listed.
struct Listing {
    shards: ShardSet,
    after: Offset,
}

impl Replication {
    pub(crate) fn on_barrier_ask(
        &mut self,
        step: &mut Step<'_>,
        envelope: Envelope,
        ask: BarrierAsk,
    ) {
        let peer = self.peers.entry(envelope.from).or_default();
        peer.kept = ask.kept;
        let numbers = ask.groups.iter().map(|group| (&group.shards, group.number));
        let compared = self.rows.compare(numbers);
        let mut agreed = compared.equal;
        let mut unlearnt = compared.lower_here;
        if self.faults.early_catch_up {
            agreed = agreed.union(&std::mem::take(&mut unlearnt));
        }
        if self.faults.stale_barrier_answered {
            agreed = agreed.union(&compared.higher_here);
        } else if !compared.higher_here.is_empty() && !self.faults.early_catch_up {
            let entries = self.rows.entries(&compared.higher_here);
            self.reply(step, &envelope, Message::Configurations { entries });
        }
        agreed = agreed.difference(&self.replicas.unrecorded(&self.rows));
        if !self.faults.stale_barrier_answered && !self.faults.early_catch_up {
            agreed = agreed.intersection(&self.rows.shared_by(self.me.node, envelope.from));
        }
        let Some((listings, copy)) = self.listings(&ask.groups, &agreed) else {
            self.on_restored_copy(step, envelope.from);
            return;
        };
        let (listed, listed_to) = self.list(&listings);
        let mut serving = self.replicas.with_trust(Trust::Serving);
        if self.faults.amnesiac_serves {
            serving = serving.union(&self.replicas.with_trust(Trust::Amnesiac));
        }
        let lost = self.replicas.damages.iter();
        let answer = BarrierAnswer {
            id: ask.id,
            unlearnt,
            serving: serving.intersection(&agreed),
            joining: self
                .replicas
                .with_trust(Trust::Joining)
                .intersection(&agreed),
            damaged: lost
                .map(|damage| (damage.shards.clone(), damage.range))
                .collect(),
            copy,
            end: self.journal.durable,
            listed_to,
            listed,
            seen: self.seen_of(envelope.from, &agreed),
            agreed,
        };
        self.reply(step, &envelope, Message::BarrierAnswer(answer));
    }

    /// From where the groups are listed, and the shards that have to be copied instead. None: a position is beyond
    /// what this journal ever had, so it is this node that lost something.
    fn listings(&self, groups: &[AskGroup], agreed: &ShardSet) -> Option<(Vec<Listing>, ShardSet)> {
        let mut copy = ShardSet::new();
        let mut listings = Vec::new();
        for group in groups {
            let shards = group.shards.intersection(agreed);
            let Some((position, lineage)) = group.position.filter(|_| !shards.is_empty()) else {
                // Without a position everything is needed, which is the journal if nothing of it was trimmed.
                match self.journal.floor {
                    Offset(0) => listings.push(Listing {
                        shards,
                        after: Offset(0),
                    }),
                    _ => copy = copy.union(&shards),
                }
                continue;
            };
            match self.journal.judge(position) {
                Judgement::BelowFloor if !self.faults.trimmed_answers_rest => {
                    copy = copy.union(&shards);
                }
                Judgement::Known | Judgement::BelowFloor => listings.push(Listing {
                    shards,
                    after: position.offset,
                }),
                Judgement::Unknown if self.faults.unknown_run_is_start => listings.push(Listing {
                    shards,
                    after: Offset(0),
                }),
                Judgement::Unknown => {
                    let mine = |shard| self.replicas.lineage_of(shard) == lineage;
                    if shards.iter().any(mine) && !self.faults.restored_copy_ignored {
                        return None;
                    }
                    copy = copy.union(&shards);
                }
            }
        }
        listings.retain(|listing| !listing.shards.is_empty());
        Some((listings, copy))
    }

    /// The durable parcels behind the listings' positions, and how far the list reaches.
    fn list(&self, listings: &[Listing]) -> (Vec<ListedParcel>, Offset) {
        let mut listed = Vec::new();
        let after = listings.iter().map(|listing| listing.after).min();
        let Some(after) = after else {
            return (listed, self.journal.durable);
        };
        for entry in self.journal.durable_behind(after) {
            if self.faults.imports_unlisted && entry.import.is_some() {
                continue;
            }
            let mut shards = ShardSet::new();
            for listing in listings.iter().filter(|l| entry.span.end > l.after) {
                shards = shards.union(&entry.accepted.intersection(&listing.shards));
            }
            if shards.is_empty() {
                continue;
            }
            if listed.len() >= self.settings.listed_max.max(1) {
                let last = listed.last().map(|last: &ListedParcel| last.end);
                return (listed, last.unwrap_or(after));
            }
            listed.push(ListedParcel {
                end: entry.span.end,
                incarnation: entry.number.incarnation,
                sequence: entry.number.sequence,
                shards,
                import: entry.import,
                fetched: entry.fetched,
            });
        }
        (listed, self.journal.durable)
    }

    /// The highest position in a peer's journal that was taken from its present replicas.
    fn seen_of(&self, peer: NodeId, shards: &ShardSet) -> Option<Position> {
        let map = self.positions.of(peer)?;
        let mut seen: Option<Position> = None;
        for (part, reached) in map.within(shards) {
            let Some(reached) = reached else {
                continue;
            };
            let present = part.iter().any(|shard| {
                let record = self
                    .rows
                    .get(shard)
                    .and_then(|entry| entry.owners.get(&peer));
                record.is_some_and(|record| record.lineage == reached.lineage)
            });
            if present && seen.is_none_or(|seen| reached.position.offset > seen.offset) {
                seen = Some(reached.position);
            }
        }
        seen
    }

    pub(crate) fn on_fetch(
        &mut self,
        step: &mut Step<'_>,
        envelope: Envelope,
        id: u64,
        ends: &[Offset],
    ) {
        let mut records: Vec<Span> = Vec::new();
        let mut bytes = 0;
        for end in ends.iter().take(crate::FETCH_RECORDS_MAX) {
            let Some(entry) = self.journal.find(*end) else {
                continue;
            };
            records.push(entry.span);
            bytes += entry.span.end.0 - entry.span.start.0;
            if bytes >= self.settings.fetch_bytes_max as u64 {
                break;
            }
        }
        if records.is_empty() || self.reads.len() >= READS_MAX {
            return;
        }
        let read = ReadId(self.fresh_id());
        self.reads.insert(read, (envelope, id));
        step.out.push(crate::Action::Read { read, records });
    }

    pub(crate) fn on_journal_read(
        &mut self,
        step: &mut Step<'_>,
        read: ReadId,
        records: Vec<FetchedParcel>,
    ) {
        if let Some((envelope, id)) = self.reads.remove(&read) {
            self.reply(step, &envelope, Message::FetchAnswer { id, records });
        }
    }
}
