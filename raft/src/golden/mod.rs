//! Golden bytes of everything that this crate writes to disk or sends (docs/formats/raft.md). A
//! difference means that nodes of two versions would misread each other: raise the format, do not
//! change the expectation.

mod replies;

use crate::codec::{self, Kind};
use crate::engine::{Batch, Entry, LogId, SnapshotMeta, StoredMembership, Vote};
use crate::formation::{Founding, Report, Standing};
use crate::log::Record;
use crate::machine;
use crate::plane::wire::{
    Header, JoinAnswer, JoinRequest, LeaderAnswer, ProposeAnswer, SnapshotAnswer, SnapshotChunk,
};
use crate::state::{
    Addresses, Change, Command, Condition, ConfigurationChange, LogPosition, MemberDescription,
    MovementOutcome, Proposal, Reply, State,
};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};
use openraft::{CommittedLeaderId, EntryPayload, Membership};
use serde::Serialize;
use std::collections::BTreeSet;
use trefoil_model::{
    ClusterId, ConfigurationNumber, DeletionVersion, Incarnation, LineageId, NodeId, OwnerSet,
    ShardId, ShardSet, Signal, TenantId, TimeRange,
};

const EXPECTED: &str = include_str!("bytes.txt");

/// Lines of `label hex`.
#[derive(Default)]
struct Lines(Vec<String>);

impl Lines {
    fn bytes(&mut self, label: &str, bytes: &[u8]) {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        self.0.push(format!("{label} {hex}"));
    }

    fn bare<T: Serialize>(&mut self, label: &str, value: &T) {
        self.bytes(label, &codec::encode_bare(value).unwrap());
    }

    fn enveloped<T: Serialize>(&mut self, label: &str, kind: Kind, value: &T) {
        self.bytes(label, &codec::encode(kind, value).unwrap());
    }
}

#[test]
fn golden_bytes_are_what_they_were() {
    let mut lines = Lines::default();
    for command in commands() {
        let name = format!("{command:?}");
        let name = name.split([' ', '{', '(']).next().unwrap_or_default();
        lines.bare(&format!("command.{name}"), &command);
    }
    replies::of_commands(&mut lines);
    log_records(&mut lines);
    messages(&mut lines);
    snapshot(&mut lines);
    let founding = founding();
    lines.enveloped("promise", Kind::Promise, &founding);
    let actual = lines.0.join("\n") + "\n";
    assert!(actual == EXPECTED, "the bytes are now:\n{actual}");
}

fn founding() -> Founding {
    Founding {
        cluster: ClusterId(0x0102),
        founders: vec![NodeId(1), NodeId(2), NodeId(3)],
    }
}

fn id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term, 1), index)
}

fn description() -> MemberDescription {
    MemberDescription {
        name: "n1".to_owned(),
        zone: "a".to_owned(),
        weight: 100,
        addresses: Addresses {
            peer: "h:9191".to_owned(),
            http: "h:9190".to_owned(),
        },
        version: "0.1.0".to_owned(),
        format_level_max: 1,
        lineage: LineageId(5),
    }
}

fn owners(nodes: &[u64]) -> OwnerSet {
    nodes.iter().copied().map(NodeId).collect()
}

fn proposal() -> Proposal {
    Proposal {
        client: 7,
        serial: 1,
        leader_elapsed_ms: 300,
        command: Command::CreateTenant {
            name: "t".to_owned(),
        },
    }
}

/// One of each, in the order of their numbers.
fn commands() -> Vec<Command> {
    let mut all = cluster_commands();
    all.extend(data_commands());
    all
}

fn cluster_commands() -> Vec<Command> {
    let node = NodeId(0x0102_0304_0506_0708);
    let shards: ShardSet = [ShardId(1), ShardId(64)].into_iter().collect();
    vec![
        Command::Tick,
        Command::BeginCluster {
            cluster: ClusterId(9),
        },
        Command::RaiseFormatLevel { level: 2 },
        Command::AddMember {
            node,
            description: description(),
        },
        Command::SetDraining {
            node,
            draining: true,
        },
        Command::SetWeight { node, weight: 50 },
        Command::RemoveMember { node },
        Command::CreatePlacement {
            owners: vec![owners(&[1, 2, 3])],
        },
        Command::SetConfigurations {
            changes: vec![ConfigurationChange {
                shard: ShardId(3),
                expected: ConfigurationNumber(4),
                old: owners(&[1, 2]),
                new: owners(&[2, 3]),
            }],
        },
        Command::RecordAmnesia {
            node,
            shards: Some(shards.clone()),
            lineage: LineageId(6),
        },
        Command::BeginMovement {
            reason: "join".to_owned(),
            shards,
            incoming: vec![NodeId(4)],
            outgoing: vec![NodeId(1)],
            at: -1,
        },
        Command::FinishMovement {
            movement: 8,
            outcome: MovementOutcome::Abandoned {
                reason: "r".to_owned(),
            },
            at: 1000,
        },
    ]
}

fn data_commands() -> Vec<Command> {
    let tenant = TenantId(3);
    vec![
        Command::CreateTenant {
            name: "t".to_owned(),
        },
        Command::SetLimits {
            tenant,
            limits: Some("{}".to_owned()),
        },
        Command::AdvanceRetention {
            tenant,
            signal: Signal::Metrics,
            selector: String::new(),
            before: 1000,
        },
        Command::CreateDeletion {
            tenant,
            signal: Signal::Logs,
            selector: "{a=\"b\"}".to_owned(),
            range: TimeRange { start: 0, end: 10 },
        },
        Command::ConfirmDeletions {
            node: NodeId(1),
            tenant,
            up_to: DeletionVersion(2),
        },
        Command::Write {
            conditions: vec![
                Condition::Absent {
                    key: "a".to_owned(),
                },
                Condition::Version {
                    key: "b".to_owned(),
                    version: 4,
                },
                Condition::Lease {
                    name: "l".to_owned(),
                    fencing: 5,
                },
            ],
            changes: vec![
                Change::Put {
                    key: "a".to_owned(),
                    value: vec![1, 2],
                },
                Change::Delete {
                    key: "b".to_owned(),
                },
            ],
        },
        Command::AcquireLease {
            name: "l".to_owned(),
            holder: NodeId(1),
            incarnation: Incarnation(2),
            term_ms: 10_000,
        },
        Command::ReleaseLease {
            name: "l".to_owned(),
            fencing: 5,
        },
        Command::ChangeLimits {
            tenant,
            expected: None,
            limits: Some("{}".to_owned()),
        },
    ]
}

fn entries() -> Vec<Entry> {
    let payloads = [
        EntryPayload::Blank,
        EntryPayload::Normal(Batch {
            proposals: vec![proposal()],
        }),
        EntryPayload::Membership(Membership::new(vec![BTreeSet::from([1, 2])], ())),
    ];
    let numbered = (1..).zip(payloads);
    let entry = |(index, payload)| Entry {
        log_id: id(2, index),
        payload,
    };
    numbered.map(entry).collect()
}

fn log_records(lines: &mut Lines) {
    let vote = Vote::new_committed(2, 1);
    lines.enveloped("log.vote", Kind::LogRecord, &Record::Vote(vote));
    for (entry, name) in entries().into_iter().zip(["blank", "batch", "membership"]) {
        let label = format!("log.entry.{name}");
        lines.enveloped(&label, Kind::LogRecord, &Record::Entry(entry));
    }
    lines.enveloped("log.truncate", Kind::LogRecord, &Record::TruncateFrom(7));
    lines.enveloped("log.purge", Kind::LogRecord, &Record::Purge(id(2, 7)));
    lines.enveloped(
        "log.committed",
        Kind::LogRecord,
        &Record::Committed(Some(id(2, 7))),
    );
}

fn messages(lines: &mut Lines) {
    let header = Header {
        cluster: Some(ClusterId(0x0102)),
        from: NodeId(1),
        to: NodeId(2),
    };
    let append = AppendEntriesRequest::<crate::engine::Types> {
        vote: Vote::new_committed(2, 1),
        prev_log_id: Some(id(1, 4)),
        entries: entries(),
        leader_commit: Some(id(1, 4)),
    };
    lines.enveloped("request.append", Kind::Request, &(header, append));
    let vote = VoteRequest::new(Vote::new(3, 1), Some(id(2, 7)));
    lines.enveloped("request.vote", Kind::Request, &(header, vote));
    let chunk = SnapshotChunk {
        vote: Vote::new_committed(2, 1),
        meta: meta(),
        total_bytes: 10,
        offset: 5,
        checksum: 6,
        bytes: vec![1, 2, 3],
    };
    lines.enveloped("request.snapshot", Kind::Request, &(header, chunk));
    lines.enveloped("request.propose", Kind::Request, &(header, proposal()));
    let outside = Header {
        cluster: None,
        ..header
    };
    lines.enveloped("request.hello", Kind::Request, &(outside, ()));
    lines.enveloped("request.promise", Kind::Request, &(outside, founding()));
    let join = JoinRequest {
        node: NodeId(1),
        description: description(),
    };
    lines.enveloped("request.join", Kind::Request, &(outside, join));
    answers(lines);
    replies::of_nodes(lines);
}

fn answers(lines: &mut Lines) {
    let success = AppendEntriesResponse::<u64>::Success;
    lines.enveloped("answer.append.success", Kind::Answer, &success);
    let vote = VoteResponse::new(Vote::new(3, 1), Some(id(2, 7)), true);
    lines.enveloped("answer.vote", Kind::Answer, &vote);
    let go_on = SnapshotAnswer::Continue { offset: 5 };
    lines.enveloped("answer.snapshot.continue", Kind::Answer, &go_on);
    let installed = SnapshotAnswer::Installed {
        vote: Vote::new_committed(2, 1),
    };
    lines.enveloped("answer.snapshot.installed", Kind::Answer, &installed);
    let done: ProposeAnswer = LeaderAnswer::Done(Reply::Done);
    lines.enveloped("answer.leader.done", Kind::Answer, &done);
    let elsewhere: ProposeAnswer = LeaderAnswer::NotLeader {
        leader: Some(NodeId(3)),
    };
    lines.enveloped("answer.leader.elsewhere", Kind::Answer, &elsewhere);
    let report = Report {
        standing: Standing::Promised(founding()),
        candidates: vec![NodeId(1)],
    };
    lines.enveloped("answer.report", Kind::Answer, &report);
    let joined = JoinAnswer::Joined {
        cluster: ClusterId(0x0102),
    };
    lines.enveloped("answer.joined", Kind::Answer, &joined);
}

fn meta() -> SnapshotMeta {
    SnapshotMeta {
        last_log_id: Some(id(2, 7)),
        last_membership: StoredMembership::new(
            Some(id(1, 0)),
            Membership::new(vec![BTreeSet::from([1])], ()),
        ),
        snapshot_id: "s".to_owned(),
    }
}

/// The rows of a small state, and the head of a snapshot; compressed bytes are zstd's business.
fn snapshot(lines: &mut Lines) {
    let mut state = State::default();
    let mut apply = |index, command| {
        let proposal = Proposal {
            serial: index,
            command,
            ..proposal()
        };
        state.apply(LogPosition { term: 1, index }, &proposal);
    };
    apply(
        1,
        Command::BeginCluster {
            cluster: ClusterId(1),
        },
    );
    let node = NodeId(1);
    apply(
        2,
        Command::AddMember {
            node,
            description: description(),
        },
    );
    apply(
        3,
        Command::CreatePlacement {
            owners: vec![owners(&[1])],
        },
    );
    for (index, command) in (4..).zip(data_commands()) {
        apply(index, command);
    }
    let delete = Command::CreateDeletion {
        tenant: TenantId(0),
        signal: Signal::Metrics,
        selector: "s".to_owned(),
        range: TimeRange { start: 0, end: 1 },
    };
    apply(20, delete);
    let put = Command::Write {
        conditions: Vec::new(),
        changes: vec![Change::Put {
            key: "k".to_owned(),
            value: vec![1],
        }],
    };
    apply(21, put);
    for (key, value) in machine::rows_of(&state).unwrap() {
        let section = key[0];
        lines.bytes(&format!("row.{section}.key"), &key);
        lines.bytes(&format!("row.{section}.value"), &value);
    }
    lines.enveloped(
        "snapshot.head",
        Kind::SnapshotHead,
        &machine::head_of(&meta()),
    );
}
