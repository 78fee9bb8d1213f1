//! One value of every kind, with different numbers in every field.

use bytes::Bytes;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use trefoil_model::{
    ClusterId, Configuration, ConfigurationNumber, DeletionVersion, Incarnation, LineageId, NodeId,
    OwnerRecord, PlacementTable, RequestSequence, ShardEntry, ShardId, ShardSet, Signal, TenantId,
    TimeRange, Window,
};
use trefoil_shard::{
    AskGroup, BarrierAnswer, BarrierAsk, CopyAnswerStep, CopyAskStep, Envelope, Event,
    ExportedItems, Faults, FetchedParcel, Identity, ImportNote, JournalPort, ListedParcel, Loss,
    Message, Offset, Parcel, ParcelHeader, Position, Push, PushAck, PushOutcome, Record,
    RecoveredJournal, Recovery, Replication, RequestNumber, Settings, ShardDigest, Span, Trust,
    TrustRecord,
};

pub(crate) const NODE: NodeId = NodeId(2);
const RANGE: TimeRange = TimeRange {
    start: -7_200_000,
    end: 0,
};

fn shards(shards: &[u16]) -> ShardSet {
    shards.iter().map(|shard| ShardId(*shard)).collect()
}

fn position(incarnation: u128, offset: u64) -> Position {
    Position {
        incarnation: Incarnation(incarnation),
        offset: Offset(offset),
    }
}

fn note() -> ImportNote {
    ImportNote {
        source: NodeId(3),
        covered: position(0x33, 300),
    }
}

fn parcel() -> Parcel {
    let header = ParcelHeader {
        tenant: TenantId(1),
        signal: Signal::Metrics,
        number: RequestNumber {
            incarnation: Incarnation(0x11),
            sequence: RequestSequence(12),
        },
        deletion: DeletionVersion(2),
        shards: shards(&[0, 1]),
        import: None,
    };
    Parcel::new(header, Bytes::from_static(b"items"))
}

/// A joint configuration: nodes 1 and 2 own, 2 and 4 will.
fn row() -> ShardEntry {
    let record = |lineage, counts_from, born_serving| OwnerRecord {
        lineage: LineageId(lineage),
        counts_from: ConfigurationNumber(counts_from),
        born_serving,
    };
    ShardEntry {
        configuration: Configuration {
            number: ConfigurationNumber(7),
            old: [NodeId(1), NODE].into_iter().collect(),
            new: [NODE, NodeId(4)].into_iter().collect(),
        },
        owners: BTreeMap::from([
            (NodeId(1), record(0xa1, 1, true)),
            (NODE, record(0xa2, 1, true)),
            (NodeId(4), record(0xa4, 7, false)),
        ]),
    }
}

fn numbers() -> Vec<(ShardSet, ConfigurationNumber)> {
    vec![
        (shards(&[0]), ConfigurationNumber(7)),
        (shards(&[1, 64]), ConfigurationNumber(300)),
    ]
}

/// A record of every kind.
pub(crate) fn records() -> Vec<(&'static str, Record)> {
    let lineage = LineageId(0xbb);
    let set = |trust, gap| TrustRecord::Set {
        shards: shards(&[0, 1]),
        trust,
        gap,
    };
    vec![
        (
            "start",
            Record::Start {
                incarnation: Incarnation(0x22),
                lineage: LineageId(0xa2),
            },
        ),
        (
            "parcel",
            Record::Parcel {
                accepted: shards(&[1]),
                parcel: parcel(),
                fetched: None,
            },
        ),
        (
            "parcel-fetched",
            Record::Parcel {
                accepted: shards(&[0, 1]),
                parcel: parcel(),
                fetched: Some(note()),
            },
        ),
        (
            "adopt",
            Record::Adopt {
                entries: vec![(shards(&[0, 1]), row())],
            },
        ),
        (
            "positions",
            Record::Positions {
                peer: NodeId(1),
                groups: vec![(shards(&[0, 1]), position(0x44, 400), LineageId(0xa1))],
            },
        ),
        ("trust-serving", Record::Trust(set(Trust::Serving, true))),
        ("trust-joining", Record::Trust(set(Trust::Joining, false))),
        ("trust-amnesiac", Record::Trust(set(Trust::Amnesiac, false))),
        (
            "trust-forget",
            Record::Trust(TrustRecord::Forget {
                shards: shards(&[0, 1]),
                lineage,
            }),
        ),
        (
            "trust-damage",
            Record::Trust(TrustRecord::Damage {
                shards: shards(&[1]),
                range: RANGE,
                lineage,
            }),
        ),
        (
            "trust-repaired",
            Record::Trust(TrustRecord::Repaired {
                shards: shards(&[1]),
                range: RANGE,
            }),
        ),
        (
            "deletions",
            Record::Deletions {
                versions: vec![(TenantId(1), DeletionVersion(2))],
            },
        ),
        (
            "drop",
            Record::Drop {
                shards: shards(&[0, 2]),
            },
        ),
    ]
}

pub(crate) fn envelope() -> Envelope {
    Envelope {
        cluster: ClusterId(0xcc),
        from: NodeId(1),
        from_incarnation: Incarnation(0x11),
        to: NODE,
        to_incarnation: Incarnation(0x22),
    }
}

/// A message of every kind.
pub(crate) fn messages() -> Vec<(&'static str, Message)> {
    let mut all = push_messages();
    all.extend(barrier_messages());
    all.extend(copy_messages());
    all.extend([
        (
            "configurations",
            Message::Configurations {
                entries: vec![(shards(&[0, 1]), row())],
            },
        ),
        (
            "configurations-wanted",
            Message::ConfigurationsAsk { numbers: numbers() },
        ),
        (
            "confirmation-wanted",
            Message::ConfirmAsk { numbers: numbers() },
        ),
        (
            "confirmation",
            Message::ConfirmAnswer { numbers: numbers() },
        ),
        (
            "digests-wanted",
            Message::DigestAsk {
                shards: shards(&[0, 1]),
                window: Window::containing(RANGE.start),
            },
        ),
        (
            "digests",
            Message::DigestAnswer {
                window: Window::containing(RANGE.start),
                digests: vec![ShardDigest {
                    shard: ShardId(1),
                    digest: 0xd1,
                    epoch: 5,
                }],
            },
        ),
    ]);
    all
}

fn push_messages() -> Vec<(&'static str, Message)> {
    let outcome = |outcome| Message::PushAck(PushAck { id: 9, outcome });
    vec![
        (
            "push",
            Message::Push(Push {
                id: 9,
                numbers: numbers(),
                parcels: vec![(shards(&[0]), parcel()), (shards(&[1]), parcel())],
            }),
        ),
        ("push-held", outcome(PushOutcome::Held)),
        (
            "push-unlearnt",
            outcome(PushOutcome::Unlearnt(shards(&[0]))),
        ),
        (
            "push-superseded",
            outcome(PushOutcome::Superseded(shards(&[1]))),
        ),
        (
            "push-deletion-unknown",
            outcome(PushOutcome::DeletionUnknown),
        ),
        ("push-not-storing", outcome(PushOutcome::NotStoring)),
        ("push-below-kept", outcome(PushOutcome::BelowKept)),
        ("push-outdated", outcome(PushOutcome::Outdated)),
    ]
}

fn barrier_messages() -> Vec<(&'static str, Message)> {
    let group = |shard, position| AskGroup {
        shards: shards(&[shard]),
        number: ConfigurationNumber(7),
        position,
    };
    vec![
        (
            "barrier",
            Message::BarrierAsk(BarrierAsk {
                id: 10,
                groups: vec![
                    group(0, None),
                    group(1, Some((position(0x22, 200), LineageId(0xa2)))),
                ],
                kept: Some(Offset(190)),
            }),
        ),
        (
            "barrier-answer",
            Message::BarrierAnswer(BarrierAnswer {
                id: 10,
                agreed: shards(&[0, 1, 2, 3]),
                unlearnt: shards(&[4]),
                serving: shards(&[0]),
                joining: shards(&[1]),
                damaged: vec![(shards(&[2]), RANGE)],
                copy: shards(&[3]),
                end: Offset(500),
                listed_to: Offset(450),
                listed: vec![ListedParcel {
                    end: Offset(440),
                    incarnation: Incarnation(0x11),
                    sequence: RequestSequence(12),
                    shards: shards(&[0, 1]),
                    import: Some(note()),
                    fetched: None,
                }],
                seen: Some(position(0x11, 100)),
            }),
        ),
        (
            "fetch",
            Message::Fetch {
                id: 10,
                ends: vec![Offset(440), Offset(450)],
            },
        ),
        (
            "fetch-answer",
            Message::FetchAnswer {
                id: 10,
                records: vec![FetchedParcel {
                    end: Offset(440),
                    accepted: shards(&[1]),
                    parcel: parcel(),
                }],
            },
        ),
    ]
}

fn copy_messages() -> Vec<(&'static str, Message)> {
    let ask = |step| Message::CopyAsk { session: 8, step };
    let answer = |step| Message::CopyAnswer { session: 8, step };
    let (numbers, range) = (numbers(), Some(RANGE));
    let items = ExportedItems {
        tenant: TenantId(1),
        signal: Signal::Metrics,
        deletion: DeletionVersion(2),
        shards: shards(&[0]),
        body: Bytes::from_static(b"items"),
    };
    vec![
        ("copy-open", ask(CopyAskStep::Open { numbers, range })),
        ("copy-next", ask(CopyAskStep::Next { cursor: 6 })),
        ("copy-close", ask(CopyAskStep::Close)),
        (
            "copy-opened",
            answer(CopyAnswerStep::Opened {
                covered: position(0x22, 200),
                inherited: vec![(
                    NodeId(1),
                    shards(&[0]),
                    position(0x11, 100),
                    LineageId(0xa1),
                )],
            }),
        ),
        (
            "copy-chunk",
            answer(CopyAnswerStep::Chunk {
                cursor: 6,
                items: vec![items],
                next: Some(7),
            }),
        ),
        ("copy-refused", answer(CopyAnswerStep::Refused)),
    ]
}

/// A journal that forgets what it is given.
struct Sink(u64);

impl JournalPort for Sink {
    fn append(&mut self, _: Record) -> Span {
        let start = Offset(self.0);
        self.0 += 10;
        Span {
            start,
            end: Offset(self.0),
        }
    }
}

/// A core that has replayed records of every kind, and so has something in every field of its checkpoint.
pub(crate) fn checkpointed() -> Replication {
    let (settings, faults) = (Settings::default(), Faults::default());
    let mut recovery = Recovery::new(settings, faults, NODE, None).expect("nothing is read");
    let mut journal = Sink(0);
    let wanted = ["start", "adopt", "positions", "trust-damage", "deletions"];
    for (name, record) in records() {
        if wanted.contains(&name) {
            let span = journal.append(record.clone());
            recovery.replay(span, &record);
        }
    }
    let identity = Identity {
        cluster: ClusterId(0xcc),
        node: NODE,
        incarnation: Incarnation(0x23),
    };
    let end = Offset(journal.0);
    let found = RecoveredJournal {
        floor: Offset(0),
        end,
        flushed: Offset(0),
    };
    let (now, mut out) = (Duration::ZERO, Vec::new());
    let mut core = recovery.finish(now, identity, found, Loss::None, &mut journal, &mut out);
    let event = Event::Metadata {
        table: Arc::new(PlacementTable { shards: Vec::new() }),
        deletions: Arc::new(BTreeMap::from([(TenantId(1), DeletionVersion(2))])),
    };
    core.step(now, event, &mut journal, &mut out);
    core
}
