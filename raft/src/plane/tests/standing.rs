//! Nodes that are removed while they run.

use super::cluster::{Cluster, PATIENCE, create_tenant, eventually, fixed};
use crate::state::{Command, Refusal};
use crate::{BootstrapSettings, MetadataError};
use std::collections::BTreeSet;
use std::time::Duration;
use trefoil_model::NodeId;

/// Waits until a node knows that it was removed.
async fn knows(cluster: &Cluster, node: NodeId) {
    let removed = async { cluster.plane(node).removed(cluster.description(node)).await };
    let told = tokio::time::timeout(PATIENCE, removed).await;
    assert!(told.is_ok(), "node {node} was not told");
}

async fn remove(cluster: &Cluster, by: NodeId, node: NodeId) {
    let command = Command::RemoveMember { node };
    cluster.plane(by).propose(command).await.unwrap();
}

fn others(cluster: &Cluster, node: NodeId) -> Vec<NodeId> {
    let others = cluster.nodes().into_iter();
    others.filter(|other| *other != node).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_leader_knows_and_is_refused_when_it_comes_back() {
    let cluster = Cluster::begin(4, |_| ()).await;
    let leader = cluster.leader().await;
    let rest = others(&cluster, leader);
    remove(&cluster, rest[0], leader).await;
    knows(&cluster, leader).await;
    let stays = cluster.plane(rest[0]);
    let expected: BTreeSet<NodeId> = rest.iter().copied().collect();
    eventually("a group without it", || {
        (stays.status().voters == expected).then_some(())
    })
    .await;
    let not_removed = stays.removed(cluster.description(rest[0]));
    let waits = tokio::time::timeout(Duration::from_secs(8), not_removed);
    assert!(waits.await.is_err(), "the others stay");

    cluster.stop(leader).await;
    cluster.start(leader).await.unwrap();
    let settings = BootstrapSettings {
        expect: 4,
        seed_addresses: 4,
    };
    let plane = cluster.plane(leader);
    let formed = plane.form(fixed(settings), cluster.description(leader));
    let refused = tokio::time::timeout(PATIENCE, formed).await;
    let is_refused = matches!(
        refused,
        Ok(Err(MetadataError::Refused(Refusal::MemberRemoved { .. })))
    );
    assert!(
        is_refused,
        "{refused:?} {:?} {:?}",
        plane.forming_reason(),
        plane.status()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_cut_off_when_it_was_removed_finds_out() {
    let cluster = Cluster::begin(3, |_| ()).await;
    let leader = cluster.leader().await;
    let away = others(&cluster, leader)[0];
    let rest = others(&cluster, away);
    cluster.cut(&[away], &rest);
    cluster.everybody_sees(&rest);
    remove(&cluster, rest[0], away).await;
    let stays = cluster.plane(leader);
    eventually("a group without it", || {
        let status = stays.status();
        let is_known = status.voters.contains(&away) || status.learners.contains(&away);
        (!is_known).then_some(())
    })
    .await;
    cluster.heal();
    cluster.everybody_sees_all();
    knows(&cluster, away).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_is_told_when_the_others_no_longer_need_it() {
    let cluster = Cluster::begin(2, |_| ()).await;
    let leader = cluster.leader().await;
    let goes = others(&cluster, leader)[0];
    remove(&cluster, leader, goes).await;
    knows(&cluster, goes).await;
    cluster.stop(goes).await;
    create_tenant(&cluster.plane(leader), "after")
        .await
        .unwrap();
}
