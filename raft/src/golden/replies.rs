//! Golden bytes of what comes back: replies and refusals of the state machine, which are in
//! snapshots too, and the answers of nodes that are not the usual ones.

use super::{Lines, founding, id};
use crate::codec::Kind;
use crate::engine::Vote;
use crate::formation::{Report, Standing};
use crate::plane::wire::{JoinAnswer, LeaderAnswer, ProposeAnswer, ReadAnswer};
use crate::state::{Refusal, Reply};
use openraft::raft::AppendEntriesResponse;
use trefoil_model::{ClusterId, ConfigurationNumber, DeletionVersion, NodeId, ShardId, TenantId};

/// One line for each reply and refusal, in the order of their numbers.
pub(super) fn of_commands(lines: &mut Lines) {
    let named = [
        ("Done", Reply::Done),
        ("Tenant", Reply::Tenant(TenantId(1))),
        ("Deletion", Reply::Deletion(DeletionVersion(2))),
        ("Retention", Reply::Retention(3)),
        ("Written", Reply::Written { version: 9 }),
        ("Lease", Reply::Lease { fencing: 9 }),
        ("Movement", Reply::Movement(4)),
    ];
    for (name, reply) in named {
        lines.bare(&format!("reply.{name}"), &reply);
    }
    for refusal in refusals() {
        let name = format!("{refusal:?}");
        let name = name.split([' ', '{']).next().unwrap_or_default();
        let label = format!("reply.Refused.{name}");
        lines.bare(&label, &Reply::Refused(refusal));
    }
}

fn refusals() -> Vec<Refusal> {
    let node = NodeId(0x0102_0304_0506_0708);
    let shard = ShardId(3);
    let text = || "r".to_owned();
    vec![
        Refusal::StaleSerial {
            serial: 1,
            newest: 2,
        },
        Refusal::OtherCluster {
            cluster: ClusterId(9),
        },
        Refusal::FormatLevel { node, level_max: 1 },
        Refusal::NotMember { node },
        Refusal::MemberRemoved { node },
        Refusal::MemberDraining { node },
        Refusal::StillOwner { node, shards: 5 },
        Refusal::PlacementExists,
        Refusal::PlacementMalformed { reason: text() },
        Refusal::UnknownShard { shard },
        Refusal::ConfigurationMoved {
            shard,
            expected: ConfigurationNumber(4),
            present: ConfigurationNumber(5),
        },
        Refusal::ConfigurationStep {
            shard,
            reason: text(),
        },
        Refusal::UnknownTenant {
            tenant: TenantId(3),
        },
        Refusal::UnknownMovement { movement: 8 },
        Refusal::ConditionFailed {
            position: 1,
            present: Some(3),
        },
        Refusal::LeaseHeld {
            holder: node,
            remaining_ms: 300,
        },
        Refusal::Limit {
            what: text(),
            max: 300,
        },
        Refusal::Invalid {
            field: "f".to_owned(),
            reason: text(),
        },
    ]
}

/// Answers between nodes beside those of the usual course.
pub(super) fn of_nodes(lines: &mut Lines) {
    let append = |lines: &mut Lines, name: &str, answer: &AppendEntriesResponse<u64>| {
        lines.enveloped(&format!("answer.append.{name}"), Kind::Answer, answer);
    };
    let partial = AppendEntriesResponse::PartialSuccess(Some(id(2, 7)));
    append(lines, "partial", &partial);
    append(lines, "conflict", &AppendEntriesResponse::Conflict);
    let vote = AppendEntriesResponse::HigherVote(Vote::new(3, 1));
    append(lines, "vote", &vote);
    lines.enveloped("answer.read.done", Kind::Answer, &ReadAnswer::Done(300));
    let reason = || "r".to_owned();
    let failed: ProposeAnswer = LeaderAnswer::Failed { reason: reason() };
    lines.enveloped("answer.leader.failed", Kind::Answer, &failed);
    let refused = JoinAnswer::Refused { reason: reason() };
    lines.enveloped("answer.join.refused", Kind::Answer, &refused);
    for (name, standing) in [
        ("blank", Standing::Blank),
        ("promised", Standing::Promised(founding())),
        ("member", Standing::Member(ClusterId(0x0102))),
    ] {
        let report = Report {
            standing,
            candidates: Vec::new(),
        };
        lines.enveloped(&format!("answer.report.{name}"), Kind::Answer, &report);
    }
}
