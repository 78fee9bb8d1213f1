//! Tells the replication core what the metadata plane and gossip say.

use super::{
    Cluster,
    known_cut_offs::{KnownCutOffs, Selected},
    known_deletions::{Known, KnownDeletions},
    retention::cut_off,
};
use crate::{clock, data_plane::StorePolicy, formats};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use trefoil_gossip::MemberState;
use trefoil_model::{DeletionVersion, NodeId, TenantId, key_hash};
use trefoil_raft::State;
use trefoil_shard::Event;

/// Follows the metadata plane until it stops.
pub(super) async fn metadata(cluster: Arc<Cluster>) {
    let mut states = cluster.metadata.watch();
    let mut catching_up = cluster.metadata.caught_up();
    let mut compiled = (KnownDeletions::default(), KnownCutOffs::default());
    loop {
        // Asked before the state is read: it is then as new as the one that proved it.
        let caught_up = *catching_up.borrow_and_update();
        let state = states.borrow_and_update().clone();
        let known = compiled.0.of(&state);
        let versions = Arc::new(newest_versions(&known));
        // The store first: the core must not claim a deletion that the store does not apply, nor a write be stamped with it.
        let selected = compiled.1.of(&state);
        let policy = store_policy(&state, (known, selected), cluster.identity.node);
        cluster.plane.set_policy(policy);
        cluster.plane.feed(Event::Metadata {
            table: state.placement().clone(),
            deletions: Arc::clone(&versions),
        });
        *cluster.deletions_known.lock() = versions;
        if caught_up {
            cluster.plane.take_items();
            cluster.followed.send_replace(state.applied().index);
        }
        let changed = tokio::select! {
            changed = states.changed() => changed,
            changed = catching_up.changed(), if !caught_up => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// How often is looked which peers are out of reach.
const REACH_INTERVAL: Duration = Duration::from_millis(500);

/// Says which peers the metadata plane has lost and found, once for each change, until the process ends.
pub(super) async fn reach(cluster: Arc<Cluster>) {
    let mut interval = tokio::time::interval(REACH_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        for (node, reached) in cluster.connections.reach().changes() {
            let name = cluster.node_name(node);
            let address = cluster.directory.get(node);
            let address = address.map_or("no known address".to_owned(), |at| at.peer.to_string());
            match reached {
                true => tracing::info!("the metadata plane reaches {name} ({address}) again"),
                false => tracing::warn!("the metadata plane cannot reach {name} ({address})"),
            }
        }
    }
}

/// What the store of this node must not show, by the metadata plane's word.
pub(crate) fn store_policy(
    state: &State,
    (known, selected): (Known, Selected),
    node: NodeId,
) -> StorePolicy {
    let mut policy = StorePolicy {
        packs_blocks: formats::packs_blocks(state),
        selected: selected.by_tenant,
        ..StorePolicy::default()
    };
    let mut epoch = Vec::new();
    if selected.unreadable > 0 {
        epoch.extend_from_slice(&selected.unreadable.to_le_bytes());
    }
    for (tenant, newest, deletions) in known {
        epoch.extend_from_slice(&tenant.0.to_le_bytes());
        epoch.extend_from_slice(&newest.0.to_le_bytes());
        policy.deletions.push((tenant, newest, deletions));
    }
    for tenant in state.tenants() {
        epoch.extend_from_slice(&tenant.id.0.to_le_bytes());
        epoch.extend_from_slice(&tenant.retention_number.to_le_bytes());
        let confirmed = state
            .deletions(tenant.id)
            .filter(|deletion| deletion.confirmed.contains(&node))
            .map(|deletion| deletion.version);
        let confirmed = confirmed.chain([tenant.deletions_forgotten]).max();
        (policy.confirmed).extend(confirmed.map(|version| (tenant.id, version)));
        let cut_off = cut_off(tenant).map(|before| (tenant.id, before));
        policy.cut_offs.extend(cut_off);
    }
    policy.pending = state.deletions_pending().next().is_some();
    policy.epoch = key_hash(TenantId(0), &epoch);
    policy
}

/// The newest deletion of each tenant that ever had one: a forgotten one is still known.
fn newest_versions(known: &Known) -> BTreeMap<TenantId, DeletionVersion> {
    let newest = known.iter().map(|(tenant, newest, _)| (*tenant, *newest));
    newest
        .filter(|(_, newest)| *newest > DeletionVersion(0))
        .collect()
}

/// Follows gossip until it stops.
pub(super) async fn peers(cluster: Arc<Cluster>) {
    let mut views = cluster.gossip.watch();
    loop {
        let view = views.borrow_and_update().clone();
        for member in &view.members {
            let node = member.identity.node;
            let mut dead_since = cluster.dead_since.lock();
            if member.state.is_active() {
                dead_since.remove(&node);
            } else {
                dead_since.entry(node).or_insert_with(clock::boot);
            }
            drop(dead_since);
            match member.state {
                MemberState::Alive | MemberState::Suspect => {
                    let incarnation = member.info.incarnation;
                    cluster.plane.feed(Event::PeerUp { node, incarnation });
                }
                _ => cluster.plane.feed(Event::PeerDown { node }),
            }
        }
        if views.changed().await.is_err() {
            return;
        }
    }
}
