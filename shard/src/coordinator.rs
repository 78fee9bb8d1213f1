//! The coordinator's side of a write: give every owner its parcels, count who holds them, answer.
//!
//! A write is acknowledged when each of its batches is held by a majority of the old and of the new owners
//! under one and the same number. When this node follows a higher number for a shard, what was counted for
//! that shard is void and its batches are routed again, with the same bytes. A slow or absent owner costs
//! a bounded window of pushes; beyond it the owner is skipped, and fetches what it lacks later.

use crate::{
    Action, Message, Parcel, ParcelHeader, Push, PushAck, PushOutcome, Replication, RequestId,
    RequestNumber, WriteOutcome, WriteRequest, quorum, replication::Step,
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};
use trefoil_model::{NodeId, RequestSequence, ShardSet};

/// A write that is not answered yet.
#[derive(Debug)]
struct OpenWrite {
    request: RequestId,
    deadline: Duration,
    shards: ShardSet,
    /// The batches by parcel, disjoint.
    parcels: Vec<(ShardSet, Parcel)>,
    /// Who holds which shards under their present numbers.
    held: BTreeMap<NodeId, ShardSet>,
}

/// A push that is not answered yet.
#[derive(Debug)]
struct OpenPush {
    sequence: RequestSequence,
    to: NodeId,
    /// What its acknowledgement still counts for: shards whose number changed since are taken out.
    shards: ShardSet,
    bytes: usize,
}

/// All that this node coordinates.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    last: RequestSequence,
    open: BTreeMap<RequestSequence, OpenWrite>,
    deadlines: BTreeSet<(Duration, RequestSequence)>,
    pushes: BTreeMap<u64, OpenPush>,
    /// When to look at a push again; ascending, since the wait is always the same.
    retries: VecDeque<(Duration, u64)>,
}

impl Writes {
    /// The number of the next request of this run, or of the next import.
    pub(crate) fn next_sequence(&mut self) -> RequestSequence {
        self.last = self.last.next();
        self.last
    }

    pub(crate) fn open_count(&self) -> usize {
        self.open.len()
    }
}

impl Replication {
    pub(crate) fn on_write(&mut self, step: &mut Step<'_>, request: WriteRequest) {
        let outdated = self.is_closed_for(request.tenant, request.deletion);
        let full = self.writes.open.len() >= self.settings.writes_max;
        if outdated {
            step.out.push(Action::RefreshMetadata);
        }
        if outdated || full || request.deadline <= step.now {
            step.out.push(Action::FinishWrite {
                request: request.request,
                outcome: WriteOutcome::Unavailable,
            });
            return;
        }
        let sequence = self.writes.next_sequence();
        let number = RequestNumber {
            incarnation: self.me.incarnation,
            sequence,
        };
        let mut shards = ShardSet::new();
        let mut parcels = Vec::with_capacity(request.parcels.len());
        for (of_parcel, body) in request.parcels {
            shards = shards.union(&of_parcel);
            let header = ParcelHeader {
                tenant: request.tenant,
                signal: request.signal,
                number,
                deletion: request.deletion,
                shards: of_parcel.clone(),
                import: None,
            };
            parcels.push((of_parcel, Parcel::new(header, body)));
        }
        self.writes.deadlines.insert((request.deadline, sequence));
        let write = OpenWrite {
            request: request.request,
            deadline: request.deadline,
            shards: shards.clone(),
            parcels,
            held: BTreeMap::new(),
        };
        self.writes.open.insert(sequence, write);
        self.route(step, sequence, &shards);
    }

    /// Pushes the batches of these shards to their owners.
    fn route(&mut self, step: &mut Step<'_>, sequence: RequestSequence, shards: &ShardSet) {
        let mut by_owner: BTreeMap<NodeId, ShardSet> = BTreeMap::new();
        for (both, entry) in self.rows.within(shards) {
            let configuration = &entry.configuration;
            let open = |node: &NodeId| *node == self.me.node || self.window_is_open(*node);
            let (old, new) = (&configuration.old, &configuration.new);
            let needs_all = old.iter().filter(open).count() < old.majority()
                || new.iter().filter(open).count() < new.majority();
            for owner in configuration.all_owners().iter() {
                if needs_all || open(&owner) {
                    let of_owner = by_owner.entry(owner).or_default();
                    *of_owner = of_owner.union(&both);
                }
            }
        }
        for (owner, shards) in by_owner {
            self.push(step, sequence, owner, shards);
        }
    }

    fn push(
        &mut self,
        step: &mut Step<'_>,
        sequence: RequestSequence,
        to: NodeId,
        shards: ShardSet,
    ) {
        let Some(parcels) = self.masked(sequence, &shards) else {
            return;
        };
        let id = self.fresh_id();
        let bytes = parcels.iter().map(|(_, p)| p.len_bytes()).sum();
        let open = OpenPush {
            sequence,
            to,
            shards: shards.clone(),
            bytes,
        };
        self.writes.pushes.insert(id, open);
        let retry_at = step.now + self.settings.push_retry;
        self.writes.retries.push_back((retry_at, id));
        if to == self.me.node {
            self.push_here(step, id, &parcels);
            return;
        }
        let pushes_max = self.settings.window_pushes_max;
        let bytes_max = self.settings.window_bytes_max;
        let window = &mut self.peers.entry(to).or_default().window;
        window.pushes += 1;
        window.bytes += bytes;
        if window.pushes >= pushes_max || window.bytes >= bytes_max {
            window.skipped_since.get_or_insert(step.now);
        }
        let numbers = self.rows.numbers(&shards);
        let push = Push {
            id,
            numbers,
            parcels,
        };
        self.send(step, to, Message::Push(push));
    }

    /// The parcels of an open write that touch the shards, with masks.
    fn masked(
        &self,
        sequence: RequestSequence,
        shards: &ShardSet,
    ) -> Option<Vec<(ShardSet, Parcel)>> {
        let write = self.writes.open.get(&sequence)?;
        let cut = |(set, parcel): &(ShardSet, Parcel)| (set.intersection(shards), parcel.clone());
        let masked = write.parcels.iter().map(cut);
        let masked: Vec<_> = masked.filter(|(mask, _)| !mask.is_empty()).collect();
        Some(masked).filter(|masked| !masked.is_empty())
    }

    pub(crate) fn on_push_ack(&mut self, step: &mut Step<'_>, from: NodeId, ack: PushAck) {
        match ack.outcome {
            PushOutcome::Held => self.on_held(step, from, ack.id),
            PushOutcome::Unlearnt(shards) => {
                let entries = self.rows.entries(&shards);
                self.send(step, from, Message::Configurations { entries });
                self.push_again(step, ack.id);
            }
            PushOutcome::Superseded(shards) => {
                // The rows were sent along. If they were lost, this asks for them.
                let numbers = self.rows.numbers(&shards);
                self.send(step, from, Message::ConfigurationsAsk { numbers });
            }
            // The retry comes by itself.
            PushOutcome::DeletionUnknown | PushOutcome::NotStoring => {}
            PushOutcome::Outdated => {
                // The client's next try is to know the deletion.
                step.out.push(Action::RefreshMetadata);
                self.close_push(ack.id);
            }
            PushOutcome::BelowKept => {
                self.close_push(ack.id);
            }
        }
    }

    /// An owner holds what a push brought.
    pub(crate) fn on_held(&mut self, step: &mut Step<'_>, from: NodeId, id: u64) {
        if self
            .writes
            .pushes
            .get(&id)
            .is_none_or(|push| push.to != from)
        {
            return;
        }
        let Some(push) = self.close_push(id) else {
            return;
        };
        let Some(write) = self.writes.open.get_mut(&push.sequence) else {
            return;
        };
        let held = write.held.entry(from).or_default();
        *held = held.union(&push.shards);
        self.finish_if_held(step, push.sequence);
    }

    fn finish_if_held(&mut self, step: &mut Step<'_>, sequence: RequestSequence) {
        let Some(write) = self.writes.open.get(&sequence) else {
            return;
        };
        let mut missing = write.shards.clone();
        for (both, entry) in self.rows.within(&write.shards) {
            let held = write.held.iter().map(|(node, set)| (*node, set));
            let by_enough = match self.faults.acknowledge_with_one {
                true => quorum::in_at_least(1, &both, held.map(|(_, set)| set)),
                false => quorum::held_by_majorities(&entry.configuration, &both, held),
            };
            missing = missing.difference(&by_enough);
        }
        if missing.is_empty() {
            self.finish_write(step, sequence, WriteOutcome::Held);
        }
    }

    fn finish_write(
        &mut self,
        step: &mut Step<'_>,
        sequence: RequestSequence,
        outcome: WriteOutcome,
    ) {
        if let Some(write) = self.writes.open.remove(&sequence) {
            self.writes.deadlines.remove(&(write.deadline, sequence));
            step.out.push(Action::FinishWrite {
                request: write.request,
                outcome,
            });
        }
    }

    /// These shards follow new numbers: nothing that was counted for them counts any more.
    pub(crate) fn route_again(&mut self, step: &mut Step<'_>, shards: &ShardSet) {
        for push in self.writes.pushes.values_mut() {
            push.shards = push.shards.difference(shards);
        }
        let mut touched = Vec::new();
        for (sequence, write) in &mut self.writes.open {
            let both = write.shards.intersection(shards);
            if !both.is_empty() {
                for held in write.held.values_mut() {
                    *held = held.difference(&both);
                }
                touched.push((*sequence, both));
            }
        }
        for (sequence, both) in touched {
            self.route(step, sequence, &both);
        }
    }

    fn close_push(&mut self, id: u64) -> Option<OpenPush> {
        let push = self.writes.pushes.remove(&id)?;
        if let Some(peer) = self.peers.get_mut(&push.to) {
            peer.window.pushes = peer.window.pushes.saturating_sub(1);
            peer.window.bytes = peer.window.bytes.saturating_sub(push.bytes);
        }
        Some(push)
    }

    /// Sends an unanswered push once more, or gives it up when its write is answered.
    fn push_again(&mut self, step: &mut Step<'_>, id: u64) {
        let Some(push) = self.close_push(id) else {
            return;
        };
        if self.writes.open.contains_key(&push.sequence) {
            self.push(step, push.sequence, push.to, push.shards);
        } else if push.to != self.me.node {
            // It did not answer in time: skip it until it is heard of again and has caught up.
            let window = &mut self.peers.entry(push.to).or_default().window;
            window.skipped_since.get_or_insert(step.now);
        }
    }

    /// When a tick has something to do for writes.
    pub(crate) fn writes_due(&self) -> Option<Duration> {
        let deadline = self.writes.deadlines.first().map(|(at, _)| *at);
        let retry = self.writes.retries.front().map(|(at, _)| *at);
        deadline.into_iter().chain(retry).min()
    }

    pub(crate) fn tick_writes(&mut self, step: &mut Step<'_>) {
        while let Some((deadline, sequence)) = self.writes.deadlines.first().copied() {
            if deadline > step.now {
                break;
            }
            self.finish_write(step, sequence, WriteOutcome::Unavailable);
        }
        while let Some((at, id)) = self.writes.retries.front().copied() {
            if at > step.now {
                break;
            }
            self.writes.retries.pop_front();
            self.push_again(step, id);
        }
        self.reopen_windows(step);
    }

    fn window_is_open(&self, node: NodeId) -> bool {
        let peer = self.peers.get(&node);
        peer.is_none_or(|peer| peer.window.skipped_since.is_none())
    }

    /// Peers that were skipped get pushes again once they were heard of since, have answered what they were
    /// pushed, and are not far behind this node's journal.
    fn reopen_windows(&mut self, step: &mut Step<'_>) {
        let (durable, lag_max) = (self.journal.durable.0, self.settings.window_reopen_bytes);
        for peer in self.peers.values_mut() {
            let Some(since) = peer.window.skipped_since else {
                continue;
            };
            let near = peer
                .kept
                .is_none_or(|kept| durable.saturating_sub(kept.0) <= lag_max);
            if peer.window.pushes == 0 && peer.heard_at > since && near && step.now > since {
                peer.window.skipped_since = None;
            }
        }
    }
}
