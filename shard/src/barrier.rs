//! The asking side of a barrier: find out what a peer's journal has that this one lacks, and fetch it.
//!
//! ```text
//! Asked --answer--> Grace --pushes in flight had their time--> Fetching --nothing lacks--> Settling --durable, applied--> done
//! ```
//! One barrier per pair is in flight and one waits. Background barriers, the barriers of queries and the catching up of
//! replicas are all this exchange, and it is always about all shards that the two nodes share. What a barrier
//! found counts only for shards that still follow the numbers under which it was asked.

use crate::{
    AskGroup, BarrierAnswer, BarrierAsk, Envelope, FETCH_RECORDS_MAX, FetchedParcel, ImportNote,
    ListedParcel, Message, Offset, Position, Record, Replication, RequestNumber, position::Reached,
    replication::Step,
};
use std::{collections::BTreeMap, time::Duration};
use trefoil_model::{ConfigurationNumber, Incarnation, LineageId, NodeId, ShardSet, TimeRange};

/// The barriers that this node asks one peer for.
#[derive(Debug, Default)]
pub(crate) struct Pair {
    /// How many barriers have begun.
    pub(crate) begun: u64,
    /// When the last barrier began that has ended and has covered all shards that the two nodes share.
    pub(crate) whole_since: Option<Duration>,
    /// Shards for which one has ended since the start while the peer's replica was Serving: all that its journal had
    /// then is here, durable and applied.
    pub(crate) compared: ShardSet,
    flight: Option<Flight>,
    /// Another one is to begin when the one in flight ends.
    wanted: bool,
    last_begun: Option<Duration>,
    /// Bytes of the peer's journal that were not covered when it last answered.
    pub(crate) lag_bytes: u64,
}

impl Pair {
    pub(crate) fn abandon(&mut self) {
        if self.flight.take().is_some() {
            self.wanted = true;
        }
    }
}

#[derive(Debug)]
struct Flight {
    id: u64,
    begun_at: Duration,
    /// When something last moved.
    moved_at: Duration,
    numbers: Vec<(ShardSet, ConfigurationNumber)>,
    found: Option<Found>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Asked,
    Grace {
        until: Duration,
    },
    Fetching {
        asked_at: Duration,
    },
    /// Waits until the own journal is durable and applied up to here.
    Settling {
        at: Offset,
        noted: bool,
    },
}

/// What the peer answered, as far as it still matters.
#[derive(Debug)]
struct Found {
    incarnation: Incarnation,
    /// The shards that will be covered.
    covered: ShardSet,
    serving: ShardSet,
    joining: ShardSet,
    damaged: Vec<(ShardSet, TimeRange)>,
    listed_to: Offset,
    /// Whether the list reached the end of the peer's journal.
    whole: bool,
    /// Whether the list named anything.
    news: bool,
    /// What this node lacked of the list, ascending by end.
    lacking: BTreeMap<Offset, ListedParcel>,
    /// What has to be durable and applied before everything that is covered is in the head.
    seen_at: Offset,
}

/// What a finished barrier proves.
#[derive(Clone, Debug)]
pub(crate) struct Proof {
    pub(crate) peer: NodeId,
    /// Which of the pair's barriers this was.
    pub(crate) barrier: u64,
    /// This node has all that the peer had, for these shards...
    pub(crate) serving: ShardSet,
    /// ...where the peer is Serving, or here, where it is Joining.
    pub(crate) joining: ShardSet,
    /// What the peer itself lost of them.
    pub(crate) damaged: Vec<(ShardSet, TimeRange)>,
}

impl Replication {
    /// Asks for a barrier that begins from now on. Says which of the pair's barriers it will be.
    pub(crate) fn want_barrier(&mut self, step: &mut Step<'_>, peer: NodeId) -> u64 {
        let pair = &mut self.peers.entry(peer).or_default().pair;
        let next = pair.begun + 1;
        if pair.flight.is_none() {
            self.begin_barrier(step, peer);
        } else if self.faults.old_barrier_used {
            return pair.begun;
        } else {
            pair.wanted = true;
        }
        next
    }

    fn begin_barrier(&mut self, step: &mut Step<'_>, peer: NodeId) {
        let unrecorded = self.replicas.unrecorded(&self.rows);
        let shared = self
            .rows
            .shared_by(self.me.node, peer)
            .difference(&unrecorded)
            .difference(&self.outdated_at(peer));
        let groups = self.ask_groups(peer, &shared);
        let kept = self.durably_kept(peer, &shared);
        let id = self.fresh_id();
        let pair = &mut self.peers.entry(peer).or_default().pair;
        pair.wanted = false;
        if groups.is_empty() {
            return;
        }
        pair.begun += 1;
        pair.last_begun = Some(step.now);
        let numbers = groups
            .iter()
            .map(|g| (g.shards.clone(), g.number))
            .collect();
        pair.flight = Some(Flight {
            id,
            begun_at: step.now,
            moved_at: step.now,
            numbers,
            found: None,
            phase: Phase::Asked,
        });
        let ask = BarrierAsk { id, groups, kept };
        self.send(step, peer, Message::BarrierAsk(ask));
    }

    /// The shared shards by number and position.
    fn ask_groups(&self, peer: NodeId, shared: &ShardSet) -> Vec<AskGroup> {
        let mut groups: Vec<AskGroup> = Vec::new();
        let mut add = |shards: ShardSet, number, position| {
            let same = |group: &&mut AskGroup| group.number == number && group.position == position;
            match groups.iter_mut().find(same) {
                Some(group) => group.shards = group.shards.union(&shards),
                None => groups.push(AskGroup {
                    shards,
                    number,
                    position,
                }),
            }
        };
        let any = self.any_position(peer);
        for (shards, number) in self.rows.numbers(shared) {
            let Some(map) = self.positions.of(peer) else {
                add(shards, number, None);
                continue;
            };
            for (part, reached) in map.within(&shards) {
                let own = reached.map(|reached| (reached.position, reached.lineage));
                add(part, number, own.or(any));
            }
        }
        groups
    }

    /// Only for a planted fault: the position of other shards.
    fn any_position(&self, peer: NodeId) -> Option<(Position, LineageId)> {
        if !self.faults.position_per_peer {
            return None;
        }
        let reached = self
            .positions
            .of(peer)?
            .groups()
            .map(|(_, reached)| reached);
        let furthest = reached.max_by_key(|reached| reached.position.offset);
        furthest.map(|reached| (reached.position, reached.lineage))
    }

    /// How far the peer's journal is covered in all shared shards, even after a crash of this node. The peer may trim
    /// below; if that were too much, after all, this node would be told to copy, and would miss nothing.
    fn durably_kept(&mut self, peer: NodeId, shared: &ShardSet) -> Option<Offset> {
        // Positions go back when a lost range was copied, and a shard that is newly shared has one of its own.
        let present = self.least_position(peer, shared)?;
        let durable = self.journal.durable;
        let peer = self.peers.get_mut(&peer)?;
        if let Some((at, kept)) = peer.noting.filter(|(at, _)| *at <= durable) {
            peer.noted = kept;
            peer.noting = Some((at, kept));
        }
        peer.noted.map(|noted| noted.min(present))
    }

    /// The least position in a peer's journal; none, if some shard has none.
    fn least_position(&self, peer: NodeId, shards: &ShardSet) -> Option<Offset> {
        let reached = self.positions.of(peer)?.within(shards).into_iter();
        let offsets: Option<Vec<Offset>> = reached
            .map(|(_, reached)| reached.map(|reached| reached.position.offset))
            .collect();
        offsets?.into_iter().min()
    }

    pub(crate) fn on_barrier_answer(
        &mut self,
        step: &mut Step<'_>,
        envelope: Envelope,
        answer: BarrierAnswer,
    ) {
        let peer = envelope.from;
        let pair = &self.peers.entry(peer).or_default().pair;
        let flight = pair.flight.as_ref();
        let Some(flight) = flight.filter(|f| f.id == answer.id && f.phase == Phase::Asked) else {
            return;
        };
        let numbers = flight.numbers.clone();
        if self.is_restored_copy(answer.seen) {
            self.on_restored_copy(step, peer);
            return;
        }
        let numbers = numbers.iter().map(|(set, number)| (set, *number));
        let agreed = self
            .rows
            .compare(numbers)
            .equal
            .intersection(&answer.agreed);
        if !answer.unlearnt.is_empty() {
            let entries = self.rows.entries(&answer.unlearnt);
            self.reply(step, &envelope, Message::Configurations { entries });
        }
        let mut to_copy = answer.copy.intersection(&agreed);
        if !self.faults.filling_counts {
            to_copy = to_copy.intersection(&answer.serving);
        }
        self.want_copy(step, peer, &to_copy);
        let covered = agreed.difference(&answer.copy);
        let mut found = Found {
            incarnation: envelope.from_incarnation,
            serving: answer.serving.intersection(&covered),
            joining: answer.joining.intersection(&covered),
            covered,
            damaged: answer.damaged,
            listed_to: answer.listed_to,
            whole: answer.listed_to == answer.end,
            news: !answer.listed.is_empty(),
            lacking: BTreeMap::new(),
            // The positions from which this was asked rest on what is durable, but not all of that may be
            // applied yet.
            seen_at: match self.faults.seen_is_held {
                true => Offset(0),
                false => self.journal.durable,
            },
        };
        for listed in answer.listed {
            if let Some(listed) = self.lacking_of(&mut found, listed) {
                found.lacking.insert(listed.end, listed);
            }
        }
        let grace = found.whole && found.lacking.len() <= FETCH_RECORDS_MAX;
        let until = step.now
            + if grace {
                self.settings.push_grace
            } else {
                Duration::ZERO
            };
        let pair = &mut self.peers.entry(peer).or_default().pair;
        pair.lag_bytes = lag_bytes(&found, answer.end);
        if let Some(flight) = &mut pair.flight {
            flight.moved_at = step.now;
            flight.phase = Phase::Grace { until };
            flight.found = Some(found);
        }
        if self.faults.position_before_parcels {
            self.take_position(peer);
        }
        self.advance_barrier(step, peer);
    }

    /// What of a listed parcel this node has to fetch.
    fn lacking_of(&self, found: &mut Found, listed: ListedParcel) -> Option<ListedParcel> {
        let number = RequestNumber {
            incarnation: listed.incarnation,
            sequence: listed.sequence,
        };
        let mut shards = listed.shards.intersection(&found.covered);
        for note in listed.import.iter().chain(&listed.fetched) {
            shards = self.not_covering(*note, &shards);
        }
        let lacking = self.held.lacking(number, &shards);
        if lacking.len() < shards.len() && !self.faults.seen_is_held {
            found.seen_at = found.seen_at.max(self.held.durable_at(number));
        }
        let lacks = !lacking.is_empty();
        lacks.then_some(ListedParcel {
            shards: lacking,
            ..listed
        })
    }

    /// Those of the shards of which this node does not have all that an import can hold: it has, if it
    /// covers the source's journal up to the view that was copied, or if it is the source itself.
    fn not_covering(&self, note: ImportNote, shards: &ShardSet) -> ShardSet {
        let trusted = self
            .replicas
            .with_trust(crate::Trust::Serving)
            .difference(&self.replicas.damaged(None));
        let covers = |shard| match self.positions.get(note.source, shard) {
            Some(reached) => {
                self.faults.import_skipped_always
                    || reached.position.incarnation == note.covered.incarnation
                        && reached.position.offset >= note.covered.offset
            }
            None => false,
        };
        let known = note.source == self.me.node
            && self.journal.judge(note.covered) != crate::journal_state::Judgement::Unknown;
        let by_itself = |shard| {
            let since = self.replicas.since(shard);
            known && since.is_some_and(|since| note.covered.offset >= since)
        };
        let covered = |shard| trusted.contains(shard) && (by_itself(shard) || covers(shard));
        shards.iter().filter(|shard| !covered(*shard)).collect()
    }

    /// Moves the barrier with this peer on as far as it goes now.
    fn advance_barrier(&mut self, step: &mut Step<'_>, peer: NodeId) {
        self.forget_what_arrived(peer);
        let Some(pair) = self.peers.get_mut(&peer).map(|peer| &mut peer.pair) else {
            return;
        };
        let Some(flight) = &mut pair.flight else {
            return;
        };
        let Some(found) = &flight.found else {
            return;
        };
        let settle_at = found.seen_at;
        match flight.phase {
            Phase::Asked | Phase::Settling { .. } => {}
            Phase::Grace { .. } | Phase::Fetching { .. } if found.lacking.is_empty() => {
                flight.moved_at = step.now;
                flight.phase = Phase::Settling {
                    at: settle_at,
                    noted: false,
                };
            }
            Phase::Grace { until } if step.now < until => {}
            Phase::Fetching { asked_at } if step.now < asked_at + self.settings.fetch_retry => {}
            Phase::Grace { .. } | Phase::Fetching { .. } => {
                flight.phase = Phase::Fetching { asked_at: step.now };
                let ends = found
                    .lacking
                    .keys()
                    .copied()
                    .take(FETCH_RECORDS_MAX)
                    .collect();
                let id = flight.id;
                self.send(step, peer, Message::Fetch { id, ends });
            }
        }
        self.settle_barrier(step, peer);
    }

    /// Takes what was pushed meanwhile off the list.
    fn forget_what_arrived(&mut self, peer: NodeId) {
        let held = &self.held;
        let seen_is_held = self.faults.seen_is_held;
        let pair = self.peers.get_mut(&peer).map(|peer| &mut peer.pair);
        let flight = pair.and_then(|pair| pair.flight.as_mut());
        let Some(found) = flight.and_then(|flight| flight.found.as_mut()) else {
            return;
        };
        let mut seen_at = found.seen_at;
        found.lacking.retain(|_, listed| {
            let number = RequestNumber {
                incarnation: listed.incarnation,
                sequence: listed.sequence,
            };
            let lacking = held.lacking(number, &listed.shards);
            if lacking.len() < listed.shards.len() && !seen_is_held {
                seen_at = seen_at.max(held.durable_at(number));
            }
            listed.shards = lacking;
            !listed.shards.is_empty()
        });
        found.seen_at = seen_at;
    }

    pub(crate) fn on_fetch_answer(
        &mut self,
        step: &mut Step<'_>,
        envelope: Envelope,
        id: u64,
        records: Vec<FetchedParcel>,
    ) {
        let peer = envelope.from;
        for record in records {
            let listed = self.found_in_flight(peer, id).and_then(|found| {
                let listed = found.lacking.get(&record.end)?;
                Some(listed.shards.clone())
            });
            let Some(listed) = listed else {
                continue;
            };
            if self.presupposes_more(step, &record.parcel) {
                continue;
            }
            let header = record.parcel.header();
            if self.is_closed_for(header.tenant, header.deletion) {
                self.copy_instead(step, peer, id, (record.end, &listed));
                continue;
            }
            // Shards that moved away meanwhile are not stored; they do not count at the end either.
            let wanted = record.accepted.intersection(&listed);
            let wanted = wanted.intersection(&self.rows.owned_by(self.me.node));
            let mut at = Offset(0);
            if !wanted.is_empty() {
                let note = ImportNote {
                    source: peer,
                    covered: Position {
                        incarnation: envelope.from_incarnation,
                        offset: record.end,
                    },
                };
                self.fetched += 1;
                at = self.hold(step, &wanted, record.parcel, Some(note));
            }
            if let Some(found) = self.found_in_flight(peer, id) {
                found.lacking.remove(&record.end);
                found.seen_at = found.seen_at.max(at);
            }
            self.move_flight_on(step, peer, id);
        }
        self.advance_barrier(step, peer);
    }

    /// Something came that was asked for: what is still lacking is asked for at once.
    fn move_flight_on(&mut self, step: &Step<'_>, peer: NodeId, id: u64) {
        if let Some(flight) = self.flight(peer, id) {
            flight.moved_at = step.now;
            flight.phase = Phase::Grace { until: step.now };
        }
    }

    /// A listed parcel of these shards is too old to be taken: this barrier covers none of them, nor does another one with
    /// this peer before they are copied. The peer's view has what a deletion has left of them.
    fn copy_instead(
        &mut self,
        step: &Step<'_>,
        peer: NodeId,
        id: u64,
        (end, shards): (Offset, &ShardSet),
    ) {
        let again = self.faults.outdated_asked_again;
        let Some(found) = self.found_in_flight(peer, id) else {
            return;
        };
        found.covered = found.covered.difference(shards);
        let copied = found.serving.intersection(shards);
        found.serving = found.serving.difference(shards);
        found.joining = found.joining.difference(shards);
        if again {
            found.lacking.remove(&end);
            return self.note_outdated(peer, &copied);
        }
        found.lacking.retain(|_, listed| {
            listed.shards = listed.shards.difference(shards);
            !listed.shards.is_empty()
        });
        self.note_outdated(peer, &copied);
        self.move_flight_on(step, peer, id);
    }

    fn flight(&mut self, peer: NodeId, id: u64) -> Option<&mut Flight> {
        let flight = self.peers.get_mut(&peer)?.pair.flight.as_mut()?;
        let settling = matches!(flight.phase, Phase::Settling { .. });
        Some(flight).filter(|flight| flight.id == id && !settling)
    }

    fn found_in_flight(&mut self, peer: NodeId, id: u64) -> Option<&mut Found> {
        self.flight(peer, id)?.found.as_mut()
    }

    /// Ends barriers whose own journal has caught up.
    pub(crate) fn settle_barriers(&mut self, step: &mut Step<'_>) {
        let settling: Vec<NodeId> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.pair.is_settling())
            .map(|(node, _)| *node)
            .collect();
        for peer in settling {
            self.settle_barrier(step, peer);
        }
    }

    fn settle_barrier(&mut self, step: &mut Step<'_>, peer: NodeId) {
        let (durable, applied) = (self.journal.durable, self.journal.applied);
        let early = self.faults.position_before_parcels;
        let Some(pair) = self.peers.get_mut(&peer).map(|peer| &mut peer.pair) else {
            return;
        };
        let Some(flight) = &mut pair.flight else {
            return;
        };
        let Phase::Settling { at, noted } = flight.phase else {
            return;
        };
        if durable < at && !early {
            return;
        }
        flight.phase = Phase::Settling { at, noted: true };
        if !noted {
            self.take_position(peer);
        }
        if applied < at && !self.faults.unapplied_evaluated {
            return;
        }
        let Some(pair) = self.peers.get_mut(&peer).map(|peer| &mut peer.pair) else {
            return;
        };
        let Some(flight) = pair.flight.take() else {
            return;
        };
        let (barrier, wanted) = (pair.begun, pair.wanted);
        let whole = flight.found.as_ref().is_some_and(|found| found.whole);
        if whole {
            self.prove(step, peer, barrier, flight);
        }
        if wanted || !whole {
            self.begin_barrier(step, peer);
        }
    }

    /// Notes how far the peer's journal is covered now.
    fn take_position(&mut self, peer: NodeId) {
        let Some(flight) = self.peers.get(&peer).and_then(|p| p.pair.flight.as_ref()) else {
            return;
        };
        let Some(found) = &flight.found else {
            return;
        };
        let numbers = flight.numbers.iter().map(|(set, number)| (set, *number));
        let covered = self
            .rows
            .compare(numbers)
            .equal
            .intersection(&found.covered);
        let position = Position {
            incarnation: found.incarnation,
            offset: found.listed_to,
        };
        // A position that passes no parcel need not be made durable: two idle nodes would otherwise write
        // positions for ever, because each other's positions are records too.
        let mut dirty = found.news;
        let mut moved = Vec::new();
        for (shards, entry) in self.rows.within(&covered) {
            let Some(record) = entry.owners.get(&peer) else {
                continue;
            };
            let known = |shard| self.positions.get(peer, shard);
            let is_stale = |reached: Reached| {
                reached.position != position || reached.lineage != record.lineage
            };
            let stale: ShardSet = shards
                .iter()
                .filter(|shard| known(*shard).is_none_or(is_stale))
                .collect();
            let is_new = |reached: Reached| {
                reached.position.incarnation != position.incarnation
                    || reached.lineage != record.lineage
            };
            dirty |= stale.iter().any(|shard| known(shard).is_none_or(is_new));
            moved.push((stale, record.lineage));
        }
        self.forgetting.positions_moved |= moved.iter().any(|(stale, _)| !stale.is_empty());
        for (shards, lineage) in moved {
            let reached = Reached {
                position,
                taken_at: self.journal.durable,
                lineage,
            };
            self.positions.set(peer, &shards, reached);
        }
        self.positions_dirty |= dirty;
    }

    /// Gives what a finished barrier proves to those who wait for it.
    fn prove(&mut self, step: &mut Step<'_>, peer: NodeId, barrier: u64, flight: Flight) {
        let Some(found) = flight.found else {
            return;
        };
        let numbers = flight.numbers.iter().map(|(set, number)| (set, *number));
        let still = self.rows.compare(numbers).equal;
        let serving = found.serving.intersection(&still);
        let joining = found.joining.intersection(&still);
        let shared = self.rows.shared_by(self.me.node, peer);
        let whole = shared.is_subset(&found.covered.intersection(&still));
        let counts = match self.faults.filling_counts {
            true => found.covered.intersection(&still),
            false => serving.clone(),
        };
        let lost = found.damaged.iter().map(|(shards, _)| shards);
        let lost = lost.fold(ShardSet::new(), |all, shards| all.union(shards));
        let met = counts.difference(&lost);
        // Damage is of windows that were written long ago, not of what this node may have missed while it was away.
        let pair = &mut self.peers.entry(peer).or_default().pair;
        pair.compared = pair.compared.union(&counts);
        if whole {
            pair.whole_since = Some(flight.begun_at);
        }
        let caught = self.replicas.caught.entry(peer).or_default();
        *caught = caught.union(&met);
        self.evaluate_trust(step, &still);
        self.use_proof(
            step,
            &Proof {
                peer,
                barrier,
                serving,
                joining,
                damaged: found.damaged,
            },
        );
    }

    /// Everything in flight is void: this node's own state is not what it was when it asked.
    pub(crate) fn abandon_barriers(&mut self) {
        for peer in self.peers.values_mut() {
            peer.pair.abandon();
        }
    }

    /// Begins the barriers that were wanted while none could begin.
    pub(crate) fn begin_waiting_barriers(&mut self, step: &mut Step<'_>) {
        let waiting: Vec<NodeId> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.pair.wanted && peer.pair.flight.is_none())
            .map(|(node, _)| *node)
            .collect();
        for peer in waiting {
            self.begin_barrier(step, peer);
        }
    }

    /// When a tick has something to do for barriers.
    pub(crate) fn barriers_due(&self) -> Option<Duration> {
        let (interval, timeout) = (
            self.settings.barrier_interval,
            self.settings.barrier_timeout,
        );
        let due = |pair: &Pair| match &pair.flight {
            Some(flight) => {
                let overdue = flight.moved_at.max(flight.begun_at) + timeout;
                match flight.phase {
                    Phase::Asked => Some(overdue),
                    Phase::Grace { until } => Some(overdue.min(until)),
                    Phase::Fetching { asked_at } => {
                        Some(overdue.min(asked_at + self.settings.fetch_retry))
                    }
                    Phase::Settling { .. } => None,
                }
            }
            None if pair.wanted => Some(Duration::ZERO),
            None => Some(pair.last_begun.map_or(Duration::ZERO, |at| at + interval)),
        };
        let peers = self.rows.peers_of(self.me.node);
        let pairs = peers.iter().filter_map(|peer| self.peers.get(peer));
        pairs.filter_map(|peer| due(&peer.pair)).min()
    }

    pub(crate) fn tick_barriers(&mut self, step: &mut Step<'_>) {
        for node in self.rows.peers_of(self.me.node) {
            let peer = self.peers.entry(node).or_default();
            let timeout = self.settings.barrier_timeout;
            let overdue = |flight: &Flight| match flight.phase {
                Phase::Settling { .. } => false,
                _ => step.now >= flight.moved_at.max(flight.begun_at) + timeout,
            };
            if peer.pair.flight.as_ref().is_some_and(overdue) {
                peer.pair.abandon();
            }
            if peer.pair.flight.is_some() {
                self.advance_barrier(step, node);
                continue;
            }
            let interval = self.settings.barrier_interval;
            let due = peer
                .pair
                .last_begun
                .is_none_or(|at| step.now >= at + interval);
            if due || peer.pair.wanted {
                self.begin_barrier(step, node);
            }
        }
    }

    /// Journals the positions that were taken since the last time. All that they cover stands before.
    pub(crate) fn note_positions(&mut self, step: &mut Step<'_>) {
        if !self.positions_dirty {
            return;
        }
        self.positions_dirty = false;
        self.forgetting.positions_moved = false;
        let mut records = Vec::new();
        for (peer, map) in self.positions.peers() {
            let groups = map.groups();
            let groups =
                groups.map(|(set, reached)| (set.clone(), reached.position, reached.lineage));
            records.push(Record::Positions {
                peer,
                groups: groups.collect(),
            });
        }
        for record in records {
            self.append(step, record);
        }
        for node in self.rows.peers_of(self.me.node) {
            let shared = self.rows.shared_by(self.me.node, node);
            let kept = self.least_position(node, &shared);
            let peer = self.peers.entry(node).or_default();
            peer.noting = Some((self.journal.end, kept));
        }
    }
}

impl Pair {
    fn is_settling(&self) -> bool {
        let flight = self.flight.as_ref();
        flight.is_some_and(|flight| matches!(flight.phase, Phase::Settling { .. }))
    }
}

/// How many bytes of the peer's journal lie between what was covered and its end.
fn lag_bytes(found: &Found, end: Offset) -> u64 {
    let first = found.lacking.keys().next();
    first.map_or(0, |first| end.0.saturating_sub(first.0))
}
