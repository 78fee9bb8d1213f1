//! The giving side of a copy: pin a view, hand it out in chunks, unpin it.
//!
//! Only Serving replicas are given, under numbers that both nodes follow. While a view is pinned, the journal
//! behind what it covers is kept.

use crate::{
    Action, CopyAnswerStep, CopyAskStep, Envelope, ExportId, ExportedItems, Message, Offset,
    Position, Replication, Trust, replication::Step,
};
use std::{collections::BTreeMap, time::Duration};
use trefoil_model::{ConfigurationNumber, LineageId, NodeId, ShardSet, TimeRange};

/// Copies that this node gives.
#[derive(Debug, Default)]
pub(crate) struct Exports {
    open: BTreeMap<ExportId, Export>,
}

#[derive(Debug)]
struct Export {
    /// Whom to answer.
    receiver: Envelope,
    session: u64,
    shards: ShardSet,
    /// What the view covers, once it is pinned.
    covers: Option<Offset>,
    heard_at: Duration,
}

impl Exports {
    fn find(&self, receiver: &Envelope, session: u64) -> Option<ExportId> {
        let mut open = self.open.iter();
        let same = |export: &Export| {
            export.session == session
                && export.receiver.from == receiver.from
                && export.receiver.from_incarnation == receiver.from_incarnation
        };
        open.find(|(_, export)| same(export)).map(|(id, _)| *id)
    }

    /// Whether an export is open whose id is not above this one.
    pub(crate) fn has_up_to(&self, id: u64) -> bool {
        self.open.range(..=ExportId(id)).next().is_some()
    }

    /// The journal is needed behind this for the views that are pinned.
    pub(crate) fn needs_behind(&self) -> Option<Offset> {
        self.open
            .values()
            .map(|e| e.covers.unwrap_or_default())
            .min()
    }
}

impl Replication {
    pub(crate) fn on_copy_ask(
        &mut self,
        step: &mut Step<'_>,
        envelope: Envelope,
        session: u64,
        ask: CopyAskStep,
    ) {
        let found = self.exports.find(&envelope, session);
        if let Some(export) = found.and_then(|id| self.exports.open.get_mut(&id)) {
            export.heard_at = step.now;
        }
        match (ask, found) {
            (CopyAskStep::Open { numbers, range }, None) => {
                self.open_export(step, envelope, session, &numbers, range);
            }
            (CopyAskStep::Open { .. }, Some(export)) => self.say_opened(step, export),
            (CopyAskStep::Next { cursor }, Some(export)) => {
                let bytes_max = self.settings.chunk_bytes_max;
                step.out.push(Action::Export {
                    export,
                    cursor,
                    bytes_max,
                });
            }
            (CopyAskStep::Next { .. }, None) => self.refuse_copy(step, &envelope, session),
            (CopyAskStep::Close, Some(export)) => self.close_export(step, export),
            (CopyAskStep::Close, None) => {}
        }
    }

    fn refuse_copy(&self, step: &mut Step<'_>, receiver: &Envelope, session: u64) {
        let refused = CopyAnswerStep::Refused;
        let message = Message::CopyAnswer {
            session,
            step: refused,
        };
        self.reply(step, receiver, message);
    }

    fn open_export(
        &mut self,
        step: &mut Step<'_>,
        receiver: Envelope,
        session: u64,
        numbers: &[(ShardSet, ConfigurationNumber)],
        range: Option<TimeRange>,
    ) {
        let asked = numbers
            .iter()
            .fold(ShardSet::new(), |all, (shards, _)| all.union(shards));
        let agreed = self
            .rows
            .compare(numbers.iter().map(|(set, number)| (set, *number)));
        let mut givable = agreed.equal.intersection(&self.serving());
        // A replica that lost something elsewhere can still give a range that it has.
        givable = givable.difference(&self.replicas.damaged(range));
        if self.faults.filling_counts {
            givable = agreed.equal.intersection(&self.replicas.all());
        }
        let full = self.exports.open.len() >= self.settings.exports_max;
        // A view says which deletions it has applied: those that this node knows now.
        let unknown = !self.deletions_are_known();
        if !asked.is_subset(&givable) || asked.is_empty() || full || unknown {
            self.teach(step, receiver, numbers);
            self.refuse_copy(step, &receiver, session);
            return;
        }
        let export = ExportId(self.fresh_id());
        let shards = asked.clone();
        self.exports.open.insert(
            export,
            Export {
                receiver,
                session,
                shards: asked,
                covers: None,
                heard_at: step.now,
            },
        );
        step.out.push(Action::OpenExport {
            export,
            shards,
            range,
        });
    }

    pub(crate) fn on_export_opened(
        &mut self,
        step: &mut Step<'_>,
        export: ExportId,
        covers: Offset,
    ) {
        match self.exports.open.get_mut(&export) {
            Some(open) => open.covers = Some(covers),
            None => step.out.push(Action::CloseExport { export }),
        }
        self.say_opened(step, export);
    }

    fn say_opened(&mut self, step: &mut Step<'_>, export: ExportId) {
        let Some(open) = self.exports.open.get(&export) else {
            return;
        };
        let Some(covers) = open.covers else {
            return;
        };
        let opened = CopyAnswerStep::Opened {
            covered: Position {
                incarnation: self.me.incarnation,
                offset: covers,
            },
            inherited: self.inheritable(&open.shards, covers),
        };
        let (receiver, session) = (open.receiver, open.session);
        let message = Message::CopyAnswer {
            session,
            step: opened,
        };
        self.reply(step, &receiver, message);
    }

    /// Positions in third owners' journals that were taken from what the view contains: who has the view has
    /// those journals up to there as well.
    fn inheritable(
        &self,
        shards: &ShardSet,
        covers: Offset,
    ) -> Vec<(NodeId, ShardSet, Position, LineageId)> {
        let whole = self.replicas.with_trust(Trust::Serving);
        let whole = whole
            .difference(&self.replicas.damaged(None))
            .intersection(shards);
        let mut inheritable = Vec::new();
        for (peer, map) in self.positions.peers() {
            for (part, reached) in map.within(&whole) {
                let Some(reached) = reached.filter(|reached| reached.taken_at <= covers) else {
                    continue;
                };
                inheritable.push((peer, part, reached.position, reached.lineage));
            }
        }
        inheritable
    }

    pub(crate) fn on_exported(
        &mut self,
        step: &mut Step<'_>,
        export: ExportId,
        cursor: u64,
        items: Vec<ExportedItems>,
        next: Option<u64>,
    ) {
        let Some(open) = self.exports.open.get(&export) else {
            return;
        };
        let (receiver, session) = (open.receiver, open.session);
        let chunk = CopyAnswerStep::Chunk {
            cursor,
            items,
            next,
        };
        let message = Message::CopyAnswer {
            session,
            step: chunk,
        };
        self.reply(step, &receiver, message);
    }

    pub(crate) fn on_export_failed(&mut self, step: &mut Step<'_>, export: ExportId) {
        if let Some(open) = self.exports.open.remove(&export) {
            self.refuse_copy(step, &open.receiver, open.session);
        }
    }

    fn close_export(&mut self, step: &mut Step<'_>, export: ExportId) {
        if self.exports.open.remove(&export).is_some() {
            step.out.push(Action::CloseExport { export });
            self.trim(step);
        }
    }

    /// When a tick has something to do for exports.
    pub(crate) fn exports_due(&self) -> Option<Duration> {
        let heard = self.exports.open.values().map(|export| export.heard_at);
        heard.min().map(|at| at + self.settings.export_idle)
    }

    pub(crate) fn tick_exports(&mut self, step: &mut Step<'_>) {
        let idle = self.settings.export_idle;
        let overdue: Vec<ExportId> = self
            .exports
            .open
            .iter()
            .filter(|(_, export)| step.now >= export.heard_at + idle)
            .map(|(id, _)| *id)
            .collect();
        for export in overdue {
            self.close_export(step, export);
        }
    }
}
