//! Whether this node is still part of its cluster.
//!
//! A node that is removed while it runs mostly reads it in the log. One that was cut off meanwhile, or that left the Raft group before
//! it had the entry, is told nothing any more: when it cannot read what the others know, it asks to be a member, and is refused.

use super::{MetadataPlane, Role};
use crate::MetadataError;
use crate::state::{Command, MemberDescription, MemberState, Refusal};
use tokio::time::{Instant, timeout};

/// How many election time-outs lie between two questions whether others still decide with this node.
const ASKS_AFTER: u32 = 10;

impl MetadataPlane {
    /// Waits until the node was removed from its cluster for good, and the others decide without it. `description` is what the node
    /// says of itself in this run.
    pub async fn removed(&self, description: MemberDescription) {
        let options = &self.inner.options;
        let mut looks = tokio::time::interval(options.automation_interval);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let pause = options.election_max * ASKS_AFTER;
        let mut asked = Instant::now();
        loop {
            looks.tick().await;
            if self.is_removed_here() {
                return;
            }
            if asked.elapsed() < pause {
                continue;
            }
            asked = Instant::now();
            if self.is_refused(&description).await {
                return;
            }
        }
    }

    /// Whether the log says so. A voter stays until it is certain that it is none: the majority may need it.
    fn is_removed_here(&self) -> bool {
        let state = self.state();
        let is_removed = state
            .member(self.inner.node)
            .is_some_and(|member| member.state == MemberState::Removed);
        is_removed && !self.votes()
    }

    /// Whether this node votes, or may vote as long as the newest change of the voters is not decided.
    fn votes(&self) -> bool {
        let metrics = self.inner.raft.metrics().borrow().clone();
        let group = &metrics.membership_config;
        let is_decided = *group.log_id() <= metrics.last_applied;
        !is_decided || group.voter_ids().any(|voter| voter == self.inner.node.0)
    }

    /// Whether a leader says so, that this node does not hear.
    async fn is_refused(&self, description: &MemberDescription) -> bool {
        let status = self.status();
        let leads = status.role == Role::Leader;
        let follows = status.leader.is_some() && self.votes();
        if leads || follows {
            return false;
        }
        let patience = self.inner.options.election_max * ASKS_AFTER;
        if let Ok(Ok(_)) = timeout(patience, self.read_linearizable()).await {
            return false;
        }
        let again = Command::AddMember {
            node: self.inner.node,
            description: description.clone(),
        };
        let refused = self.propose(again).await;
        matches!(
            refused,
            Err(MetadataError::Refused(Refusal::MemberRemoved { .. }))
        )
    }
}
