//! What the leader does besides Raft: it makes the placement table, and moves shards.
//!
//! The decisions are those of `trefoil_shard::placement` and `movement`; here they only get their inputs
//! and are proposed. Every node runs this task; it does nothing where the node does not lead.

use super::{
    Cluster, retention,
    space::{Space, has_space, needed_bytes},
};
use crate::{clock, config, formats};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use trefoil_model::{NodeId, OwnerSet, ShardSet};
use trefoil_raft::{Command, ConfigurationChange, Member, MemberState, Reply, State};
use trefoil_shard::{
    ReplicaReport,
    movement::{
        Cause, MemberView, MovementPlan, MovementSettings, MovementView, Step, StepKind, Waiting,
        decide,
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
    let mut told = Vec::new();
    let begun = clock::boot();
    loop {
        interval.tick().await;
        if clock::boot().saturating_sub(begun) >= UNHEARD_GRACE {
            note_unheard(&cluster);
        }
        if !cluster.is_leader() {
            led = false;
            told.clear();
            cluster.waiting.lock().clear();
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
            note_ends(&cluster, &state).await;
            move_shards(&cluster, &state, &mut told).await;
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

/// `told` is what was last said to be waited for.
async fn move_shards(cluster: &Cluster, state: &State, told: &mut Vec<Waiting>) {
    let decided = decide_now(cluster, state);
    let reasons = decided.waiting.iter();
    let waiting: Vec<String> = reasons.map(|reason| describe(cluster, reason)).collect();
    for (reason, text) in decided.waiting.iter().zip(&waiting) {
        if !told.contains(reason) {
            tracing::info!("changes of owners wait: {text}");
        }
    }
    told.clone_from(&decided.waiting);
    *cluster.waiting.lock() = waiting;
    for step in decided.steps {
        if !propose(cluster, step).await {
            return;
        }
    }
}

fn decide_now(cluster: &Cluster, state: &State) -> MovementPlan {
    let dead_since = cluster.dead_since.lock().clone();
    let of_members = |node: &NodeId| present(state).any(|member| member.node == *node);
    let mut reports: BTreeMap<NodeId, ReplicaReport> = BTreeMap::new();
    for (node, report) in cluster.reports.lock().iter() {
        if of_members(node) {
            reports.insert(*node, report.replicas.clone());
        }
    }
    let spaces = spaces(cluster);
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

/// The last accounts of the members' disks.
fn spaces(cluster: &Cluster) -> BTreeMap<NodeId, Space> {
    let state = cluster.metadata.state();
    let reports = cluster.reports.lock();
    let of_members = reports
        .iter()
        .filter(|(node, _)| present(&state).any(|member| member.node == **node));
    of_members
        .map(|(node, report)| (*node, report.space))
        .collect()
}

/// Proposes a step; `false` when the next decision should be made from a newer table.
async fn propose(cluster: &Cluster, step: Step) -> bool {
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
    let names = |nodes: &OwnerSet| -> String {
        let names: Vec<String> = nodes.iter().map(|node| cluster.node_name(node)).collect();
        names.join(",")
    };
    let (incoming, outgoing) = (names(&step.incoming), names(&step.outgoing));
    let kind = match step.kind {
        StepKind::Begin(cause) => cause_text(cause),
        StepKind::Finish => "finished",
        StepKind::Abandon => "abandoned",
    };
    tracing::info!(
        shards = shards.len(),
        incoming,
        outgoing,
        kind,
        "owners of shards change"
    );
    // The end of a change is noted at the next look, see `note_ends`.
    let StepKind::Begin(cause) = step.kind else {
        return true;
    };
    let noted = Command::BeginMovement {
        reason: cause_text(cause).to_owned(),
        shards,
        incoming: step.incoming.as_slice().to_vec(),
        outgoing: step.outgoing.as_slice().to_vec(),
        at: clock::wall(),
    };
    match cluster.metadata.propose(noted).await {
        Ok(Reply::Movement(number)) => tracing::debug!(number, "noted the movement"),
        Ok(_) => {}
        Err(error) => tracing::debug!(%error, "note the movement"),
    }
    true
}

/// Notes which movements have ended, by the placement table: also those whose end an earlier leader did not come to note.
async fn note_ends(cluster: &Cluster, state: &State) {
    for (movement, outcome) in state.movements_over() {
        let command = Command::FinishMovement {
            movement,
            outcome,
            at: clock::wall(),
        };
        if let Err(error) = cluster.metadata.propose(command).await {
            tracing::debug!(%error, "note the end of a movement");
            return;
        }
    }
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

fn describe(cluster: &Cluster, waiting: &Waiting) -> String {
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
        Waiting::NoSpace(nodes) => {
            let spaces = spaces(cluster);
            let full: Vec<String> = nodes
                .iter()
                .map(|node| {
                    let name = cluster.node_name(*node);
                    let free = spaces.get(node).map_or(0, |space| space.free_bytes) >> 20;
                    let needed = needed_bytes(&spaces, *node) >> 20;
                    format!(
                        "{name} has no space for more shards: {free} MiB are free, {needed} MiB are needed"
                    )
                })
                .collect();
            full.join("; ")
        }
        Waiting::NoActiveNode => "all nodes are being drained".to_owned(),
    }
}
