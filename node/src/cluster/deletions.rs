//! Deleting series: a numbered fact of the metadata plane, which all owners apply.
//!
//! A write is stamped with the newest deletion that its coordinator knows, and is erased by later ones. So a deletion has
//! succeeded when every live node knows it: what is written after that is newer, through whichever node it comes.

use super::{
    Cluster,
    admin::{KIND_CLEAN, KIND_FOLLOWED, refused},
    known_deletions::compile,
};
use crate::data_plane::DataPlane;
use futures::future::join_all;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};
use tonic::{Code, Status};
use trefoil_api::{ApiError, SeriesDeletion, TenantName};
use trefoil_gossip::MemberState;
use trefoil_model::{DeletionVersion, NodeId, Signal, TenantId};
use trefoil_raft::{Command, Reply, state::limits::DELETIONS_PENDING_MAX};

/// How long a live node may take to hear of a deletion: beyond it the client hears that one has not. Gossip knows a
/// dead one sooner.
const HEARD_PATIENCE: Duration = Duration::from_secs(10);
/// How long one question may take.
const HEARD_TIMEOUT: Duration = Duration::from_secs(3);
/// Between two questions of the same node.
const HEARD_PAUSE: Duration = Duration::from_millis(100);
/// How long a node may take to rewrite its blocks.
const CLEAN_TIMEOUT: Duration = Duration::from_secs(300);

/// What a node is asked whether its store knows it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Followed {
    /// The place in the metadata plane's log.
    index: u64,
    /// A deletion that it has to apply.
    deletion: Option<(TenantId, DeletionVersion)>,
}

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
        // All of them before the first is recorded: it cannot be taken back.
        check_selectors(&deletion.selectors)?;
        let Some(tenant) = self.tenant_to_delete(tenant).await? else {
            return Ok(());
        };
        let pending = self.metadata.state().deletions(tenant).count();
        check_room(pending, deletion.selectors.len())?;
        let all = deletion.selectors.len();
        let mut recorded = Vec::with_capacity(all);
        let mut failed = None;
        for selector in deletion.selectors {
            let logged = selector.clone();
            let command = Command::CreateDeletion {
                tenant,
                signal: Signal::Metrics,
                selector,
                range: deletion.range,
            };
            match self.command(command).await {
                Ok(Reply::Deletion(version)) => {
                    tracing::info!(%tenant, ?version, selector = logged, "series are deleted");
                    recorded.push(version);
                }
                Ok(other) => {
                    failed = Some(not_yet(format!("an answer to another command: {other:?}")))
                }
                Err(error) => failed = Some(error),
            }
            if failed.is_some() {
                break;
            }
        }
        // Those that are recorded delete, so they have to be heard of also when a later one failed.
        let heard = match recorded.last() {
            Some(newest) => self.wait_until_known(Some((tenant, *newest))).await,
            None => Ok(()),
        };
        match failed {
            None => heard,
            Some(error) if recorded.is_empty() => Err(error),
            Some(error) => Err(partly_recorded(
                recorded.len(),
                all,
                &error,
                heard.err().as_ref(),
            )),
        }
    }

    /// The tenant, if it has ever written, and if what was deleted of it before can be applied here: what follows a deletion
    /// that a program cannot read is not applied by it either.
    async fn tenant_to_delete(&self, name: &TenantName) -> Result<Option<TenantId>, ApiError> {
        let state = self.metadata.read_linearizable().await.map_err(refused)?;
        let followed = self.has_followed(state.applied().index).await;
        followed.map_err(refused)?;
        let Some(tenant) = state.tenant_id(name.as_str()) else {
            return Ok(None);
        };
        let recorded = state.tenant(tenant).map(|tenant| tenant.deletions_newest);
        let known = self.newest_deletion(tenant);
        match recorded.is_some_and(|newest| newest > known) {
            true => Err(ApiError::Conflict(format!(
                "nothing was deleted: this node's program cannot read deletion {} of this tenant, which another version \
                 recorded, and could apply none after it",
                known.next()
            ))),
            false => Ok(Some(tenant)),
        }
    }

    /// Has all live nodes rewrite the blocks that still have what was deleted.
    ///
    /// # Errors
    /// As `Backend::clean_tombstones`.
    pub(crate) async fn clean_tombstones(&self) -> Result<(), ApiError> {
        self.check_enabled()?;
        self.wait_until_known(None).await?;
        let others = self.others_active();
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

    pub(super) fn check_enabled(&self) -> Result<(), ApiError> {
        match self.settings.enable_admin_api {
            true => Ok(()),
            false => Err(ApiError::Unavailable {
                message: "admin APIs disabled; start the node with --enable-admin-api".to_owned(),
                retry_after: Duration::from_secs(60),
            }),
        }
    }

    /// Waits until the stores of all live nodes know what is decided by now, and apply this deletion.
    async fn wait_until_known(
        &self,
        deletion: Option<(TenantId, DeletionVersion)>,
    ) -> Result<(), ApiError> {
        let state = self.metadata.read_linearizable().await.map_err(refused)?;
        let index = state.applied().index;
        let wanted = Followed { index, deletion };
        let own = self.answer_followed(wanted).await;
        let until = Instant::now() + HEARD_PATIENCE;
        let others = self.others_active();
        let asked = others.iter().map(|node| self.hears(*node, wanted, until));
        let own = (self.identity.node, own);
        let heard = others.iter().copied().zip(join_all(asked).await);
        let silent = heard
            .chain([own])
            .filter_map(|(node, heard)| Some((node, heard.err()?)));
        let silent: Vec<String> = silent
            .map(|(node, status)| format!("{} ({})", self.node_name(node), status.message()))
            .collect();
        match silent.is_empty() {
            true => Ok(()),
            false => Err(not_yet(format!(
                "the deletion is recorded, but not known to {}: what is written through it may be deleted too",
                silent.join(", ")
            ))),
        }
    }

    /// Whether a node hears of it in time, or is gone.
    async fn hears(&self, node: NodeId, wanted: Followed, until: Instant) -> Result<(), Status> {
        loop {
            let answer = self.ask::<_, ()>(node, KIND_FOLLOWED, &wanted, HEARD_TIMEOUT);
            let answer = answer.await;
            if answer.is_ok() || !self.others_active().contains(&node) {
                return Ok(());
            }
            let never = matches!(&answer, Err(status) if status.code() == Code::FailedPrecondition);
            if never || Instant::now() >= until {
                return answer;
            }
            tokio::time::sleep(HEARD_PAUSE).await;
        }
    }

    /// The other members that may take writes. A suspect is one: it is often only slow, and it is down soon if it is not.
    pub(super) fn others_active(&self) -> Vec<NodeId> {
        let state = self.metadata.state();
        let view = self.gossip.watch().borrow().clone();
        let seen = view.members.iter();
        active(seen.map(|member| (member.identity.node, member.state)))
            .filter(|node| *node != self.identity.node && state.member(*node).is_some())
            .collect()
    }

    /// Answers a peer that asks whether this node has heard of something.
    ///
    /// # Errors
    /// When it has not within some seconds; [`Code::FailedPrecondition`] when it never will apply the deletion with this
    /// program.
    pub(super) async fn answer_followed(&self, wanted: Followed) -> Result<(), Status> {
        let followed = self.has_followed(wanted.index).await;
        followed.map_err(|error| Status::unavailable(error.to_string()))?;
        match wanted.deletion {
            Some((tenant, version)) if self.newest_deletion(tenant) < version => Err(
                Status::failed_precondition("its program cannot read a deletion before this one"),
            ),
            _ => Ok(()),
        }
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

fn active(seen: impl Iterator<Item = (NodeId, MemberState)>) -> impl Iterator<Item = NodeId> {
    let active = seen.filter(|(_, state)| state.is_active());
    active.map(|(node, _)| node)
}

/// Refuses what a store could not apply: once recorded, it would stay for ever.
fn check_selectors(selectors: &[String]) -> Result<(), ApiError> {
    for selector in selectors {
        compile(selector).map_err(|error| ApiError::parameter("match[]", error))?;
    }
    Ok(())
}

fn check_room(pending: usize, wanted: usize) -> Result<(), ApiError> {
    match pending + wanted <= DELETIONS_PENDING_MAX {
        true => Ok(()),
        false => Err(ApiError::Conflict(format!(
            "nothing was deleted: {pending} deletions are pending, with these {wanted} they would be more than \
             {DELETIONS_PENDING_MAX}"
        ))),
    }
}

/// The answer when some selectors are recorded and a later one is not; of the kind of what went wrong.
fn partly_recorded(
    recorded: usize,
    all: usize,
    error: &ApiError,
    unheard: Option<&ApiError>,
) -> ApiError {
    let unheard = unheard.map_or(String::new(), |why| format!("; {why}"));
    let message =
        format!("{recorded} of {all} selectors are recorded as deletions, then: {error}{unheard}");
    match error {
        ApiError::Conflict(_) => ApiError::Conflict(message),
        _ => not_yet(message),
    }
}

fn not_yet(message: String) -> ApiError {
    ApiError::Unavailable {
        message,
        retry_after: Duration::from_secs(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::known_deletions;

    #[test]
    fn suspects_are_waited_for() {
        let states = [
            MemberState::Alive,
            MemberState::Suspect,
            MemberState::Down,
            MemberState::Left,
        ];
        let seen = states.into_iter().enumerate();
        let seen = seen.map(|(index, state)| (NodeId(index as u64), state));
        let waited_for: Vec<NodeId> = active(seen).collect();
        assert_eq!(waited_for, [NodeId(0), NodeId(1)]);
    }

    #[test]
    fn all_selectors_are_checked_before_the_first_is_recorded() {
        let right = ["up".to_owned(), "{a=~\"b.*\"}".to_owned()];
        assert!(check_selectors(&right).is_ok());
        // The parser takes it, the store does not.
        let wrong = ["up".to_owned(), known_deletions::expensive()];
        assert_eq!(check_selectors(&wrong).map_err(|e| e.status()), Err(400));
        assert!(check_room(DELETIONS_PENDING_MAX - 2, 2).is_ok());
        let refused = check_room(DELETIONS_PENDING_MAX - 1, 2);
        assert_eq!(refused.map_err(|e| e.status()), Err(409));
    }

    #[test]
    fn what_is_recorded_is_said_when_a_later_one_fails() {
        let error = ApiError::Conflict("there is no room".to_owned());
        let unheard = not_yet("b has not heard".to_owned());
        let answer = partly_recorded(2, 3, &error, Some(&unheard));
        assert_eq!(answer.status(), 409);
        let text = answer.to_string();
        for part in ["2 of 3", "there is no room", "b has not heard"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
