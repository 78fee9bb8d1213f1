//! Tells the replication core what the metadata plane and gossip say.

use super::{Cluster, retention::cut_off};
use crate::{clock, data_plane::StorePolicy, query::storage::engine_matchers};
use std::{collections::BTreeMap, sync::Arc};
use trefoil_gossip::MemberState;
use trefoil_model::{DeletionVersion, NodeId, Signal, TenantId, key_hash};
use trefoil_query_promql::parse_selector;
use trefoil_raft::{State, Tenant};
use trefoil_shard::Event;
use trefoil_store_metrics::Deletion;

/// Follows the metadata plane until it stops.
pub(super) async fn metadata(cluster: Arc<Cluster>) {
    let mut states = cluster.metadata.watch();
    let mut catching_up = cluster.metadata.caught_up();
    loop {
        // Asked before the state is read: it is then as new as the one that proved it.
        let caught_up = *catching_up.borrow_and_update();
        let state = states.borrow_and_update().clone();
        // The store first: the core must not claim a deletion that the store does not apply.
        cluster
            .plane
            .set_policy(store_policy(&state, cluster.identity.node));
        cluster.plane.feed(Event::Metadata {
            table: state.placement().clone(),
            deletions: Arc::new(deletion_versions(&state)),
        });
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

/// What the store of this node must not show, by the metadata plane's word.
pub(crate) fn store_policy(state: &State, node: NodeId) -> StorePolicy {
    let mut policy = StorePolicy::default();
    let mut epoch = Vec::new();
    for tenant in state.tenants() {
        let (newest, deletions) = known_deletions(state, tenant);
        epoch.extend_from_slice(&tenant.id.0.to_le_bytes());
        epoch.extend_from_slice(&tenant.deletions_newest.0.to_le_bytes());
        epoch.extend_from_slice(&tenant.retention_number.to_le_bytes());
        policy.deletions.push((tenant.id, newest, deletions));
        let confirmed = state
            .deletions(tenant.id)
            .filter(|deletion| deletion.confirmed.contains(&node))
            .map(|deletion| deletion.version);
        let confirmed = confirmed.chain([tenant.deletions_forgotten]).max();
        (policy.confirmed).extend(confirmed.map(|version| (tenant.id, version)));
        let cut_off = cut_off(tenant).map(|before| (tenant.id, before));
        policy.cut_offs.extend(cut_off);
    }
    policy.epoch = key_hash(TenantId(0), &epoch);
    policy
}

/// The newest deletion of a tenant up to which this program can apply all, and those that are not forgotten. One that
/// cannot be read ends it: what presupposes it is not stored here, so that it is not claimed to be applied.
fn known_deletions(state: &State, tenant: &Tenant) -> (DeletionVersion, Vec<Deletion>) {
    let mut readable = Vec::new();
    for fact in state.deletions(tenant.id) {
        let matchers = parse_selector(&fact.selector)
            .ok()
            .and_then(|m| engine_matchers(&m).ok());
        match matchers {
            _ if fact.signal != Signal::Metrics => {}
            Some(matchers) => readable.push(Deletion {
                version: fact.version,
                matchers,
                range: fact.range,
            }),
            None => {
                // It was parsed before it was proposed, so only a newer program can have written it.
                let selector = &fact.selector;
                tracing::error!(selector, "a deletion cannot be read by this version");
                return (DeletionVersion(fact.version.0.saturating_sub(1)), readable);
            }
        }
    }
    (tenant.deletions_newest, readable)
}

/// The newest deletion of each tenant that ever had one: a forgotten one is still known.
fn deletion_versions(state: &State) -> BTreeMap<TenantId, DeletionVersion> {
    state
        .tenants()
        .map(|tenant| (tenant.id, known_deletions(state, tenant).0))
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
