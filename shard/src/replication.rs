//! The state machine of one node: what it is made of, and which part handles which event.
//!
//! The parts are `impl Replication` blocks by concern: `coordinator` (writes), `owner` (pushes), `barrier` and `answer`
//! (both sides of the exchange), `query`, `filling` (trust), `copy` and `export` (both sides of a copy),
//! `following` (configurations), `trimming`, `leaving`, `scrub`.

use crate::{
    Action, Envelope, Event, Faults, JournalPort, Message, Offset, Record, Settings, Span,
    answer::Reads, coordinator::Writes, copy::Copies, export::Exports, forgetting::Forgetting,
    held::HeldNumbers, journal_state::JournalState, leaving::Leaving, owner::Acknowledgements,
    peers::Peers, position::Positions, query::Queries, replicas::Replicas, rows::Rows,
    scrub::Scrub,
};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};
use trefoil_model::{
    ClusterId, DeletionVersion, Incarnation, NodeId, ShardSet, TenantId, TimeRange,
};

/// Who this node is, for the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// This run.
    pub incarnation: Incarnation,
}

/// What a step may touch besides the state.
pub(crate) struct Step<'a> {
    pub(crate) now: Duration,
    pub(crate) port: &'a mut dyn JournalPort,
    pub(crate) out: &'a mut Vec<Action>,
}

/// The replication core of one node. Made by [`crate::Recovery`].
#[derive(Debug)]
pub struct Replication {
    pub(crate) settings: Settings,
    pub(crate) faults: Faults,
    pub(crate) me: Identity,
    pub(crate) journal: JournalState,
    pub(crate) held: HeldNumbers,
    pub(crate) rows: Rows,
    pub(crate) replicas: Replicas,
    pub(crate) positions: Positions,
    /// Whether positions were taken that are not in the journal yet.
    pub(crate) positions_dirty: bool,
    pub(crate) deletions: Arc<BTreeMap<TenantId, DeletionVersion>>,
    /// Deletions that were known before the restart; queries wait until they are known again.
    pub(crate) deletions_durable: BTreeMap<TenantId, DeletionVersion>,
    pub(crate) forgetting: Forgetting,
    pub(crate) peers: Peers,
    pub(crate) writes: Writes,
    pub(crate) acknowledgements: Acknowledgements,
    pub(crate) queries: Queries,
    pub(crate) copies: Copies,
    pub(crate) exports: Exports,
    pub(crate) leaving: Leaving,
    pub(crate) scrub: Scrub,
    pub(crate) reads: Reads,
    /// Repairs of lost blocks by the end of the record that says so, until that is durable.
    pub(crate) repairs: VecDeque<(Offset, ShardSet, TimeRange)>,
    /// Messages that wait until what they are answered from is durable.
    pub(crate) parked: Vec<(Envelope, Message)>,
    /// The last id that was given to anything.
    pub(crate) last_id: u64,
    pub(crate) repeated_at: Option<Duration>,
    pub(crate) ticked_at: Option<Duration>,
    pub(crate) misdirected: u64,
    pub(crate) fetched: u64,
}

/// Most messages that wait for the own journal. More are dropped: their senders ask again.
const PARKED_MAX: usize = 256;

impl Replication {
    /// Takes one event.
    ///
    /// `now` is the boot clock and never goes back. `out` gets the actions to carry out, in order; what is in
    /// it already stays. Records are appended through `port` during the call.
    pub fn step(
        &mut self,
        now: Duration,
        event: Event,
        port: &mut dyn JournalPort,
        out: &mut Vec<Action>,
    ) {
        let step = &mut Step { now, port, out };
        match event {
            Event::Tick => self.on_tick(step),
            Event::Write(request) => self.on_write(step, request),
            Event::Query(request) => self.on_query(step, request),
            Event::CancelQuery(query) => self.queries.cancel(query),
            Event::Message(envelope, message) => self.on_message(step, envelope, message),
            Event::PeerUp { node, incarnation } => {
                let peer = self.peers.entry(node).or_default();
                if peer.incarnation != Some(incarnation) {
                    peer.pair.abandon();
                    peer.kept = None;
                    self.copies.outdated.remove(&node);
                }
                peer.incarnation = Some(incarnation);
                peer.up = true;
            }
            Event::PeerDown { node } => {
                if let Some(peer) = self.peers.get_mut(&node) {
                    peer.up = false;
                }
            }
            Event::Metadata { table, deletions } => self.on_metadata(step, &table, deletions),
            Event::Confirmed { deletions, pending } => {
                self.forgetting.pending = pending;
                self.on_confirmed(step, &deletions);
            }
            Event::Durable { end } => self.on_durable(step, end),
            Event::Applied { end } => {
                self.journal.applied = self.journal.applied.max(end);
                self.settle_barriers(step);
                self.answer_queries(step);
            }
            Event::Flushed { through } => {
                self.journal.flushed = self.journal.flushed.max(through);
                self.trim(step);
            }
            Event::JournalRead { read, records } => self.on_journal_read(step, read, records),
            Event::ExportOpened { export, covers } => self.on_export_opened(step, export, covers),
            Event::Exported {
                export,
                cursor,
                items,
                next,
            } => self.on_exported(step, export, cursor, items, next),
            Event::ExportFailed { export } => self.on_export_failed(step, export),
            Event::Damaged { shards, range } => self.on_damaged(step, &shards, range),
            Event::Windows(windows) => self.scrub.offer(windows),
            Event::Digests { id, digests } => self.on_digests(step, id, digests),
        }
    }

    /// The shards by owners, as this node follows them.
    #[must_use]
    pub fn routing(&self) -> &Arc<crate::Routing> {
        self.rows.routing()
    }

    fn on_tick(&mut self, step: &mut Step<'_>) {
        self.ticked_at = Some(step.now);
        self.tick_writes(step);
        self.tick_barriers(step);
        self.tick_queries(step);
        self.tick_copies(step);
        self.tick_exports(step);
        let due = self
            .repeated_at
            .is_none_or(|at| step.now >= at + self.settings.repeat_interval);
        if due {
            self.repeated_at = Some(step.now);
            self.note_positions(step);
            self.propose_amnesia(step);
            self.confirm_leaving(step);
            self.report(step);
            self.trim(step);
            self.tick_forgetting(step);
        }
        self.tick_scrub(step);
    }

    fn on_durable(&mut self, step: &mut Step<'_>, end: Offset) {
        self.journal.durable = self.journal.durable.max(end);
        self.acknowledge(step);
        self.say_repaired(step);
        self.settle_barriers(step);
        self.settle_copies(step);
        if self.copies.is_running() {
            self.tick_copies(step);
        }
        if self.gate_is_open() {
            for (envelope, message) in std::mem::take(&mut self.parked) {
                self.dispatch(step, envelope, message);
            }
        }
        self.answer_queries(step);
    }

    fn on_message(&mut self, step: &mut Step<'_>, envelope: Envelope, message: Message) {
        let meant = envelope.cluster == self.me.cluster
            && envelope.to == self.me.node
            && envelope.to_incarnation == self.me.incarnation
            && envelope.from != self.me.node;
        if !meant && !self.faults.envelope_unchecked {
            self.misdirected += 1;
            return;
        }
        let peer = self.peers.entry(envelope.from).or_default();
        peer.heard_at = step.now;
        self.dispatch(step, envelope, message);
    }

    fn dispatch(&mut self, step: &mut Step<'_>, envelope: Envelope, message: Message) {
        match message {
            Message::Push(push) => self.on_push(step, envelope, push),
            Message::PushAck(ack) => self.on_push_ack(step, envelope.from, ack),
            Message::BarrierAsk(_) | Message::ConfirmAsk { .. } | Message::CopyAsk { .. }
                if !self.gate_is_open() =>
            {
                self.park(envelope, message);
            }
            Message::BarrierAsk(ask) => self.on_barrier_ask(step, envelope, ask),
            Message::BarrierAnswer(answer) => self.on_barrier_answer(step, envelope, answer),
            Message::Fetch { id, ends } => self.on_fetch(step, envelope, id, &ends),
            Message::FetchAnswer { id, records } => {
                self.on_fetch_answer(step, envelope, id, records);
            }
            Message::Configurations { entries } => self.follow(step, entries),
            Message::ConfigurationsAsk { numbers } => self.teach(step, envelope, &numbers),
            Message::CopyAsk { session, step: ask } => {
                self.on_copy_ask(step, envelope, session, ask);
            }
            Message::CopyAnswer {
                session,
                step: answer,
            } => self.on_copy_answer(step, envelope.from, session, answer),
            Message::ConfirmAsk { numbers } => self.on_confirm_ask(step, envelope, &numbers),
            Message::ConfirmAnswer { numbers } => {
                self.on_confirm_answer(step, envelope.from, &numbers);
            }
            Message::DigestAsk { shards, window } => {
                self.on_digest_ask(step, envelope, &shards, window);
            }
            Message::DigestAnswer { window, digests } => {
                self.on_digest_answer(step, envelope.from, window, &digests);
            }
        }
    }

    fn park(&mut self, envelope: Envelope, message: Message) {
        if self.parked.len() < PARKED_MAX {
            self.parked.push((envelope, message));
        }
    }

    /// Whether everything that was adopted is durable, so that something may be claimed under it.
    pub(crate) fn gate_is_open(&self) -> bool {
        self.journal.durable >= self.journal.gate || self.faults.adoption_not_durable
    }

    /// An id that was not given before in this run.
    pub(crate) fn fresh_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Appends a record.
    pub(crate) fn append(&mut self, step: &mut Step<'_>, record: Record) -> Span {
        let span = step.port.append(record);
        self.journal.end = span.end;
        span
    }

    /// Appends a record under which nothing is claimed before it is durable.
    pub(crate) fn append_gated(&mut self, step: &mut Step<'_>, record: Record) {
        let span = self.append(step, record);
        self.journal.gate = span.end;
    }

    /// Sends a message to a peer whose run is known; otherwise it is dropped.
    pub(crate) fn send(&self, step: &mut Step<'_>, to: NodeId, message: Message) {
        let run = self.peers.get(&to).and_then(|peer| peer.incarnation);
        if let Some(to_incarnation) = run {
            self.send_to(step, to, to_incarnation, message);
        }
    }

    /// Answers the run that asked.
    pub(crate) fn reply(&self, step: &mut Step<'_>, asked: &Envelope, message: Message) {
        self.send_to(step, asked.from, asked.from_incarnation, message);
    }

    fn send_to(
        &self,
        step: &mut Step<'_>,
        to: NodeId,
        to_incarnation: Incarnation,
        message: Message,
    ) {
        let envelope = Envelope {
            cluster: self.me.cluster,
            from: self.me.node,
            from_incarnation: self.me.incarnation,
            to,
            to_incarnation,
        };
        step.out.push(Action::Send(envelope, message));
    }

    /// The newest deletion of a tenant that this node knows.
    pub(crate) fn known_deletion(&self, tenant: TenantId) -> DeletionVersion {
        self.deletions.get(&tenant).copied().unwrap_or_default()
    }

    /// Owned shards whose replica is trusted, whatever blocks it lost.
    pub(crate) fn serving(&self) -> ShardSet {
        let serving = self.replicas.with_trust(crate::Trust::Serving);
        let owned = self.rows.owned_by(self.me.node);
        let unrecorded = self.replicas.unrecorded(&self.rows);
        serving.intersection(&owned).difference(&unrecorded)
    }
}
