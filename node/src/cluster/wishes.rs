//! What the replication core wants from the metadata plane.

use super::{Cluster, space::Space};
use crate::data_plane::MetadataWish;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};
use tokio::sync::mpsc::Receiver;
use trefoil_raft::Command;
use trefoil_shard::{Proposal, ReplicaReport};

/// The kind of a report among the calls of the `Metadata` service; the lower ones are the metadata plane's.
pub(crate) const KIND_REPORT: u32 = 100;
/// How long the leader may take to take a report; the next one follows after a second.
const REPORT_TIMEOUT: Duration = Duration::from_millis(800);

/// What a node tells the leader once a second.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct NodeReport {
    /// How far its replicas are.
    pub(crate) replicas: ReplicaReport,
    /// How full its disk is.
    pub(crate) space: Space,
}

/// Carries out wishes in order until the process ends.
pub(super) async fn run(cluster: Arc<Cluster>, mut wishes: Receiver<MetadataWish>) {
    while let Some(wish) = wishes.recv().await {
        match wish {
            MetadataWish::Propose(Proposal::RecordAmnesia { shards, lineage }) => {
                let command = Command::RecordAmnesia {
                    node: cluster.identity.node,
                    shards,
                    lineage,
                };
                let done = format!("recorded under {lineage} that replicas may lack data");
                propose(&cluster, command, &done).await;
            }
            MetadataWish::Report(report) => send_report(&cluster, report).await,
            MetadataWish::Refresh => {
                if let Err(error) = cluster.metadata.read_linearizable().await {
                    tracing::debug!(%error, "refresh the metadata");
                }
            }
            MetadataWish::ConfirmDeletions(tenant, up_to) => {
                let command = Command::ConfirmDeletions {
                    node: cluster.identity.node,
                    tenant,
                    up_to,
                };
                let done = format!("deletions of {tenant} up to {up_to} are applied here");
                propose(&cluster, command, &done).await;
            }
        }
    }
}

/// Proposes a command and logs how that went.
async fn propose(cluster: &Cluster, command: Command, done: &str) {
    match cluster.metadata.propose(command).await {
        Ok(_) => tracing::info!("{done}"),
        Err(error) => tracing::warn!(%error, "not yet {done}"),
    }
}

async fn send_report(cluster: &Cluster, replicas: ReplicaReport) {
    let Some(leader) = cluster.metadata.leader() else {
        return;
    };
    let space = Space::measure(&cluster.settings.data_dir, cluster.load().bytes);
    let report = NodeReport { replicas, space };
    if leader == cluster.identity.node {
        cluster.take_report(leader, report);
        return;
    }
    let Ok(body) = bincode::serialize(&report) else {
        return;
    };
    let sent = cluster
        .connections
        .metadata(leader, KIND_REPORT, Bytes::from(body), REPORT_TIMEOUT);
    if let Err(status) = sent.await {
        tracing::debug!(%leader, error = status.message(), "report to the leader");
    }
}
