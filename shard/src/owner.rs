//! The owner's side of a write: take a push, journal it, acknowledge it when it is durable.

use crate::{
    Envelope, ImportNote, Message, Offset, Parcel, Push, PushAck, PushOutcome, Record, Replication,
    replication::Step,
};
use std::collections::BTreeMap;
use trefoil_model::{ConfigurationNumber, ShardSet};

/// Acknowledgements that wait for the journal, by what has to be durable.
#[derive(Debug, Default)]
pub(crate) struct Acknowledgements {
    waiting: BTreeMap<Offset, Vec<Pending>>,
}

#[derive(Debug)]
enum Pending {
    /// To a coordinator elsewhere.
    Peer(Envelope, u64),
    /// To the coordinator here, by its push.
    Here(u64),
}

/// Parcels with their masks, as a push brings them.
type Masked<'a> = &'a [(ShardSet, Parcel)];

impl Replication {
    pub(crate) fn on_push(&mut self, step: &mut Step<'_>, envelope: Envelope, push: Push) {
        let id = push.id;
        let numbers = push.numbers.iter().map(|(set, number)| (set, *number));
        match self.take(step, numbers, &push.parcels) {
            Ok(at) if self.faults.acknowledge_before_fsync || at <= self.journal.durable => {
                let outcome = PushOutcome::Held;
                self.reply(step, &envelope, Message::PushAck(PushAck { id, outcome }));
            }
            Ok(at) => self.wait_for(at, Pending::Peer(envelope, id)),
            Err(outcome) => {
                if let PushOutcome::Superseded(shards) = &outcome {
                    let entries = self.rows.entries(shards);
                    self.reply(step, &envelope, Message::Configurations { entries });
                }
                self.reply(step, &envelope, Message::PushAck(PushAck { id, outcome }));
            }
        }
    }

    /// Takes a push of the coordinator here.
    pub(crate) fn push_here(&mut self, step: &mut Step<'_>, id: u64, parcels: Masked<'_>) {
        if let Ok(at) = self.take(step, std::iter::empty(), parcels) {
            self.wait_for(at, Pending::Here(id));
        }
    }

    fn wait_for(&mut self, at: Offset, pending: Pending) {
        let waiting = self.acknowledgements.waiting.entry(at).or_default();
        waiting.push(pending);
    }

    /// Journals what is lacking of a push. Says what has to be durable before it is held, or why nothing
    /// of it was taken.
    fn take<'a>(
        &mut self,
        step: &mut Step<'_>,
        numbers: impl Iterator<Item = (&'a ShardSet, ConfigurationNumber)>,
        parcels: Masked<'_>,
    ) -> Result<Offset, PushOutcome> {
        let compared = self.rows.compare(numbers);
        if !compared.lower_here.is_empty() {
            return Err(PushOutcome::Unlearnt(compared.lower_here));
        }
        if !compared.higher_here.is_empty() && !self.faults.stale_push_taken {
            return Err(PushOutcome::Superseded(compared.higher_here));
        }
        let owned = self.rows.owned_by(self.me.node);
        let storable = match self.faults.amnesia_unrecorded {
            true => owned,
            false => owned.difference(&self.replicas.unrecorded(&self.rows)),
        };
        let unheard = &self.forgetting.unheard;
        for (mask, parcel) in parcels {
            let header = parcel.header();
            if !mask.is_subset(&storable) && !self.faults.stale_push_taken {
                return Err(PushOutcome::NotStoring);
            }
            if !mask.intersection(unheard).is_empty() {
                step.out.push(crate::Action::RefreshMetadata);
                return Err(PushOutcome::NotStoring);
            }
            if self.presupposes_more(step, parcel) {
                return Err(PushOutcome::DeletionUnknown);
            }
            if self.is_closed_for(header.tenant, header.deletion) {
                return Err(PushOutcome::Outdated);
            }
            if self.held.is_below_kept(header.number) {
                return Err(PushOutcome::BelowKept);
            }
        }
        let mut at = self.journal.gate;
        for (mask, parcel) in parcels {
            at = at.max(self.hold(step, mask, parcel.clone(), None));
        }
        Ok(at)
    }

    /// Whether the parcel presupposes a deletion that is not known here; then the metadata is brought up to
    /// date. Storing it now would give a block a deletion version whose deletions it has not applied.
    pub(crate) fn presupposes_more(&self, step: &mut Step<'_>, parcel: &Parcel) -> bool {
        let header = parcel.header();
        let more = header.deletion > self.known_deletion(header.tenant);
        if more && !self.faults.deletion_not_learnt {
            step.out.push(crate::Action::RefreshMetadata);
            return true;
        }
        false
    }

    /// Journals those of the batches that were not seen before. Says what has to be durable before all of
    /// `shards` are held.
    pub(crate) fn hold(
        &mut self,
        step: &mut Step<'_>,
        shards: &ShardSet,
        parcel: Parcel,
        fetched: Option<ImportNote>,
    ) -> Offset {
        let header = parcel.header();
        let (number, import) = (header.number, header.import);
        let (tenant, deletion) = (header.tenant, header.deletion);
        let accepted = self.held.lacking(number, shards);
        let mut at = self.held.durable_at(number);
        if !accepted.is_empty() {
            let record = Record::Parcel {
                accepted: accepted.clone(),
                parcel,
                fetched,
            };
            let span = self.append(step, record);
            self.journal
                .note_parcel(span, number, &accepted, import, fetched);
            self.journal.note_version(span, tenant, deletion);
            self.held.insert(number, &accepted, span.end);
            // A number below the kept range is journalled, but not remembered.
            at = match self.faults.forgotten_is_durable {
                true => self.held.durable_at(number),
                false => span.end,
            };
        }
        match self.faults.seen_is_held && accepted.is_empty() {
            true => Offset(0),
            false => at,
        }
    }

    /// Sends the acknowledgements whose records are durable.
    pub(crate) fn acknowledge(&mut self, step: &mut Step<'_>) {
        while let Some(first) = self.acknowledgements.waiting.first_entry() {
            if *first.key() > self.journal.durable {
                return;
            }
            for pending in first.remove() {
                match pending {
                    Pending::Peer(envelope, id) => {
                        let outcome = PushOutcome::Held;
                        self.reply(step, &envelope, Message::PushAck(PushAck { id, outcome }));
                    }
                    Pending::Here(id) => self.on_held(step, self.me.node, id),
                }
            }
        }
    }
}
