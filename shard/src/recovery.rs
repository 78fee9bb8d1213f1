//! Starting again: from the newest checkpoint and the journal to the state machine.
//!
//! The checkpoint is the durable state at one offset of the journal; state records behind it are replayed onto it.
//! Parcel records are indexed from the journal's floor on, wherever the checkpoint stands. Replay has no
//! effect outside: what it finds is merely what this node may say again.

use crate::{
    Action, Faults, Identity, JournalPort, Offset, Position, Record, Replication, Settings,
    ShardError, Span,
    coordinator::Writes,
    copy::Copies,
    envelope,
    export::Exports,
    held::HeldNumbers,
    journal_state::{JournalState, RunStart},
    leaving::Leaving,
    owner::Acknowledgements,
    position::{Positions, Reached},
    query::Queries,
    replicas::{Damage, Replica, Replicas},
    replication::Step,
    rows::Rows,
    scrub::Scrub,
    shard_map::ShardMap,
};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};
use trefoil_model::{
    ClusterId, DeletionVersion, Incarnation, LineageId, NodeId, ShardEntry, ShardSet, TenantId,
};

/// The format version of a checkpoint.
pub const CHECKPOINT_VERSION: u8 = 1;

/// What the journal is after a restart, as the driver found it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoveredJournal {
    /// The lowest offset from which records could be replayed. It is 0 only if nothing was ever trimmed *or lost*: a
    /// journal that replaces a lost one begins above 0. Above `flushed`, what
    /// lies between was lost.
    pub floor: Offset,
    /// Where the journal goes on: the end of the last record, or more. Never below `flushed` or
    /// [`Recovery::covers`], even if records there were lost: what is written at an offset that the manifest
    /// speaks of would be taken for what stood there, and never be replayed. All of it is durable (the unsealed
    /// segment was copied and fsynced) and applied to the store.
    ///
    /// A journal that lost its end goes on *behind* both, with [`Loss::Possible`], and so does every later start
    /// until both are behind the damage: flush soon, because another start before that is another loss.
    pub end: Offset,
    /// The position L of the newest manifest record.
    pub flushed: Offset,
}

/// Whether the data directory is what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Everything that was durable is there.
    None,
    /// The directory was just made, with this lineage.
    Fresh(LineageId),
    /// Something durable may be missing: an unreadable journal page before the last valid one, pieces of
    /// different lineage, a journal or manifest that is gone, an unclean stop under `journal_sync: interval`.
    Possible,
}

/// Collects what a restart finds. Call [`Recovery::new`], [`Recovery::replay`] for every record from the floor
/// on in order, then [`Recovery::finish`].
#[derive(Debug)]
pub struct Recovery {
    state: Replication,
    /// State records up to here are in the checkpoint already.
    covers: Offset,
    incarnation: Incarnation,
    /// Shards of which the journal has batches that did not end there.
    stored: ShardSet,
}

/// All that is durable, as a checkpoint holds it.
#[derive(Serialize, Deserialize)]
struct Checkpoint {
    covers: Offset,
    lineage: LineageId,
    starts: Vec<RunStart>,
    starts_forgotten: bool,
    rows: Vec<(ShardSet, ShardEntry)>,
    replicas: ShardMap<Replica>,
    damages: Vec<Damage>,
    positions: Positions,
    deletions: Vec<(TenantId, DeletionVersion)>,
}

impl Recovery {
    /// Begins with the checkpoint of the newest manifest record, if there is one.
    ///
    /// # Errors
    /// When the checkpoint is damaged or of an unknown version. Start without it and with
    /// [`Loss::Possible`] then.
    pub fn new(
        settings: Settings,
        faults: Faults,
        node: NodeId,
        checkpoint: Option<&Bytes>,
    ) -> Result<Self, ShardError> {
        let identity = Identity {
            cluster: ClusterId(0),
            node,
            incarnation: Incarnation(0),
        };
        let mut state = Replication::empty(settings, faults, identity);
        let mut covers = Offset(0);
        if let Some(bytes) = checkpoint {
            let (checkpoint, _): (Checkpoint, Bytes) =
                envelope::open("checkpoint", CHECKPOINT_VERSION, bytes)?;
            covers = checkpoint.covers;
            state.restore(checkpoint);
        }
        Ok(Self {
            state,
            covers,
            incarnation: Incarnation(0),
            stored: ShardSet::new(),
        })
    }

    /// Up to where the journal's state records are in the checkpoint already: below it a record that cannot be read
    /// any more took nothing with it but its parcel.
    #[must_use]
    pub fn covers(&self) -> Offset {
        self.covers
    }

    /// Takes the next record of the journal.
    pub fn replay(&mut self, span: Span, record: &Record) {
        let state = &mut self.state;
        let behind = span.end > self.covers;
        match record {
            Record::Parcel { accepted, .. } => self.stored = self.stored.union(accepted),
            Record::Drop { shards } => self.stored = self.stored.difference(shards),
            _ => {}
        }
        match record {
            Record::Parcel {
                accepted,
                parcel,
                fetched,
            } => {
                let header = parcel.header();
                state
                    .journal
                    .note_parcel(span, header.number, accepted, header.import, *fetched);
                let (tenant, deletion) = (header.tenant, header.deletion);
                state.journal.note_version(span, tenant, deletion);
                state.held.insert(header.number, accepted, span.end);
                // It was known when this was stored, even if the record that says so was lost.
                if !state.faults.deletions_by_record_only {
                    let known = state.deletions_durable.entry(header.tenant).or_default();
                    *known = header.deletion.max(*known);
                }
            }
            // What ended or was lost is not held, whatever the checkpoint knows.
            Record::Drop { shards } if !behind && !state.faults.drop_keeps_positions => {
                state.held.forget(shards);
            }
            Record::Trust(trust) if !behind => {
                if let Some(lost) = trust.loses() {
                    state.held.forget(lost);
                }
            }
            _ if !behind => {}
            Record::Start {
                incarnation,
                lineage,
            } => {
                let starts_max = state.settings.starts_max;
                state
                    .journal
                    .note_start(*incarnation, span.start, starts_max);
                state.replicas.lineage = *lineage;
                self.incarnation = *incarnation;
            }
            Record::Adopt { entries } => state.adopt(entries, span.end),
            Record::Positions { peer, groups } => {
                for (shards, position, lineage) in groups {
                    let reached = Reached {
                        position: *position,
                        taken_at: span.start,
                        lineage: *lineage,
                    };
                    state.positions.set(*peer, shards, reached);
                }
            }
            Record::Trust(trust) => {
                state.replicas.apply(trust, span.end);
                if let Some(lost) = trust.loses() {
                    state.held.forget(lost);
                }
                if let crate::TrustRecord::Forget { shards, .. } = trust {
                    state.positions.drop_shards(shards);
                }
            }
            Record::Deletions { versions } => {
                for (tenant, version) in versions {
                    let known = state.deletions_durable.entry(*tenant).or_default();
                    *known = (*version).max(*known);
                }
            }
            Record::Drop { shards } => state.drop_replicas(shards),
        }
    }

    /// Makes the state machine of this run. The first records are appended through `port`; the driver takes
    /// them like those of a step. `out` gets the first actions.
    pub fn finish(
        self,
        now: Duration,
        identity: Identity,
        journal: RecoveredJournal,
        loss: Loss,
        port: &mut dyn JournalPort,
        out: &mut Vec<Action>,
    ) -> Replication {
        let mut state = self.state;
        state.me = identity;
        state.journal.floor = journal.floor;
        state.journal.end = journal.end;
        state.journal.durable = journal.end;
        state.journal.applied = journal.end;
        // What was recorded behind the checkpoint is nowhere but in the journal, whatever is in blocks.
        state.journal.flushed = journal.flushed.min(self.covers);
        state.journal.trim(journal.floor);
        let step = &mut Step { now, port, out };
        // A checkpoint is only written once the journal is durable up to what it covers, and the journal is
        // only trimmed where blocks hold what stood there.
        let cut = journal.end < self.covers || journal.floor > journal.flushed;
        let loss = if cut { Loss::Possible } else { loss };
        let lineage = match loss {
            Loss::None => state.replicas.lineage,
            Loss::Fresh(lineage) => lineage,
            Loss::Possible => state.fresh_lineage(),
        };
        let starts_max = state.settings.starts_max;
        let at = state.journal.end;
        state.begin_lineage(step, lineage);
        state
            .journal
            .note_start(identity.incarnation, at, starts_max);
        if loss == Loss::Possible {
            // The record that made a replica may be lost too, and what it stored must still end some day.
            let mut shards = state.replicas.all();
            if !state.faults.strays_kept {
                shards = shards.union(&self.stored);
            }
            state.forget(step, &shards, lineage);
        }
        let routing = Arc::clone(state.rows.routing());
        step.out.push(Action::RoutingChanged(routing));
        let all = state.replicas.all();
        state.evaluate_trust(step, &all);
        state.hear_recovered();
        // They are durable, which this run has yet to say: peers keep their journals until it does.
        state.positions_dirty =
            state.positions.peers().next().is_some() && !state.faults.positions_noted_with_news;
        state
    }
}

impl Replication {
    fn empty(settings: Settings, faults: Faults, me: Identity) -> Self {
        Self {
            held: HeldNumbers::new(settings.held_max, settings.held_runs_max),
            settings,
            faults,
            me,
            journal: JournalState::default(),
            rows: Rows::default(),
            replicas: Replicas {
                node: me.node,
                everything_recorded: faults.amnesia_unrecorded,
                ..Replicas::default()
            },
            positions: Positions::default(),
            positions_dirty: false,
            deletions: Arc::default(),
            deletions_durable: BTreeMap::new(),
            forgetting: crate::forgetting::Forgetting::default(),
            peers: BTreeMap::new(),
            writes: Writes::default(),
            acknowledgements: Acknowledgements::default(),
            queries: Queries::default(),
            copies: Copies::default(),
            exports: Exports::default(),
            leaving: Leaving::default(),
            scrub: Scrub::default(),
            reads: BTreeMap::new(),
            repairs: VecDeque::new(),
            parked: Vec::new(),
            last_id: 0,
            repeated_at: None,
            ticked_at: None,
            misdirected: 0,
            fetched: 0,
        }
    }

    fn restore(&mut self, checkpoint: Checkpoint) {
        self.replicas.lineage = checkpoint.lineage;
        self.replicas.replicas = checkpoint.replicas;
        self.replicas.damages = checkpoint.damages;
        self.journal.starts = checkpoint.starts;
        self.journal.starts_forgotten = checkpoint.starts_forgotten;
        self.rows.replace(&checkpoint.rows);
        self.positions = checkpoint.positions;
        self.deletions_durable = checkpoint.deletions.into_iter().collect();
    }

    /// The state that a restart needs besides the journal, with the offset of the journal that it stands for.
    ///
    /// Write it with the blocks of a flush, in one manifest record, and only *after the journal is durable up
    /// to the offset*: it speaks of records up to there.
    ///
    /// None while a deletion is not known that was known before the restart: a block would claim that it was
    /// applied. Nothing may be flushed then; the metadata plane brings it.
    #[must_use]
    pub fn checkpoint(&self) -> Option<(Vec<u8>, Offset)> {
        if !self.deletions_are_known() {
            return None;
        }
        let covers = self.journal.end;
        let groups = self.rows.groups().iter();
        let checkpoint = Checkpoint {
            covers,
            lineage: self.replicas.lineage,
            starts: self.journal.starts.clone(),
            starts_forgotten: self.journal.starts_forgotten,
            rows: groups
                .map(|g| (g.shards.clone(), g.entry.clone()))
                .collect(),
            replicas: self.replicas.replicas.clone(),
            damages: self.replicas.damages.clone(),
            positions: self.positions.clone(),
            deletions: self
                .deletions_durable
                .iter()
                .map(|(t, v)| (*t, *v))
                .collect(),
        };
        let mut bytes = Vec::new();
        envelope::seal(CHECKPOINT_VERSION, &checkpoint, &[], &mut bytes);
        Some((bytes, covers))
    }

    /// The lineage of the data directory in this run, which the node gives when it joins.
    #[must_use]
    pub fn lineage(&self) -> LineageId {
        self.replicas.lineage
    }

    /// How far a peer's journal is covered for a shard. For tests and for people.
    #[must_use]
    pub fn position_at(&self, peer: NodeId, shard: trefoil_model::ShardId) -> Option<Position> {
        self.positions
            .get(peer, shard)
            .map(|reached| reached.position)
    }
}
