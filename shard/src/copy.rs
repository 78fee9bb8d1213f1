//! The receiving side of a copy: fill replicas from another owner's pinned view.
//!
//! ```text
//! Opening --Opened--> Reading(cursor) --last chunk--> Settling --durable--> position taken, view unpinned
//! ```
//! Every chunk is journalled as imported parcels with this node's own numbers, so barriers list them like
//! anything else. When all of them are durable, the position in the source's journal is the one that the view
//! covered; what the source wrote meanwhile comes by ordinary barriers. One copy runs at a time, paced.
//!
//! A copy of a range of time (after damage or scrub) takes no new position: it only makes sure that what
//! the source wrote after its view was pinned is fetched again.

use crate::{
    CopyAnswerStep, CopyAskStep, ExportedItems, ImportNote, Message, Offset, Parcel, ParcelHeader,
    Position, Replication, RequestNumber, position::Reached, replication::Step,
};
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};
use trefoil_model::{LineageId, NodeId, ShardSet, TimeRange};

/// Copies that this node receives.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    current: Option<Copy>,
    /// Shards that barriers could not list, by source.
    wanted: BTreeMap<NodeId, ShardSet>,
    /// Shards of which a source has parcels that are too old to be taken. Barriers leave them out until they are copied
    /// from it.
    pub(crate) outdated: BTreeMap<NodeId, ShardSet>,
    /// Sources that refused, and when they may be asked again. Bounded by the peers.
    refused: BTreeMap<NodeId, Duration>,
    /// Ranges that scrubbing found to differ.
    differing: Vec<(NodeId, ShardSet, TimeRange)>,
    pub(crate) completed: u64,
    /// How often shards were found to be outdated at a source.
    pub(crate) outdated_met: u64,
    /// The newest copies of replicas that were completed, with their bytes: for people.
    finished: VecDeque<(ShardSet, u64)>,
}

/// Completed copies that are remembered for people.
const FINISHED_MAX: usize = 64;

#[derive(Debug)]
struct Copy {
    session: u64,
    source: NodeId,
    shards: ShardSet,
    range: Option<TimeRange>,
    /// The lineage of the source's replicas when the copy began.
    lineages: Vec<(ShardSet, LineageId)>,
    covered: Option<Position>,
    inherited: Vec<(NodeId, ShardSet, Position, LineageId)>,
    phase: Phase,
    heard_at: Duration,
    /// Bytes of items that have come.
    bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Opening {
        asked_at: Option<Duration>,
    },
    /// Asks for the chunk at the cursor when it is time and the chunk before is durable up to here: what waits for a
    /// slow disk stays small.
    Reading {
        cursor: u64,
        ask_at: Duration,
        behind: Offset,
    },
    Settling {
        at: Offset,
    },
}

/// Most differing ranges that wait for a copy; more are found again by later scrubs.
const DIFFERING_MAX: usize = 64;

impl Copies {
    /// Whether a copy has begun that has not ended.
    pub(crate) fn is_running(&self) -> bool {
        self.current.is_some()
    }
}

impl Replication {
    /// A barrier could not list these shards: they have to be copied from the peer.
    pub(crate) fn want_copy(&mut self, step: &mut Step<'_>, source: NodeId, shards: &ShardSet) {
        self.copies.wanted.insert(source, shards.clone());
        self.tick_copies(step);
    }

    /// Scrubbing found a difference.
    pub(crate) fn want_range(&mut self, source: NodeId, shards: ShardSet, range: TimeRange) {
        if self.copies.differing.len() < DIFFERING_MAX && !shards.is_empty() {
            self.copies.differing.push((source, shards, range));
        }
    }

    /// Bytes that have come for replicas that are still being filled, by the shards that were copied together.
    pub(crate) fn copied(&self, filling: &ShardSet) -> Vec<(ShardSet, u64)> {
        let current = self.copies.current.iter();
        let current = current.filter(|copy| copy.range.is_none());
        let current = current.map(|copy| (copy.shards.clone(), copy.bytes));
        let all = self.copies.finished.iter().cloned().chain(current);
        all.filter(|(shards, _)| !shards.intersection(filling).is_empty())
            .collect()
    }

    /// When a tick has something to do for copies.
    pub(crate) fn copies_due(&self) -> Option<Duration> {
        let retry = self.settings.fetch_retry;
        let Some(copy) = &self.copies.current else {
            let waits = !self.replicas.damages.is_empty()
                || !self.copies.wanted.is_empty()
                || !self.copies.outdated.is_empty()
                || !self.copies.differing.is_empty();
            return waits.then_some(Duration::ZERO);
        };
        let silent = copy.heard_at + self.settings.export_idle;
        let due = match copy.phase {
            Phase::Opening { asked_at } => asked_at.map_or(Duration::ZERO, |at| at + retry),
            Phase::Reading { ask_at, behind, .. } if self.journal.durable >= behind => ask_at,
            Phase::Reading { .. } | Phase::Settling { .. } => silent,
        };
        Some(due.min(silent))
    }

    pub(crate) fn tick_copies(&mut self, step: &mut Step<'_>) {
        let silent = self.settings.export_idle;
        if self
            .copies
            .current
            .as_ref()
            .is_some_and(|copy| step.now >= copy.heard_at + silent)
        {
            self.end_copy(step);
        }
        if self.copies.current.is_none() {
            self.choose_copy(step.now);
        }
        let retry = self.settings.fetch_retry;
        let Some(copy) = &mut self.copies.current else {
            return;
        };
        let (source, session) = (copy.source, copy.session);
        match copy.phase {
            Phase::Opening { asked_at } if asked_at.is_none_or(|at| step.now >= at + retry) => {
                copy.phase = Phase::Opening {
                    asked_at: Some(step.now),
                };
                let range = copy.range;
                let numbers = self.rows.numbers(&copy.shards);
                let ask = CopyAskStep::Open { numbers, range };
                self.send(step, source, Message::CopyAsk { session, step: ask });
            }
            Phase::Reading {
                cursor,
                ask_at,
                behind,
            } if step.now >= ask_at && self.journal.durable >= behind => {
                copy.phase = Phase::Reading {
                    cursor,
                    ask_at: step.now + retry,
                    behind,
                };
                let ask = CopyAskStep::Next { cursor };
                self.send(step, source, Message::CopyAsk { session, step: ask });
            }
            Phase::Opening { .. } | Phase::Reading { .. } | Phase::Settling { .. } => {}
        }
    }

    /// Begins the copy that brings most: lost ranges first, then replicas, then what scrubbing found. A source that
    /// refused is left alone for a while.
    fn choose_copy(&mut self, now: Duration) {
        self.copies.refused.retain(|_, again_at| *again_at > now);
        let chosen = self
            .lost_range()
            .or_else(|| {
                let refused = &self.copies.refused;
                let wanted = self.copies.wanted.iter().chain(&self.copies.outdated);
                let wanted = wanted.filter(|(source, _)| !refused.contains_key(source));
                let most = wanted.max_by_key(|(_, shards)| shards.len())?;
                Some((*most.0, most.1.clone(), None))
            })
            .or_else(|| {
                let Copies {
                    differing, refused, ..
                } = &mut self.copies;
                let last = differing.pop_if(|(source, ..)| !refused.contains_key(source));
                let (source, shards, range) = last?;
                Some((source, shards, Some(range)))
            });
        let Some((source, shards, range)) = chosen else {
            return;
        };
        self.copies.wanted.remove(&source);
        let shards = shards.intersection(&self.rows.shared_by(self.me.node, source));
        if shards.is_empty() {
            self.copies.outdated.remove(&source);
            return;
        }
        self.copies.current = Some(Copy {
            session: self.fresh_id(),
            source,
            lineages: self.lineages_at(source, &shards),
            shards,
            range,
            covered: None,
            inherited: Vec::new(),
            phase: Phase::Opening { asked_at: None },
            heard_at: now,
            bytes: 0,
        });
    }

    /// A range of a lost block that was not copied from some peer yet.
    fn lost_range(&self) -> Option<(NodeId, ShardSet, Option<TimeRange>)> {
        let unrecorded = self.replicas.unrecorded(&self.rows);
        for damage in &self.replicas.damages {
            let lost = damage.shards.difference(&unrecorded);
            for peer in self.rows.peers_of(self.me.node) {
                let is_up = self.peers.get(&peer).is_some_and(|peer| peer.up);
                if !is_up || self.copies.refused.contains_key(&peer) {
                    continue;
                }
                let shared = self.rows.shared_by(self.me.node, peer);
                let copied = damage.copied.get(&peer).cloned().unwrap_or_default();
                let rest = lost.intersection(&shared).difference(&copied);
                if !rest.is_empty() {
                    return Some((peer, rest, Some(damage.range)));
                }
            }
        }
        None
    }

    /// The lineages of a peer's replicas, as this node's rows name them.
    fn lineages_at(&self, peer: NodeId, shards: &ShardSet) -> Vec<(ShardSet, LineageId)> {
        let rows = self.rows.within(shards);
        rows.filter_map(|(both, entry)| Some((both, entry.owners.get(&peer)?.lineage)))
            .collect()
    }

    pub(crate) fn on_copy_answer(
        &mut self,
        step: &mut Step<'_>,
        from: NodeId,
        session: u64,
        answer: CopyAnswerStep,
    ) {
        let Some(copy) = &mut self.copies.current else {
            return;
        };
        if copy.session != session || copy.source != from {
            return;
        }
        copy.heard_at = step.now;
        match (answer, copy.phase) {
            (CopyAnswerStep::Opened { covered, inherited }, Phase::Opening { .. }) => {
                copy.covered = Some(covered);
                copy.inherited = inherited;
                copy.phase = Phase::Reading {
                    cursor: 0,
                    ask_at: step.now,
                    behind: Offset(0),
                };
                self.tick_copies(step);
            }
            (
                CopyAnswerStep::Chunk {
                    cursor,
                    items,
                    next,
                },
                Phase::Reading {
                    cursor: expected, ..
                },
            ) if cursor == expected => self.import_chunk(step, items, next),
            (CopyAnswerStep::Refused, Phase::Opening { .. } | Phase::Reading { .. }) => {
                self.give_up_copy(step);
            }
            _ => {}
        }
    }

    /// It begins again after a while; the next barrier says what is still missing.
    fn give_up_copy(&mut self, step: &mut Step<'_>) {
        if let Some(copy) = self.end_copy(step) {
            let again_at = step.now + self.settings.fetch_retry;
            self.copies.refused.insert(copy.source, again_at);
        }
    }

    /// Takes the copy that runs, if one does, and has its source unpin the view: it keeps a journal, and deletions are
    /// not confirmed while it is open.
    fn end_copy(&mut self, step: &mut Step<'_>) -> Option<Copy> {
        let copy = self.copies.current.take()?;
        if !self.faults.view_left_open {
            let (session, close) = (copy.session, CopyAskStep::Close);
            let message = Message::CopyAsk {
                session,
                step: close,
            };
            self.send(step, copy.source, message);
        }
        Some(copy)
    }

    /// Journals a chunk, and asks for the next one in its time.
    fn import_chunk(&mut self, step: &mut Step<'_>, items: Vec<ExportedItems>, next: Option<u64>) {
        let unknown = items
            .iter()
            .any(|item| item.deletion > self.known_deletion(item.tenant));
        if unknown && !self.faults.deletion_not_learnt {
            step.out.push(crate::Action::RefreshMetadata);
            return;
        }
        let outdated = |item: &ExportedItems| self.is_closed_for(item.tenant, item.deletion);
        if items.iter().any(outdated) {
            // The source does not know the deletion yet, or its view is older. A later one is not.
            self.give_up_copy(step);
            return;
        }
        let Some((source, shards, Some(covered))) = self
            .copies
            .current
            .as_ref()
            .map(|copy| (copy.source, copy.shards.clone(), copy.covered))
        else {
            return;
        };
        let mut bytes = 0;
        let mut at = Offset(0);
        for item in items {
            let accepted = item.shards.intersection(&shards);
            bytes += item.body.len() as u64;
            if accepted.is_empty() {
                continue;
            }
            let known = self.known_deletion(item.tenant);
            let claims = self.faults.import_claims_deletions;
            let header = ParcelHeader {
                tenant: item.tenant,
                signal: item.signal,
                number: RequestNumber {
                    incarnation: self.me.incarnation,
                    sequence: self.writes.next_sequence(),
                },
                deletion: if claims { known } else { item.deletion },
                shards: item.shards,
                import: Some(ImportNote { source, covered }),
            };
            at = at.max(self.hold(step, &accepted, Parcel::new(header, item.body), None));
        }
        let rate = self.settings.copy_bytes_per_second.max(1);
        let pause = Duration::from_micros(bytes.saturating_mul(1_000_000) / rate);
        if let Some(copy) = &mut self.copies.current {
            copy.bytes += bytes;
            copy.phase = match next {
                Some(cursor) => Phase::Reading {
                    cursor,
                    ask_at: step.now + pause,
                    behind: at,
                },
                None => Phase::Settling {
                    at: at.max(self.journal.end),
                },
            };
        }
        self.settle_copies(step);
        self.tick_copies(step);
    }

    /// Ends a copy whose imports are durable.
    pub(crate) fn settle_copies(&mut self, step: &mut Step<'_>) {
        let durable = self.journal.durable;
        let settled = |copy: &Copy| matches!(copy.phase, Phase::Settling { at } if at <= durable);
        if !self.copies.current.as_ref().is_some_and(settled) {
            return;
        }
        let Some(copy) = self.end_copy(step) else {
            return;
        };
        self.copies.completed += 1;
        if copy.range.is_none() {
            let finished = &mut self.copies.finished;
            finished.push_back((copy.shards.clone(), copy.bytes));
            if finished.len() > FINISHED_MAX {
                finished.pop_front();
            }
        }
        // What other sources would have to be copied for may have been inherited: barriers ask anew.
        self.copies.wanted.clear();
        self.copies.outdated.clear();
        match copy.range {
            None => self.take_copied_positions(&copy),
            Some(range) => self.note_range(&copy, range),
        }
        if let Some(peer) = self.peers.get_mut(&copy.source) {
            peer.pair.abandon();
        }
        self.want_barrier(step, copy.source);
    }

    fn take_copied_positions(&mut self, copy: &Copy) {
        let Some(covered) = copy.covered else {
            return;
        };
        for (shards, lineage) in &copy.lineages {
            let shards = shards.intersection(&copy.shards);
            self.advance_position(copy.source, &shards, covered, *lineage);
        }
        for (third, shards, position, lineage) in &copy.inherited {
            let shards = shards.intersection(&copy.shards);
            let still = self.lineages_at(*third, &shards);
            for (both, present) in still.iter().filter(|(_, present)| present == lineage) {
                if *third != self.me.node {
                    self.advance_position(*third, both, *position, *present);
                }
            }
        }
    }

    /// Takes a position where it is further than the present one, or where there is none.
    fn advance_position(
        &mut self,
        peer: NodeId,
        shards: &ShardSet,
        position: Position,
        lineage: LineageId,
    ) {
        let behind: ShardSet = shards
            .iter()
            .filter(|shard| {
                let known = self.positions.get(peer, *shard);
                known.is_none_or(|known| {
                    known.lineage != lineage || known.position.offset < position.offset
                })
            })
            .collect();
        if behind.is_empty() {
            return;
        }
        let reached = Reached {
            position,
            taken_at: self.journal.durable,
            lineage,
        };
        self.positions.set(peer, &behind, reached);
        self.positions_dirty = true;
    }

    /// A range of time is here again, up to where the source's view reached: what came after is fetched again.
    fn note_range(&mut self, copy: &Copy, range: TimeRange) {
        let Some(covered) = copy.covered else {
            return;
        };
        let mut repaired = ShardSet::new();
        for damage in &mut self.replicas.damages {
            if damage.range == range {
                let both = damage.shards.intersection(&copy.shards);
                let copied = damage.copied.entry(copy.source).or_default();
                *copied = copied.union(&both);
                repaired = repaired.union(&both);
            }
        }
        if let Some(caught) = self.replicas.caught.get_mut(&copy.source) {
            *caught = caught.difference(&repaired);
        }
        for shard in repaired.iter() {
            let Some(known) = self.positions.get(copy.source, shard) else {
                continue;
            };
            if known.position.offset > covered.offset {
                let reached = Reached {
                    position: covered,
                    ..known
                };
                self.positions
                    .set(copy.source, &ShardSet::from_iter([shard]), reached);
                self.positions_dirty = true;
            }
        }
    }

    /// These shards follow new numbers: a copy of them goes on only if it still proves what it would have.
    pub(crate) fn abandon_copies(&mut self, step: &mut Step<'_>, changed: &ShardSet) {
        let Some(copy) = &self.copies.current else {
            return;
        };
        let touched = copy.shards.intersection(changed);
        if touched.is_empty() {
            return;
        }
        let shared = self.rows.shared_by(self.me.node, copy.source);
        let amnesiac = self.replicas.unrecorded(&self.rows);
        let present = self.lineages_at(copy.source, &touched.intersection(&shared));
        let mut keep = copy.shards.difference(&touched);
        if copy.range.is_none() {
            for (shards, lineage) in &copy.lineages {
                for (both, _) in present.iter().filter(|(_, now)| now == lineage) {
                    keep = keep.union(&shards.intersection(both));
                }
            }
            keep = keep.difference(&amnesiac);
        }
        match (&mut self.copies.current, keep.is_empty()) {
            (Some(copy), false) => copy.shards = keep,
            _ => drop(self.end_copy(step)),
        }
    }
}
