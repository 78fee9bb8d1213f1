//! Which formats nodes may send each other, while programs of different versions run side by side.
//!
//! ```text
//! level  needed for
//!   1    everything that the first program wrote
//!   2    bodies of metrics of version 2: native histograms, start timestamps, exemplars
//!   3    limits that change under a condition; questions within a tenant's limits
//!   4    retention of single tenants and of selectors
//!   5    questions that are to be answered anew; snapshots; blocks of packed values, which are no message, but which an
//!        older program could not open after a way back
//!   6    records of elections of pairs that say until when other senders were accepted
//!   7    questions for more than one newest sample of series
//! ```
//! A member says at each start which levels its program reads. The leader raises the cluster's level when all members read the
//! next one; from then on an older program is refused as a member. Until then a coordinator makes nothing that an older
//! owner could not apply: the owner would acknowledge it, and lose it. Samples wait for that and are sent again; exemplars are
//! left out, because they are examples and no reason to keep samples waiting. An owner looks at the version of a body before it
//! journals it in any case.

use bytes::Bytes;
use trefoil_api::remote_write::WriteRequest;
use trefoil_model::Signal;
use trefoil_raft::{Member, MemberState, State};
use trefoil_shard::{CopyAnswerStep, Message};
use trefoil_store_metrics::BODY_VERSION;

/// The highest level that this program reads and writes.
pub(crate) const LEVEL_MAX: u32 = 7;
/// The level from which on bodies may have more than floats.
const LEVEL_WHOLE_SAMPLES: u32 = 2;
/// The level from which on the metadata plane has `Command::ChangeLimits`.
const LEVEL_CHANGED_LIMITS: u32 = 3;
/// The level from which on evaluators are told what a tenant's limits leave of a question.
const LEVEL_QUESTIONS_WITHIN: u32 = 3;
/// The level from which on single tenants and selectors may have retentions of their own. An older leader would remove what a
/// tenant keeps longer than the cluster, and an older owner would show what a selector's cut-off hides.
const LEVEL_OWN_RETENTIONS: u32 = 4;
/// The level from which on there is no way back to a program that does not read blocks of packed values.
const LEVEL_PACKED_BLOCKS: u32 = 5;
/// The level from which on evaluators can be told to use no earlier answers. Older ones would not know the kind of question.
const LEVEL_QUESTIONS_ANEW: u32 = 5;
/// The level from which on all members can make their part of a snapshot.
const LEVEL_SNAPSHOTS: u32 = 5;
/// The level from which on the record of a pair's elected sender says how it came to count. To an older program such a pair would
/// have no elected sender.
const LEVEL_SUCCESSIONS: u32 = 6;
/// The level from which on evaluators can be asked for several newest samples of series. To older ones it is malformed.
const LEVEL_SEVERAL_NEWEST: u32 = 7;

/// The level to which the cluster can be raised now, if it can.
pub(crate) fn level_to_raise(state: &State) -> Option<u32> {
    let level = next_level(state.format_level(), state.members().map(AsRef::as_ref));
    // Before there is a member there is nobody to ask.
    level.filter(|_| state.members().next().is_some())
}

fn next_level<'a>(present: u32, members: impl Iterator<Item = &'a Member>) -> Option<u32> {
    let levels = members
        .filter(|member| member.state != MemberState::Removed)
        .map(|member| member.description.format_level_max);
    let level = levels.fold(LEVEL_MAX, u32::min);
    (level > present).then_some(level)
}

/// Whether limits can be changed under a condition.
pub(crate) fn changes_limits(state: &State) -> bool {
    state.format_level() >= LEVEL_CHANGED_LIMITS
}

/// Whether evaluators can be told what a tenant's limits leave of a question.
pub(crate) fn asks_within(state: &State) -> bool {
    state.format_level() >= LEVEL_QUESTIONS_WITHIN
}

/// Whether evaluators can be told to use no earlier answers.
pub(crate) fn asks_anew(state: &State) -> bool {
    state.format_level() >= LEVEL_QUESTIONS_ANEW
}

/// Why a request cannot be taken yet, if it has what some member cannot read. It can be sent again.
pub(crate) fn refusal(state: &State, request: &WriteRequest) -> Option<String> {
    if state.format_level() >= LEVEL_WHOLE_SAMPLES {
        return None;
    }
    if request.series().all(|series| series.is_plain()) {
        return None;
    }
    Some(format!(
        "native histograms and start timestamps are taken when all nodes run a program that reads them; \
         waiting for {}",
        waited_for(state, LEVEL_WHOLE_SAMPLES)
    ))
}

/// Why tenants and selectors cannot have retentions of their own yet, if they cannot. It can be asked again.
pub(crate) fn own_retention_refusal(state: &State) -> Option<String> {
    (state.format_level() < LEVEL_OWN_RETENTIONS).then(|| {
        format!(
            "single tenants and selectors have retentions of their own when all nodes run a program that knows them; \
             waiting for {}",
            waited_for(state, LEVEL_OWN_RETENTIONS)
        )
    })
}

/// Why there can be no snapshot yet, if there cannot. It can be asked again.
pub(crate) fn snapshot_refusal(state: &State) -> Option<String> {
    (state.format_level() < LEVEL_SNAPSHOTS).then(|| {
        format!(
            "snapshots are made when all nodes run a program that knows them; waiting for {}",
            waited_for(state, LEVEL_SNAPSHOTS)
        )
    })
}

/// A member for which a level waits; all of them, when the leader has only not raised it yet.
fn waited_for(state: &State, level: u32) -> &str {
    let behind = state.members().find(|member| {
        member.state != MemberState::Removed && member.description.format_level_max < level
    });
    behind.map_or("the cluster", |member| member.description.name.as_str())
}

/// Whether exemplars may be sent to owners.
pub(crate) fn takes_exemplars(state: &State) -> bool {
    state.format_level() >= LEVEL_WHOLE_SAMPLES
}

/// Whether blocks may have packed values.
pub(crate) fn packs_blocks(state: &State) -> bool {
    state.format_level() >= LEVEL_PACKED_BLOCKS
}

/// Whether the record of a pair's elected sender may say how it came to count.
pub(crate) fn records_successions(state: &State) -> bool {
    state.format_level() >= LEVEL_SUCCESSIONS
}

/// Whether evaluators can be asked for several newest samples of series.
pub(crate) fn asks_for_newest(state: &State) -> bool {
    state.format_level() >= LEVEL_SEVERAL_NEWEST
}

/// The version of the first body in a message that this program cannot read, if there is one. Nothing of such a message
/// may be journalled: it would be acknowledged, and never applied.
pub(crate) fn unreadable_version(message: &Message) -> Option<u8> {
    let mut unreadable = None;
    let mut look = |signal: Signal, body: &Bytes| {
        // A body without a byte is malformed on every owner alike, and told when it is applied.
        let version = body.first().copied().unwrap_or(BODY_VERSION);
        if signal != Signal::Metrics || !(1..=BODY_VERSION).contains(&version) {
            unreadable = Some(version);
        }
    };
    match message {
        Message::Push(push) => push
            .parcels
            .iter()
            .for_each(|(_, parcel)| look(parcel.header().signal, parcel.body())),
        Message::FetchAnswer { records, .. } => records
            .iter()
            .for_each(|record| look(record.parcel.header().signal, record.parcel.body())),
        Message::CopyAnswer {
            step: CopyAnswerStep::Chunk { items, .. },
            ..
        } => items.iter().for_each(|item| look(item.signal, &item.body)),
        _ => {}
    }
    unreadable
}

#[cfg(test)]
mod tests {
    use super::*;
    use trefoil_api::{
        ApiLimits,
        remote_write::{Exemplar, Sample},
    };
    use trefoil_model::{Labels, LineageId, NodeId};
    use trefoil_raft::MemberDescription;

    fn member(node: u64, level: u32, state: MemberState) -> Member {
        Member {
            node: NodeId(node),
            state,
            description: MemberDescription {
                name: format!("n{node}"),
                zone: String::new(),
                weight: 100,
                addresses: trefoil_raft::Addresses::default(),
                version: "1".to_owned(),
                format_level_max: level,
                lineage: LineageId(1),
            },
            lineage: LineageId(1),
            weight_set: None,
            superseded_by: None,
        }
    }

    #[test]
    fn the_slowest_present_member_decides_the_level() {
        use MemberState::{Active, Draining, Removed};
        let mut members = [
            member(1, 2, Active),
            member(2, 1, Draining),
            member(3, 9, Active),
        ];
        assert_eq!(next_level(1, members.iter()), None);
        members[1].state = Removed;
        assert_eq!(next_level(1, members.iter()), Some(2));
        assert_eq!(next_level(2, members.iter()), None, "it is raised once");
        assert_eq!(next_level(3, members.iter()), None, "it never falls");
    }

    #[test]
    fn what_an_older_member_cannot_read_is_sent_again_later() {
        // A state begins with the first level.
        let state = State::default();
        let limits = ApiLimits::default().write;
        let mut request = WriteRequest::default();
        let labels = &mut [("__name__", "m")];
        let plain = [Sample::float(1, 1.0)];
        let pushed = request.push_samples(labels, plain, &limits);
        pushed.expect("a small request");
        assert_eq!(refusal(&state, &request), None);
        assert!(!changes_limits(&state) && !asks_within(&state) && !asks_anew(&state));
        let started = Sample {
            start: 1,
            ..Sample::float(2, 1.0)
        };
        let mut with_start = request.clone();
        let pushed = with_start.push_samples(labels, [started], &limits);
        pushed.expect("a small request");
        let refused = refusal(&state, &with_start).expect("no member reads start timestamps");
        assert!(refused.contains("start timestamps"), "{refused}");
        let exemplar = Exemplar {
            labels: Labels::from_pairs([("trace_id", "a")]),
            value: 1.0,
            time: 1,
        };
        let pushed = request.push_exemplar(labels, Some(exemplar), &limits);
        pushed.expect("a small request");
        assert_eq!(refusal(&state, &request), None, "its samples can be stored");
        assert!(!takes_exemplars(&state) && !packs_blocks(&state));
        assert!(!records_successions(&state) && !asks_for_newest(&state));
        let refused = own_retention_refusal(&state).expect("no member knows them");
        assert!(refused.contains("the cluster"), "{refused}");
        let refused = snapshot_refusal(&state).expect("no member knows them");
        assert!(refused.contains("the cluster"), "{refused}");
    }
}
