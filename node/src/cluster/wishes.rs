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
                let node = cluster.identity.node;
                let command = Command::RecordAmnesia {
                    node,
                    shards,
                    lineage,
                };
                match cluster.metadata.propose(command).await {
                    Ok(_) => tracing::info!(%lineage, "recorded that replicas may lack data"),
                    Err(error) => tracing::warn!(%error, "record that replicas may lack data"),
                }
            }
            MetadataWish::Report(report) => send_report(&cluster, report).await,
            MetadataWish::Refresh => {
                if let Err(error) = cluster.metadata.read_linearizable().await {
                    tracing::debug!(%error, "refresh the metadata");
                }
            }
            MetadataWish::ConfirmDeletions(tenant, up_to) => {
                let node = cluster.identity.node;
                let command = Command::ConfirmDeletions {
                    node,
                    tenant,
                    up_to,
                };
                match cluster.metadata.propose(command).await {
                    Ok(_) => tracing::info!(?tenant, ?up_to, "deletions are applied here"),
                    Err(error) => tracing::warn!(%error, "confirm deletions"),
                }
            }
        }
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
