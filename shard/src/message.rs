//! What nodes say to each other about shards.
//!
//! Messages are one-way. They may be lost, repeated, delayed and reordered: every answer names what it
//! answers, nobody waits without a deadline, and asking again is always harmless. A message travels in an
//! [`Envelope`]; one that is not meant for this run of this node in this cluster is refused (addresses get
//! swapped at restarts).

use crate::{ImportNote, Offset, Parcel, Position, ShardError, envelope};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use trefoil_model::{
    ClusterId, ConfigurationNumber, Incarnation, LineageId, NodeId, RequestSequence, ShardEntry,
    ShardSet, TimeRange, Window,
};

/// The format version of a message.
pub const MESSAGE_VERSION: u8 = 1;

/// Who says something to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The cluster of both.
    pub cluster: ClusterId,
    /// The sender.
    pub from: NodeId,
    /// The sender's run.
    pub from_incarnation: Incarnation,
    /// The node that is meant.
    pub to: NodeId,
    /// The run that is meant.
    pub to_incarnation: Incarnation,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A coordinator gives parcels to an owner.
    Push(Push),
    /// The owner's answer.
    PushAck(PushAck),
    /// "I have your journal up to here. What is behind it?"
    BarrierAsk(BarrierAsk),
    /// The answer.
    BarrierAnswer(BarrierAnswer),
    /// Asks for parcels that a barrier listed.
    Fetch {
        /// Named in the answer.
        id: u64,
        /// The ends of the records, as listed; ascending, at most [`FETCH_RECORDS_MAX`].
        ends: Vec<Offset>,
    },
    /// The parcels, each with the end of its record and the batches of it that count at the sender. A bounded
    /// number of bytes: what is missing is asked for again.
    FetchAnswer {
        /// The id of the request.
        id: u64,
        /// The records, ascending by end.
        records: Vec<FetchedParcel>,
    },
    /// Rows of the placement table that the receiver seems not to know.
    Configurations {
        /// Shards with equal rows together.
        entries: Vec<(ShardSet, ShardEntry)>,
    },
    /// Asks for the sender's rows where they are newer than these numbers.
    ConfigurationsAsk {
        /// Shards with equal numbers together.
        numbers: Vec<(ShardSet, ConfigurationNumber)>,
    },
    /// A receiver of a copy speaks to its source.
    CopyAsk {
        /// The receiver's number of the copy.
        session: u64,
        /// What it wants.
        step: CopyAskStep,
    },
    /// The source's answer.
    CopyAnswer {
        /// The receiver's number of the copy.
        session: u64,
        /// What it gives.
        step: CopyAnswerStep,
    },
    /// A former owner asks whether an owner follows these numbers durably, before it drops its replicas.
    ConfirmAsk {
        /// Shards with equal numbers together.
        numbers: Vec<(ShardSet, ConfigurationNumber)>,
    },
    /// The shards of which the sender follows the number that was asked for, or a higher one, durably.
    ConfirmAnswer {
        /// Shards with equal numbers together; the numbers are those that the sender follows.
        numbers: Vec<(ShardSet, ConfigurationNumber)>,
    },
    /// Asks for the digests of a window.
    DigestAsk {
        /// The shards.
        shards: ShardSet,
        /// The window.
        window: Window,
    },
    /// The digests, of those of the shards that the sender trusts in that window.
    DigestAnswer {
        /// The window.
        window: Window,
        /// What the digests were taken of.
        digests: Vec<ShardDigest>,
    },
}

/// Most records that one [`Message::Fetch`] names.
pub const FETCH_RECORDS_MAX: usize = 512;

/// Parcels for an owner: all batches of one request that it owns, or those that it still has to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Push {
    /// The coordinator's number of this push, named in the answer.
    pub id: u64,
    /// The coordinator's configuration numbers of all shards in the masks.
    pub numbers: Vec<(ShardSet, ConfigurationNumber)>,
    /// The parcels, each with a mask: only these of its batches are meant. Disjoint masks.
    pub parcels: Vec<(ShardSet, Parcel)>,
}

/// What became of a push.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushAck {
    /// The push.
    pub id: u64,
    /// What became of it.
    pub outcome: PushOutcome,
}

/// What became of a push: all of it, or nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PushOutcome {
    /// Every batch is in the owner's journal, durably, under exactly the numbers of the push.
    Held,
    /// The owner follows lower numbers for these shards: teach it ([`Message::Configurations`]), push again.
    Unlearnt(ShardSet),
    /// The owner follows higher numbers for these shards and sent them along: learn, route again.
    Superseded(ShardSet),
    /// The owner has to learn a deletion first. Push again after a while.
    DeletionUnknown,
    /// The owner takes nothing for these shards at present (amnesia that is not recorded yet, or its
    /// journal is full). Push again after a while.
    NotStoring,
    /// The number is below those that the owner remembers. Pushing again does not help.
    BelowKept,
    /// The request is older than a deletion that the owner has applied to everything it stores. Pushing again does not
    /// help; a new request carries a newer version.
    Outdated,
}

/// What the asker of a barrier knows of the answerer's journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BarrierAsk {
    /// Named in the answer.
    pub id: u64,
    /// Shards with equal numbers and positions together. All shards that both own, as the asker knows.
    pub groups: Vec<AskGroup>,
    /// The asker has the answerer's journal up to here *durably noted*, in all shards that it shares; it will
    /// not ask for anything before, even after a crash. None if it has no position in some shard.
    pub kept: Option<Offset>,
}

/// A group of shards in a [`BarrierAsk`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskGroup {
    /// The shards.
    pub shards: ShardSet,
    /// The asker's configuration number of them.
    pub number: ConfigurationNumber,
    /// The asker's position, with the lineage of the answerer's replicas when it was taken. None: it has none.
    pub position: Option<(Position, LineageId)>,
}

/// The answer to a barrier. Everything in it was durable at the answerer when it was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BarrierAnswer {
    /// The barrier.
    pub id: u64,
    /// The shards of which both follow the same number. Whatever follows is about these only.
    pub agreed: ShardSet,
    /// The shards of which the asker follows a higher number than the answerer: teach it.
    pub unlearnt: ShardSet,
    /// Of the agreed: replicas that are `Serving`.
    pub serving: ShardSet,
    /// Of the agreed: replicas that are `Joining`.
    pub joining: ShardSet,
    /// Of the serving: what they lost and do not have back yet.
    pub damaged: Vec<(ShardSet, TimeRange)>,
    /// Of the agreed: the asker has no usable position. It must copy the answerer's replica.
    pub copy: ShardSet,
    /// The end of the answerer's journal.
    pub end: Offset,
    /// The list reaches to here: to `end`, or less if it would have become too long.
    pub listed_to: Offset,
    /// The parcels between the asker's positions and `listed_to` that have batches of the agreed shards
    /// without `copy`; ascending by end.
    pub listed: Vec<ListedParcel>,
    /// The highest position in the asker's journal that the answerer has noted.
    pub seen: Option<Position>,
}

/// A parcel in the answer to a barrier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedParcel {
    /// The end of its record.
    pub end: Offset,
    /// Its request's coordinator.
    pub incarnation: Incarnation,
    /// Its request's number there.
    pub sequence: RequestSequence,
    /// Those of its accepted batches that were asked for.
    pub shards: ShardSet,
    /// Where it was copied from, if it was.
    pub import: Option<ImportNote>,
    /// Where its record was fetched from, if it was.
    pub fetched: Option<ImportNote>,
}

/// A parcel in the answer to a fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedParcel {
    /// The end of its record.
    pub end: Offset,
    /// The batches of it that count at the sender.
    pub accepted: ShardSet,
    /// The parcel.
    pub parcel: Parcel,
}

/// What the receiver of a copy wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CopyAskStep {
    /// Begin: pin a view of these replicas.
    Open {
        /// Shards with equal numbers together; the source must follow these numbers durably.
        numbers: Vec<(ShardSet, ConfigurationNumber)>,
        /// Only items in this range; none: all.
        range: Option<TimeRange>,
    },
    /// Give the chunk at this cursor, 0 first. Asking again gives the same items.
    Next {
        /// Where the chunk begins.
        cursor: u64,
    },
    /// The copy is done or given up: unpin.
    Close,
}

/// What the source of a copy gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CopyAnswerStep {
    /// The view is pinned.
    Opened {
        /// All of the source's journal up to here is in the view.
        covered: Position,
        /// The source's own positions in third owners' journals that the view contains as well, with the
        /// lineage of the third owners' replicas.
        inherited: Vec<(NodeId, ShardSet, Position, LineageId)>,
    },
    /// One chunk of the view.
    Chunk {
        /// The cursor that was asked for.
        cursor: u64,
        /// The items, as parcels that the receiver numbers itself.
        items: Vec<ExportedItems>,
        /// The cursor of the next chunk; none: this was the last.
        next: Option<u64>,
    },
    /// The source does not know the session (any more) or cannot give a copy now. Begin again later.
    Refused,
}

/// A piece of a copied view: what becomes one parcel at the receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportedItems {
    /// Whose items.
    pub tenant: trefoil_model::TenantId,
    /// What kind of items.
    pub signal: trefoil_model::Signal,
    /// The deletions that are *applied* to these items: never more than the source knew.
    pub deletion: trefoil_model::DeletionVersion,
    /// The shards of which the body has a batch. Not empty.
    pub shards: ShardSet,
    /// The engine's bytes: the body of a parcel.
    pub body: Bytes,
}

/// The digest of one shard in one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardDigest {
    /// The shard.
    pub shard: trefoil_model::ShardId,
    /// Equal for equal content: keyed sums over merged, de-duplicated items.
    pub digest: u128,
    /// Deletions and retention cut-offs that are applied, hashed together: digests compare only when equal.
    pub epoch: u64,
}

/// The meta of a message's envelope; parcels follow as the tail, one behind the other.
#[derive(Serialize, Deserialize)]
enum MessageMeta {
    Push(
        u64,
        Vec<(ShardSet, ConfigurationNumber)>,
        Vec<(ShardSet, u32)>,
    ),
    PushAck(PushAck),
    BarrierAsk(BarrierAsk),
    BarrierAnswer(BarrierAnswer),
    Fetch(u64, Vec<Offset>),
    FetchAnswer(u64, Vec<(Offset, ShardSet, u32)>),
    Configurations(Vec<(ShardSet, ShardEntry)>),
    ConfigurationsAsk(Vec<(ShardSet, ConfigurationNumber)>),
    CopyAsk(u64, CopyAskStep),
    CopyOpened(u64, Position, Vec<(NodeId, ShardSet, Position, LineageId)>),
    CopyChunk(u64, u64, Option<u64>, Vec<ExportedMeta>),
    CopyRefused(u64),
    ConfirmAsk(Vec<(ShardSet, ConfigurationNumber)>),
    ConfirmAnswer(Vec<(ShardSet, ConfigurationNumber)>),
    DigestAsk(ShardSet, Window),
    DigestAnswer(Window, Vec<ShardDigest>),
}

/// All of an [`ExportedItems`] but its body, whose length stands at the end.
type ExportedMeta = (
    trefoil_model::TenantId,
    trefoil_model::Signal,
    trefoil_model::DeletionVersion,
    ShardSet,
    u32,
);

/// Appends the bytes of a message in its envelope. Parcels are copied as they are.
pub fn encode_message(envelope: &Envelope, message: &Message, out: &mut Vec<u8>) {
    let mut tail = Vec::new();
    let meta = message_meta(message, &mut tail);
    envelope::seal(MESSAGE_VERSION, &(envelope, meta), &tail, out);
}

fn message_meta(message: &Message, tail: &mut Vec<Bytes>) -> MessageMeta {
    match message.clone() {
        Message::Push(push) => {
            let mut parcels = Vec::with_capacity(push.parcels.len());
            for (mask, parcel) in push.parcels {
                tail.extend(parcel.pieces());
                parcels.push((mask, parcel.len_bytes() as u32));
            }
            MessageMeta::Push(push.id, push.numbers, parcels)
        }
        Message::PushAck(ack) => MessageMeta::PushAck(ack),
        Message::BarrierAsk(ask) => MessageMeta::BarrierAsk(ask),
        Message::BarrierAnswer(answer) => MessageMeta::BarrierAnswer(answer),
        Message::Fetch { id, ends } => MessageMeta::Fetch(id, ends),
        Message::FetchAnswer { id, records } => {
            let mut metas = Vec::with_capacity(records.len());
            for record in records {
                tail.extend(record.parcel.pieces());
                metas.push((
                    record.end,
                    record.accepted,
                    record.parcel.len_bytes() as u32,
                ));
            }
            MessageMeta::FetchAnswer(id, metas)
        }
        Message::Configurations { entries } => MessageMeta::Configurations(entries),
        Message::ConfigurationsAsk { numbers } => MessageMeta::ConfigurationsAsk(numbers),
        Message::CopyAsk { session, step } => MessageMeta::CopyAsk(session, step),
        Message::CopyAnswer { session, step } => match step {
            CopyAnswerStep::Opened { covered, inherited } => {
                MessageMeta::CopyOpened(session, covered, inherited)
            }
            CopyAnswerStep::Refused => MessageMeta::CopyRefused(session),
            CopyAnswerStep::Chunk {
                cursor,
                items,
                next,
            } => {
                let mut metas = Vec::with_capacity(items.len());
                for item in items {
                    let length = item.body.len() as u32;
                    metas.push((item.tenant, item.signal, item.deletion, item.shards, length));
                    tail.push(item.body);
                }
                MessageMeta::CopyChunk(session, cursor, next, metas)
            }
        },
        Message::ConfirmAsk { numbers } => MessageMeta::ConfirmAsk(numbers),
        Message::ConfirmAnswer { numbers } => MessageMeta::ConfirmAnswer(numbers),
        Message::DigestAsk { shards, window } => MessageMeta::DigestAsk(shards, window),
        Message::DigestAnswer { window, digests } => MessageMeta::DigestAnswer(window, digests),
    }
}

/// Checks the bytes of a message; parcels in it become slices of them.
///
/// # Errors
/// When the version is unknown, a length is impossible or a checksum differs.
pub fn decode_message(bytes: &Bytes) -> Result<(Envelope, Message), ShardError> {
    let ((envelope, meta), mut tail): ((Envelope, MessageMeta), Bytes) =
        envelope::open("message", MESSAGE_VERSION, bytes)?;
    let message = match meta {
        MessageMeta::Push(id, numbers, metas) => {
            let mut parcels = Vec::with_capacity(metas.len());
            for (mask, length) in metas {
                parcels.push((mask, Parcel::decode(&cut(&mut tail, length)?)?));
            }
            Message::Push(Push {
                id,
                numbers,
                parcels,
            })
        }
        MessageMeta::PushAck(ack) => Message::PushAck(ack),
        MessageMeta::BarrierAsk(ask) => Message::BarrierAsk(ask),
        MessageMeta::BarrierAnswer(answer) => Message::BarrierAnswer(answer),
        MessageMeta::Fetch(id, ends) => Message::Fetch { id, ends },
        MessageMeta::FetchAnswer(id, metas) => {
            let mut records = Vec::with_capacity(metas.len());
            for (end, accepted, length) in metas {
                let parcel = Parcel::decode(&cut(&mut tail, length)?)?;
                records.push(FetchedParcel {
                    end,
                    accepted,
                    parcel,
                });
            }
            Message::FetchAnswer { id, records }
        }
        MessageMeta::Configurations(entries) => Message::Configurations { entries },
        MessageMeta::ConfigurationsAsk(numbers) => Message::ConfigurationsAsk { numbers },
        MessageMeta::CopyAsk(session, step) => Message::CopyAsk { session, step },
        MessageMeta::CopyOpened(session, covered, inherited) => Message::CopyAnswer {
            session,
            step: CopyAnswerStep::Opened { covered, inherited },
        },
        MessageMeta::CopyRefused(session) => Message::CopyAnswer {
            session,
            step: CopyAnswerStep::Refused,
        },
        MessageMeta::CopyChunk(session, cursor, next, metas) => {
            let items = exported(metas, &mut tail)?;
            let step = CopyAnswerStep::Chunk {
                cursor,
                items,
                next,
            };
            Message::CopyAnswer { session, step }
        }
        MessageMeta::ConfirmAsk(numbers) => Message::ConfirmAsk { numbers },
        MessageMeta::ConfirmAnswer(numbers) => Message::ConfirmAnswer { numbers },
        MessageMeta::DigestAsk(shards, window) => Message::DigestAsk { shards, window },
        MessageMeta::DigestAnswer(window, digests) => Message::DigestAnswer { window, digests },
    };
    if !tail.is_empty() {
        return Err(malformed("bytes are left over"));
    }
    Ok((envelope, message))
}

fn exported(metas: Vec<ExportedMeta>, tail: &mut Bytes) -> Result<Vec<ExportedItems>, ShardError> {
    let mut items = Vec::with_capacity(metas.len());
    for (tenant, signal, deletion, shards, length) in metas {
        items.push(ExportedItems {
            tenant,
            signal,
            deletion,
            shards,
            body: cut(tail, length)?,
        });
    }
    Ok(items)
}

fn cut(tail: &mut Bytes, length: u32) -> Result<Bytes, ShardError> {
    if length as usize > tail.len() {
        return Err(malformed("a parcel is longer than the bytes"));
    }
    Ok(tail.split_to(length as usize))
}

fn malformed(why: &str) -> ShardError {
    ShardError::Malformed {
        what: "message",
        why: why.to_owned(),
    }
}
