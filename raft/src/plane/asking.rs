//! What callers ask of the plane and only a leader can serve: commands, and reads of what was
//! acknowledged.

use super::wire::{LeaderAnswer, ProposeAnswer, ProposeRequest};
use super::{LEADER_POLL, MetadataPlane, stopped};
use crate::MetadataError;
use crate::state::{Command, Proposal, Reply, State};
use crate::transport::RpcKind;
use std::sync::Arc;
use tokio::time::Instant;
use trefoil_model::NodeId;

/// Hints about the leader that are followed one after the other; two nodes can point at each other
/// while they change places.
const HINTS_MAX: usize = 3;

impl MetadataPlane {
    /// Applies a command, from any node. It has one effect or none; the reply is that of its
    /// application.
    ///
    /// # Errors
    /// [`MetadataError::Refused`] when it was applied and refused; [`MetadataError::NoLeader`] when
    /// no leader answered in time, in which case it may still take effect;
    /// [`MetadataError::TooLarge`], [`MetadataError::Overloaded`] and [`MetadataError::Stopped`]
    /// without effect.
    pub async fn propose(&self, command: Command) -> Result<Reply, MetadataError> {
        let deadline = Instant::now() + self.inner.options.propose_deadline;
        let looking = async {
            let lane = self.inner.lanes.take().await?;
            let proposal = lane.proposal(command)?;
            self.propose_until(proposal, deadline).await
        };
        match tokio::time::timeout_at(deadline, looking).await {
            Ok(Ok(Reply::Refused(refusal))) => Err(refusal.into()),
            Ok(outcome) => outcome,
            Err(_) => Err(MetadataError::NoLeader {
                reason: "the deadline passed".to_owned(),
            }),
        }
    }

    /// As [`MetadataPlane::propose`], but only while this node leads: what a leader concluded from its state has no
    /// effect once another node leads, which may know more.
    ///
    /// # Errors
    /// As there; [`MetadataError::NoLeader`] also when this node does not lead.
    pub async fn propose_as_leader(&self, command: Command) -> Result<Reply, MetadataError> {
        let lane = self.inner.lanes.take().await?;
        let proposal = lane.proposal(command)?;
        match self.propose_to(self.inner.node, &proposal).await {
            LeaderAnswer::Done(Reply::Refused(refusal)) => Err(refusal.into()),
            LeaderAnswer::Done(reply) => Ok(reply),
            LeaderAnswer::NotLeader { .. } => Err(MetadataError::NoLeader {
                reason: "another node leads, or none".to_owned(),
            }),
            LeaderAnswer::Failed { reason } => Err(MetadataError::NoLeader { reason }),
        }
    }

    async fn propose_until(
        &self,
        mut proposal: Proposal,
        deadline: Instant,
    ) -> Result<Reply, MetadataError> {
        let mut leader = self.leader();
        let mut hints = 0;
        let mut strangers = 0;
        let begun = Instant::now();
        loop {
            let asked = leader.unwrap_or(self.inner.node);
            let answer = self.propose_to(asked, &proposal).await;
            let reason = match answer {
                LeaderAnswer::Done(reply) => return Ok(reply),
                LeaderAnswer::NotLeader { leader: Some(next) }
                    if next != asked && hints < HINTS_MAX =>
                {
                    hints += 1;
                    leader = Some(next);
                    continue;
                }
                LeaderAnswer::NotLeader { .. } => "there is no leader at the moment".to_owned(),
                LeaderAnswer::Failed { reason } => reason,
            };
            self.check_running()?;
            if Instant::now() + LEADER_POLL >= deadline {
                return Err(MetadataError::NoLeader { reason });
            }
            self.leader_news().await;
            leader = self.leader();
            // An election is over by then: a node that is no longer told who leads asks the others in turn.
            if leader.is_none() && begun.elapsed() > self.inner.options.election_max * 4 {
                leader = self.other(&mut strangers);
            }
            hints = 0;
            if self.inner.options.faults.retries_renumbered {
                proposal.client = rand::random();
            }
        }
    }

    /// Another node that answers, each time the next one.
    fn other(&self, turn: &mut usize) -> Option<NodeId> {
        let view = self.inner.peer_view.borrow();
        let mut others = view.alive.iter().filter(|node| **node != self.inner.node);
        *turn = (*turn + 1) % others.clone().count().max(1);
        others.nth(*turn).copied()
    }

    async fn propose_to(&self, leader: NodeId, proposal: &Proposal) -> ProposeAnswer {
        if leader == self.inner.node {
            return self.inner.leader_queue.propose(proposal.clone()).await;
        }
        let request = ProposeRequest {
            proposal: proposal.clone(),
        };
        // Shorter than the whole deadline, so that a leader that died does not use it up.
        let deadline = self.inner.options.election_max * 2;
        let answer = self
            .inner
            .peers
            .call(leader, RpcKind::Propose, &request, deadline);
        answer.await.unwrap_or_else(|error| LeaderAnswer::Failed {
            reason: error.to_string(),
        })
    }

    /// Waits for a change of what is known about the leader, but not for long.
    async fn leader_news(&self) {
        let mut metrics = self.inner.raft.server_metrics();
        metrics.mark_unchanged();
        // Either way the caller looks again.
        drop(tokio::time::timeout(LEADER_POLL, metrics.changed()).await);
    }

    /// A version of the state that has the effect of everything that was acknowledged before this
    /// call, anywhere.
    ///
    /// # Errors
    /// [`MetadataError::NoLeader`] when no leader could prove that it leads in time.
    pub async fn read_linearizable(&self) -> Result<Arc<State>, MetadataError> {
        let deadline = Instant::now() + self.inner.options.read_deadline;
        let mut reason = "the deadline passed".to_owned();
        while Instant::now() < deadline {
            let asked = tokio::time::timeout_at(deadline, self.inner.read_queue.index(false));
            match asked.await {
                Ok(LeaderAnswer::Done(index)) => {
                    let state = self.state_at(index, deadline).await?;
                    self.note_caught_up();
                    return Ok(state);
                }
                Ok(LeaderAnswer::Failed { reason: failed }) => reason = failed,
                Ok(LeaderAnswer::NotLeader { .. }) => {
                    reason = "there is no leader at the moment".to_owned();
                }
                Err(_) => break,
            }
            self.check_running()?;
            self.leader_news().await;
        }
        Err(MetadataError::NoLeader { reason })
    }

    async fn state_at(&self, index: u64, deadline: Instant) -> Result<Arc<State>, MetadataError> {
        let mut states = self.inner.state.clone();
        let caught_up = states.wait_for(|state| state.applied().index >= index);
        match tokio::time::timeout_at(deadline, caught_up).await {
            Ok(Ok(state)) => Ok(Arc::clone(&state)),
            Ok(Err(error)) => Err(stopped(&error)),
            Err(_) => Err(MetadataError::NoLeader {
                reason: format!("entry {index} was not applied here in time"),
            }),
        }
    }
}
