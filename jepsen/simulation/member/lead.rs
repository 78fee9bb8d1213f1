//! What the leader does besides Raft: it makes the placement table, gives up superseded members and moves shards. As
//! `node/src/cluster/lead.rs`; the decisions are `trefoil_shard::placement` and `movement`.

use crate::{coverage::Seen, process::Process};
use std::{sync::Arc, time::Duration};
use trefoil_model::ShardSet;
use trefoil_raft::{Command, ConfigurationChange, Member, MemberState, MetadataPlane, State};
use trefoil_shard::{
    movement::{MemberView, MovementPlan, MovementSettings, MovementView, Step, StepKind, decide},
    placement::{PlacementNode, ZoneMode, plan, replication_factor},
};

/// How long after its start a node believes that members live of which it has not heard yet.
const UNHEARD_GRACE: Duration = Duration::from_secs(10);
/// How often the leader looks.
const INTERVAL: Duration = Duration::from_millis(250);

/// Leads until the process ends.
pub(super) async fn run(process: Arc<Process>) {
    let Some(metadata) = process.metadata.get().cloned() else {
        return;
    };
    let (world, machine) = (process.world.clone(), process.machine);
    let begun = world.boot(machine);
    let mut led = false;
    loop {
        tokio::time::sleep(INTERVAL).await;
        let now = world.boot(machine);
        if now.saturating_sub(begun) >= UNHEARD_GRACE {
            note_unheard(&process, &metadata.state(), now);
        }
        if metadata.leader() != process.node() {
            led = false;
            continue;
        }
        if !led {
            // A new leader counts from its own first look.
            led = true;
            world.saw(Seen::Led);
            world.tell(format_args!("{} leads", process.name()));
            process.member.reports.lock().clear();
            let mut dead_since = process.member.dead_since.lock();
            dead_since.values_mut().for_each(|since| *since = now);
        }
        let state = metadata.state();
        if state.placement().is_empty() {
            create_placement(&process, &metadata, &state).await;
        } else {
            give_up_superseded(&process, &metadata, &state).await;
            move_shards(&process, &metadata, &state).await;
        }
    }
}

/// Gossip does not call a member dead of which it never heard: one that was gone before this node started.
fn note_unheard(process: &Process, state: &State, now: Duration) {
    let view = process.gossip().view();
    let heard = |node| view.iter().any(|member| member.identity.node == node);
    let own = process.who().node;
    for member in present(state).filter(|member| member.node != own && !heard(member.node)) {
        let mut dead_since = process.member.dead_since.lock();
        dead_since.entry(member.node).or_insert(now);
    }
}

async fn create_placement(process: &Process, metadata: &MetadataPlane, state: &State) {
    let setup = &process.world.setup;
    let members: Vec<PlacementNode> = present(state).map(placement_node).collect();
    if members.len() < setup.expect {
        return;
    }
    let factor = replication_factor(members.len());
    let owners = plan(
        &members,
        setup.shards as u16,
        None,
        ZoneMode::default(),
        factor,
    );
    let Some(owners) = owners else {
        return;
    };
    if metadata
        .propose(Command::CreatePlacement { owners })
        .await
        .is_ok()
    {
        process
            .world
            .tell(format_args!("{} made the placement", process.name()));
    }
}

/// A member whose name a newer one has taken lost its data directory: once it is dead its shards may move at once, and
/// once it owns nothing it is forgotten.
async fn give_up_superseded(process: &Process, metadata: &MetadataPlane, state: &State) {
    for member in present(state).filter(|member| member.superseded_by.is_some()) {
        let node = member.node;
        if !process.member.dead_since.lock().contains_key(&node) {
            continue;
        }
        let mut rows = state.placement().iter();
        let owns = rows.any(|(_, entry)| entry.configuration.has_owner(node));
        let command = match (owns, member.state) {
            (false, _) => Command::RemoveMember { node },
            (true, MemberState::Active) => Command::SetDraining {
                node,
                draining: true,
            },
            (true, _) => continue,
        };
        // Tried again with the next look.
        metadata.propose(command).await.ok();
    }
}

async fn move_shards(process: &Process, metadata: &MetadataPlane, state: &State) {
    for step in decide_now(process, state).steps {
        let kind = step.kind;
        let shards: ShardSet = step.changes.iter().map(|change| change.shard).collect();
        if !propose(metadata, step).await {
            return;
        }
        let world = &process.world;
        world.tell(format_args!(
            "{} moves {shards:?}: {kind:?}",
            process.name()
        ));
        world.saw(match kind {
            StepKind::Begin(_) => Seen::MovementBegun,
            StepKind::Finish => Seen::MovementFinished,
            StepKind::Abandon => Seen::MovementAbandoned,
        });
    }
}

fn decide_now(process: &Process, state: &State) -> MovementPlan {
    let dead_since = process.member.dead_since.lock().clone();
    let of_members = |node| present(state).any(|member| member.node == node);
    let mut reports = process.member.reports.lock().clone();
    reports.retain(|node, _| of_members(*node));
    let members: Vec<MemberView> = present(state)
        .map(|member| MemberView {
            node: placement_node(member),
            dead_since: dead_since.get(&member.node).copied(),
            has_space: reports.contains_key(&member.node).then_some(true),
        })
        .collect();
    let view = MovementView {
        now: process.world.boot(process.machine),
        table: state.placement(),
        members: &members,
        reports: &reports,
    };
    let bug = process.world.setup.bug;
    let settings = MovementSettings {
        replace_after: super::REPLACE_AFTER,
        faults: bug
            .map(crate::bugs::Bug::in_the_movement)
            .unwrap_or_default(),
        ..MovementSettings::default()
    };
    decide(&view, &settings)
}

/// Proposes a step; `false` when the next decision should be made from a newer table.
async fn propose(metadata: &MetadataPlane, step: Step) -> bool {
    let changes = step.changes.into_iter().map(|change| ConfigurationChange {
        shard: change.shard,
        expected: change.expected,
        old: change.old,
        new: change.new,
    });
    let command = Command::SetConfigurations {
        changes: changes.collect(),
    };
    metadata.propose(command).await.is_ok()
}

fn present(state: &State) -> impl Iterator<Item = &Member> {
    state
        .members()
        .map(AsRef::as_ref)
        .filter(|member| member.state != MemberState::Removed)
}

fn placement_node(member: &Member) -> PlacementNode {
    PlacementNode {
        id: member.node,
        zone: member.description.zone.clone(),
        weight: member.weight(),
        active: member.state == MemberState::Active,
    }
}
