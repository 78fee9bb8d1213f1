//! What the leader does besides Raft: it makes the placement table, and moves shards.
//!
//! The decisions are those of `trefoil_shard::placement` and `movement`; here they only get their inputs
//! and are proposed. Every node runs this task; it does nothing where the node does not lead.

use super::{
    Cluster, retention,
    space::{Space, has_space},
};
use crate::{clock, config, formats};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use trefoil_model::{NodeId, ShardSet};
use trefoil_raft::{
    Command, ConfigurationChange, Member, MemberState, MovementOutcome, Reply, State,
};
use trefoil_shard::{
    ReplicaReport,
    movement::{
        Cause, MemberView, MovementPlan, MovementSettings, MovementView, Step, StepKind, decide,
    },
    placement::{PlacementNode, ZoneMode, plan, replication_factor},
};

/// How long after its start a node believes that members live of which it has not heard yet.
const UNHEARD_GRACE: Duration = Duration::from_secs(10);
/// How often the leader looks.
const INTERVAL: Duration = Duration::from_millis(250);

/// Leads until the process ends.
pub(super) async fn run(cluster: Arc<Cluster>) {
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut led = false;
    let begun = clock::boot();
    loop {
        interval.tick().await;
        if clock::boot().saturating_sub(begun) >= UNHEARD_GRACE {
            note_unheard(&cluster);
        }
        if !cluster.is_leader() {
            led = false;
            continue;
        }
        if !led {
            // A new leader counts from its own first look.
            led = true;
            cluster.reports.lock().clear();
            let now = clock::boot();
            cluster
                .dead_since
                .lock()
                .values_mut()
                .for_each(|since| *since = now);
        }
        let state = cluster.metadata.state();
        raise_format_level(&cluster, &state).await;
        retention::advance(&cluster, &state).await;
        if state.placement().is_empty() {
            create_placement(&cluster, &state).await;
        } else {
            give_up_superseded(&cluster, &state).await;
            move_shards(&cluster, &state).await;
        }
    }
}

/// In front of everything else, so that a new cluster has its level before it takes the first item.
async fn raise_format_level(cluster: &Cluster, state: &State) {
    let Some(level) = formats::level_to_raise(state) else {
        return;
    };
    let command = Command::RaiseFormatLevel { level };
    match cluster.metadata.propose(command).await {
        Ok(_) => tracing::info!(level, "all members read newer formats, which are used now"),
        // A member of an older program has come meanwhile, or there is no majority: asked again at the next look.
        Err(error) => tracing::debug!(%error, "raise the format level"),
    }
}

/// Gossip does not call a member dead of which it never heard: one that was gone before this node started.
fn note_unheard(cluster: &Cluster) {
    let state = cluster.metadata.state();
    let view = cluster.gossip.view();
    let heard = |node| view.members.iter().any(|m| m.identity.node == node);
    let own = cluster.identity.node;
    for member in present(&state).filter(|member| member.node != own && !heard(member.node)) {
        let mut dead_since = cluster.dead_since.lock();
        dead_since.entry(member.node).or_insert_with(clock::boot);
    }
}

/// A member whose name a newer one has taken lost its data directory: once it is dead its shards may move
/// at once, and once it owns nothing it is forgotten.
async fn give_up_superseded(cluster: &Cluster, state: &State) {
    for member in present(state).filter(|member| member.superseded_by.is_some()) {
        let node = member.node;
        if !cluster.dead_since.lock().contains_key(&node) {
            continue;
        }
        let owns = state
            .placement()
            .iter()
            .any(|(_, e)| e.configuration.has_owner(node));
        let command = match (owns, member.state) {
            (false, _) => Command::RemoveMember { node },
            (true, MemberState::Active) => Command::SetDraining {
                node,
                draining: true,
            },
            (true, _) => continue,
        };
        match cluster.metadata.propose(command).await {
            Ok(_) => tracing::info!(%node, owns, "gave up a member whose name a newer one has"),
            Err(error) => tracing::warn!(%error, "give up a member"),
        }
    }
}

async fn create_placement(cluster: &Cluster, state: &State) {
    let members: Vec<PlacementNode> = present(state).map(placement_node).collect();
    if members.len() < cluster.settings.bootstrap_expect {
        return;
    }
    let factor = replication_factor(members.len());
    let mode = zone_mode(cluster.settings.zone_mode);
    let Some(owners) = plan(&members, cluster.settings.shards, None, mode, factor) else {
        return;
    };
    match cluster
        .metadata
        .propose(Command::CreatePlacement { owners })
        .await
    {
        Ok(_) => tracing::info!(members = members.len(), "made the placement table"),
        Err(error) => tracing::warn!(%error, "make the placement table"),
    }
}

async fn move_shards(cluster: &Cluster, state: &State) {
    let decided = decide_now(cluster, state);
    let waiting: Vec<String> = decided
        .waiting
        .iter()
        .map(|reason| describe(cluster, reason))
        .collect();
    *cluster.waiting.lock() = waiting;
    for step in decided.steps {
        if !propose(cluster, state, step).await {
            return;
        }
    }
}

fn decide_now(cluster: &Cluster, state: &State) -> MovementPlan {
    let dead_since = cluster.dead_since.lock().clone();
    let of_members = |node: &NodeId| present(state).any(|member| member.node == *node);
    let mut reports: BTreeMap<NodeId, ReplicaReport> = BTreeMap::new();
    let mut spaces: BTreeMap<NodeId, Space> = BTreeMap::new();
    for (node, report) in cluster.reports.lock().iter() {
        if of_members(node) {
            reports.insert(*node, report.replicas.clone());
            spaces.insert(*node, report.space);
        }
    }
    let members: Vec<MemberView> = present(state)
        .map(|member| MemberView {
            node: placement_node(member),
            dead_since: dead_since.get(&member.node).copied(),
            has_space: has_space(&spaces, member.node),
        })
        .collect();
    let view = MovementView {
        now: clock::boot(),
        table: state.placement(),
        members: &members,
        reports: &reports,
    };
    let settings = MovementSettings {
        replace_after: cluster.settings.replace_after,
        zone_mode: zone_mode(cluster.settings.zone_mode),
        ..MovementSettings::default()
    };
    decide(&view, &settings)
}

/// Proposes a step; `false` when the next decision should be made from a newer table.
async fn propose(cluster: &Cluster, state: &State, step: Step) -> bool {
    let shards: ShardSet = step.changes.iter().map(|change| change.shard).collect();
    let changes = step.changes.into_iter().map(|change| ConfigurationChange {
        shard: change.shard,
        expected: change.expected,
        old: change.old,
        new: change.new,
    });
    let command = Command::SetConfigurations {
        changes: changes.collect(),
    };
    if let Err(error) = cluster.metadata.propose(command).await {
        tracing::debug!(%error, "change the owners of shards");
        return false;
    }
    let (count, incoming, outgoing) = (shards.len(), &step.incoming, &step.outgoing);
    tracing::info!(shards = count, ?incoming, ?outgoing, kind = ?step.kind, "owners of shards change");
    let noted = match step.kind {
        StepKind::Begin(cause) => Some(Command::BeginMovement {
            reason: cause_text(cause).to_owned(),
            shards,
            incoming: step.incoming.as_slice().to_vec(),
            outgoing: step.outgoing.as_slice().to_vec(),
            at: clock::wall(),
        }),
        StepKind::Finish => finished(state, &shards, MovementOutcome::Completed),
        StepKind::Abandon => {
            let reason = "a new owner is gone or not wanted any more".to_owned();
            finished(state, &shards, MovementOutcome::Abandoned { reason })
        }
    };
    if let Some(command) = noted {
        match cluster.metadata.propose(command).await {
            Ok(Reply::Movement(number)) => tracing::debug!(number, "noted the movement"),
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "note the movement"),
        }
    }
    true
}

/// The note that ends the movement of these shards, if all its shards are among them.
fn finished(state: &State, shards: &ShardSet, outcome: MovementOutcome) -> Option<Command> {
    let open = state
        .movements()
        .find(|m| m.ended.is_none() && m.shards.is_subset(shards))?;
    Some(Command::FinishMovement {
        movement: open.number,
        outcome,
        at: clock::wall(),
    })
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

fn zone_mode(mode: config::ZoneMode) -> ZoneMode {
    match mode {
        config::ZoneMode::Strict => ZoneMode::Strict,
        config::ZoneMode::Spread => ZoneMode::Spread,
    }
}

fn cause_text(cause: Cause) -> &'static str {
    match cause {
        Cause::Replace => "replace",
        Cause::Drain => "drain",
        Cause::Grow => "grow",
        Cause::Balance => "balance",
    }
}

fn describe(cluster: &Cluster, waiting: &trefoil_shard::movement::Waiting) -> String {
    use trefoil_shard::movement::Waiting;
    let names = |nodes: &[NodeId]| {
        let names: Vec<String> = nodes.iter().map(|node| cluster.node_name(*node)).collect();
        names.join(", ")
    };
    match waiting {
        Waiting::MembersDown(nodes) => format!("shards should move, but {} is down", names(nodes)),
        Waiting::SeveralDead(nodes) => {
            format!(
                "{} are dead; drain those that will not come back",
                names(nodes)
            )
        }
        Waiting::NoSpareNode(node) => {
            format!(
                "{} is dead and no node can take its place; add one",
                names(&[*node])
            )
        }
        Waiting::NoSpace(nodes) => format!("{} has no space for more shards", names(nodes)),
        Waiting::NoActiveNode => "all nodes are being drained".to_owned(),
    }
}
