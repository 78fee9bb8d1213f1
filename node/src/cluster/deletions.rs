//! Deleting series: a numbered fact of the metadata plane, which all owners apply.
//!
//! A write is stamped with the newest deletion that its coordinator knows, and is erased by later ones. So a deletion has
//! succeeded when every live node knows it: what is written after that is newer, through whichever node it comes.

use super::{
    Cluster,
    admin::{KIND_CLEAN, KIND_FOLLOWED, refused},
};
use crate::data_plane::DataPlane;
use futures::future::join_all;
use std::time::{Duration, Instant};
use tonic::Status;
use trefoil_api::{ApiError, SeriesDeletion, TenantName};
use trefoil_gossip::MemberState;
use trefoil_model::{NodeId, Signal};
use trefoil_raft::Command;

/// How long a live node may take to hear of a deletion: beyond it the client hears that one has not. Gossip knows a
/// dead one sooner.
const HEARD_PATIENCE: Duration = Duration::from_secs(10);
/// How long one question may take.
const HEARD_TIMEOUT: Duration = Duration::from_secs(3);
/// Between two questions of the same node.
const HEARD_PAUSE: Duration = Duration::from_millis(100);
/// How long a node may take to rewrite its blocks.
const CLEAN_TIMEOUT: Duration = Duration::from_secs(300);

impl Cluster {
    /// Records the deletion of a tenant's series, one selector after the other, and waits until all live nodes know it.
    ///
    /// # Errors
    /// As `Backend::delete_series`.
    pub(crate) async fn delete_series(
        &self,
        tenant: &TenantName,
        deletion: SeriesDeletion,
    ) -> Result<(), ApiError> {
        self.check_enabled()?;
        let known = self.tenant_for_query(tenant.as_str()).await;
        let Some(tenant) = known.map_err(refused)? else {
            return Ok(());
        };
        for selector in deletion.selectors {
            self.command(Command::CreateDeletion {
                tenant,
                signal: Signal::Metrics,
                selector,
                range: deletion.range,
            })
            .await?;
        }
        let state = self.metadata.read_linearizable().await.map_err(refused)?;
        self.wait_until_heard(state.applied().index).await
    }

    /// Has all live nodes rewrite the blocks that still have what was deleted.
    ///
    /// # Errors
    /// As `Backend::clean_tombstones`.
    pub(crate) async fn clean_tombstones(&self) -> Result<(), ApiError> {
        self.check_enabled()?;
        let state = self.metadata.read_linearizable().await.map_err(refused)?;
        self.wait_until_heard(state.applied().index).await?;
        let others = self.others_alive();
        let asked = others.iter().map(|node| async move {
            let cleaned = self.ask::<_, ()>(*node, KIND_CLEAN, &(), CLEAN_TIMEOUT);
            cleaned.await.err().map(|status| (*node, status))
        });
        let (own, failed) = tokio::join!(clean(self.plane.clone()), join_all(asked));
        let own = own.err().map(|status| (self.identity.node, status));
        match own.into_iter().chain(failed.into_iter().flatten()).next() {
            None => Ok(()),
            Some((node, status)) => Err(not_yet(format!(
                "{} has not rewritten its blocks: {}",
                self.node_name(node),
                status.message()
            ))),
        }
    }

    fn check_enabled(&self) -> Result<(), ApiError> {
        match self.settings.enable_admin_api {
            true => Ok(()),
            false => Err(ApiError::Unavailable {
                message: "admin APIs disabled; start the node with --enable-admin-api".to_owned(),
                retry_after: Duration::from_secs(60),
            }),
        }
    }

    /// Waits until the stores of all live nodes know the metadata plane's state at this place of its log.
    async fn wait_until_heard(&self, index: u64) -> Result<(), ApiError> {
        self.has_followed(index).await.map_err(refused)?;
        let until = Instant::now() + HEARD_PATIENCE;
        let others = self.others_alive();
        let asked = others.iter().map(|node| self.hears(*node, index, until));
        let heard = join_all(asked).await;
        let silent = others.iter().zip(heard).filter(|(_, heard)| !heard);
        let silent: Vec<String> = silent.map(|(node, _)| self.node_name(*node)).collect();
        match silent.is_empty() {
            true => Ok(()),
            false => Err(not_yet(format!(
                "the deletion is recorded, but {} has not heard of it yet: what is written through it may be deleted too",
                silent.join(", ")
            ))),
        }
    }

    /// Whether a node hears of it in time, or is not alive any more.
    async fn hears(&self, node: NodeId, index: u64, until: Instant) -> bool {
        loop {
            let answer = self.ask::<_, ()>(node, KIND_FOLLOWED, &index, HEARD_TIMEOUT);
            if answer.await.is_ok() || !self.others_alive().contains(&node) {
                return true;
            }
            if Instant::now() >= until {
                return false;
            }
            tokio::time::sleep(HEARD_PAUSE).await;
        }
    }

    /// The other members that gossip takes to be alive.
    fn others_alive(&self) -> Vec<NodeId> {
        let state = self.metadata.state();
        let view = self.gossip.watch().borrow().clone();
        let alive = view
            .members
            .iter()
            .filter(|m| m.state == MemberState::Alive);
        let alive = alive.map(|member| member.identity.node);
        alive
            .filter(|node| *node != self.identity.node && state.member(*node).is_some())
            .collect()
    }

    /// Answers a peer that asks whether this node has heard of something.
    ///
    /// # Errors
    /// When it has not within some seconds.
    pub(super) async fn answer_followed(&self, index: u64) -> Result<(), Status> {
        let followed = self.has_followed(index).await;
        followed.map_err(|error| Status::unavailable(error.to_string()))
    }
}

/// Rewrites this node's blocks without what was deleted.
///
/// # Errors
/// When the store refuses.
pub(super) async fn clean(plane: std::sync::Arc<DataPlane>) -> Result<(), Status> {
    let work = tokio::task::spawn_blocking(move || plane.rewrite_blocks());
    let done = work
        .await
        .map_err(|error| Status::internal(error.to_string()))?;
    done.map_err(|error| Status::unavailable(format!("{error:#}")))
}

fn not_yet(message: String) -> ApiError {
    ApiError::Unavailable {
        message,
        retry_after: Duration::from_secs(1),
    }
}
