//! After a majority of the voters is lost for good: going on with what one node knows.
//!
//! This is an operator's decision, made offline on one node's directory, because it can lose what
//! was acknowledged: whatever the other voters committed that this node never heard of. It is
//! recorded in the state for ever.
//!
//! The node becomes the only voter of the same cluster, and the cluster goes on without the members that are
//! not said to survive: shards of which they were too many owners go on with the owner that is left
//! ([`State::go_on_without`]). Everything in its log counts, committed or
//! not. Its new state stands [`INDEX_GAP`] behind its log's end, so that whatever a survivor's log
//! holds beyond this node's is covered by the snapshot that it gets, and replaced. The old voters
//! must never run together again, or they could elect a leader of their own: [`forget_group`] takes
//! a survivor's vote and log, and it comes back as a learner.

use crate::engine::{LogId, StoredMembership, Vote};
use crate::formation::Identity;
use crate::machine::{SnapshotFiles, Version};
use crate::plane::{PlaneOptions, stores};
use crate::state::{LogPosition, MemberState, Recovery, ShardLoss, State};
use crate::{DiskWork, MetadataError, PlaneFaults, log::LogStore};
use openraft::storage::RaftLogStorage;
use openraft::{CommittedLeaderId, Membership, RaftLogReader};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use trefoil_model::{ClusterId, Millis, NodeId, NodeName};
use trefoil_store_pages::Disk;

/// Indexes that are left out: more than any survivor's log can be longer than this node's.
const INDEX_GAP: u64 = 1 << 32;

/// What a recovery goes on with, and what it may lose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveryReport {
    /// The node.
    pub node: NodeId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// The newest entry that it has. What others committed behind it is lost; compare the
    /// survivors, and recover the one with the highest.
    pub last: LogPosition,
    /// How many of its newest entries it does not know to be committed. They count from now on; a
    /// client may have been told that they failed.
    pub uncommitted_entries: u64,
    /// The voters before, ascending.
    pub voters_before: Vec<NodeId>,
    /// The members that the cluster goes on without, ascending. They must never run again with their data.
    pub lost: Vec<NodeId>,
    /// What that means for the shards.
    pub loss: ShardLoss,
    /// Names of all members, lost ones too, for people.
    pub names: BTreeMap<NodeId, NodeName>,
}

/// What an operator decides beside the directory.
#[derive(Clone, Debug, Default)]
pub struct Survivors {
    /// Names or ids of the other members whose data is there. All the rest are given up.
    pub others: Vec<String>,
    /// The wall clock.
    pub at: Millis,
}

struct Found {
    report: RecoveryReport,
    /// The state that the cluster goes on with.
    version: Version,
    stores: stores::Stores,
}

/// Says what a recovery of this node would go on with. Changes nothing that matters; the node must
/// not be running.
///
/// # Errors
/// [`MetadataError::Damaged`] when the directory has no cluster or cannot be read;
/// [`MetadataError::Settings`] when a survivor is not a member.
pub async fn inspect(
    disk: Arc<dyn Disk>,
    directory: &Path,
    survivors: &Survivors,
) -> Result<RecoveryReport, MetadataError> {
    let found = find(disk, directory, survivors).await?;
    found.stores.log.close();
    Ok(found.report)
}

/// Makes this node the only voter of its cluster. The node must not be running. After a crash in the middle it can be repeated.
///
/// # Errors
/// As [`inspect`], and [`MetadataError::Disk`].
pub async fn become_only_voter(
    disk: Arc<dyn Disk>,
    directory: &Path,
    survivors: &Survivors,
) -> Result<RecoveryReport, MetadataError> {
    let mut found = find(Arc::clone(&disk), directory, survivors).await?;
    let node = found.report.node;
    let log_state = found.stores.log.get_log_state().await.map_err(stopped)?;
    let vote = found.stores.log.read_vote().await.map_err(stopped)?;
    let last = log_state.last_log_id.max(found.version.last);
    let vote_term = vote.map_or(0, |vote| vote.leader_id().term);
    let term = vote_term.max(found.report.last.term) + 1;
    let index = last.map_or(0, |id| id.index) + INDEX_GAP;
    let id = LogId::new(CommittedLeaderId::new(term, node.0), index);

    found.version.last = Some(id);
    found.version.state.applied = id.into();
    found.version.membership = StoredMembership::new(
        Some(id),
        Membership::new(vec![BTreeSet::from([node.0])], ()),
    );
    found.version.state.cluster.recoveries.push(Recovery {
        node,
        last: found.report.last,
        voters_before: found.report.voters_before.clone(),
        at: survivors.at,
    });
    // From here on the directory is the recovered one: the snapshot is newer than the log's end.
    let snapshots = SnapshotFiles::open(disk, directory.join(stores::SNAPSHOT_DIRECTORY))?;
    found.version.store(&snapshots)?;
    let voted = found.stores.log.save_vote(&Vote::new(term, node.0)).await;
    voted.map_err(stopped)?;
    found.stores.log.purge(id).await.map_err(stopped)?;
    found.stores.log.close();
    Ok(found.report)
}

/// Takes a survivor's vote, Raft log and copy of the state, so that it joins the recovered cluster
/// as a learner. Its identity and all telemetry stay. The node must not be running.
///
/// # Errors
/// [`MetadataError::Damaged`] when the directory has no cluster; [`MetadataError::Disk`].
pub fn forget_group(disk: &Arc<dyn Disk>, directory: &Path) -> Result<(), MetadataError> {
    let identity = Identity::open(Arc::clone(disk), directory)?;
    cluster_of(&identity)?;
    let failed = |source| MetadataError::disk("remove metadata of a survivor", source);
    for part in [stores::LOG_DIRECTORY, stores::SNAPSHOT_DIRECTORY] {
        let part = directory.join(part);
        disk.create_dir_all(&part).map_err(failed)?;
        for name in disk.list(&part).map_err(failed)? {
            disk.remove(&part.join(name)).map_err(failed)?;
        }
        disk.sync_dir(&part).map_err(failed)?;
    }
    // The empty log says that the vote was given up on purpose. Rows that are beyond it are not
    // used.
    let log = LogStore::open(
        Arc::clone(disk),
        &directory.join(stores::LOG_DIRECTORY),
        identity.node(),
        &DiskWork::Threads,
        PlaneFaults::default(),
    )?;
    log.close();
    crate::formation::promise::withdraw(&**disk, directory)
}

async fn find(
    disk: Arc<dyn Disk>,
    directory: &Path,
    survivors: &Survivors,
) -> Result<Found, MetadataError> {
    let identity = Identity::open(Arc::clone(&disk), directory)?;
    let cluster = cluster_of(&identity)?;
    let node = identity.node();
    let options = PlaneOptions {
        materialise: false,
        ..PlaneOptions::new(directory)
    };
    let opened = tokio::task::spawn_blocking(move || stores::open(&disk, &options, node, false));
    let mut stores = opened.await.map_err(stopped)??;
    let mut version = stores.machine.version();
    let committed = stores.log.read_committed().await.map_err(stopped)?;
    let known = committed.max(version.last).map_or(0, |id| id.index + 1);
    let first = version.last.map_or(0, |id| id.index + 1);
    let rest = stores.log.try_get_log_entries(first..).await;
    let mut uncommitted_entries = 0;
    for entry in rest.map_err(stopped)? {
        uncommitted_entries += u64::from(entry.log_id.index >= known);
        version.apply(entry);
    }
    let lost = lost_members(&version.state, node, &survivors.others)?;
    let members = version.state.members();
    let names = members.map(|member| (member.node, member.description.name.clone()));
    let names = names.collect();
    let loss = version.state.go_on_without(&lost, node, survivors.at);
    let membership = version.membership.membership();
    let report = RecoveryReport {
        node,
        cluster,
        last: version.last.map(LogPosition::from).unwrap_or_default(),
        uncommitted_entries,
        voters_before: membership.voter_ids().map(NodeId).collect(),
        lost: lost.into_iter().collect(),
        loss,
        names,
    };
    Ok(Found {
        report,
        version,
        stores,
    })
}

/// The members that are neither this node nor said to survive.
fn lost_members(
    state: &State,
    node: NodeId,
    others: &[String],
) -> Result<BTreeSet<NodeId>, MetadataError> {
    let present = state.members().filter(|m| m.state != MemberState::Removed);
    let mut lost: BTreeSet<NodeId> = present.map(|member| member.node).collect();
    lost.remove(&node);
    for other in others {
        let named = state.member_by_name(other).map(|member| member.node);
        let survivor = named.or_else(|| other.parse().ok());
        if !survivor.is_some_and(|survivor| lost.remove(&survivor)) {
            return Err(MetadataError::Settings {
                reason: format!("{other:?} is no other member of the cluster"),
            });
        }
    }
    Ok(lost)
}

fn cluster_of(identity: &Identity) -> Result<ClusterId, MetadataError> {
    identity.cluster().ok_or_else(|| MetadataError::Damaged {
        reason: "this directory belongs to no cluster".to_owned(),
    })
}

fn stopped(error: impl std::error::Error) -> MetadataError {
    MetadataError::Stopped {
        reason: error.to_string(),
    }
}
