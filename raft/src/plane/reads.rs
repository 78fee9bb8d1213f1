//! Linearizable reads: one question to the leader at a time, shared by all who wait.
//!
//! A reader joins the next question, never the one under way, because the read index must be taken
//! after the reader asked. The leader proves by a round of heartbeats that it still leads.
//!
//! openraft takes for a read index the larger of its commit index and the first entry of the
//! leader's term. That is right for a leader that was elected in this run. A leader that was
//! restarted and is still the leader of its term goes on as such, and its commit index is then only
//! what was on disk, which may be older than entries that it acknowledged before. All of those are
//! in its log, so a read index is never below the log's end at the start, unless a newer term began.

use super::network::Peers;
use super::wire::ReadAnswer;
use crate::engine::{LogId, Raft};
use crate::state::State;
use crate::transport::RpcKind;
use openraft::EmptyNode;
use openraft::error::{CheckIsLeaderError, RaftError};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use trefoil_model::NodeId;

/// Why the library has no read index.
type ReadError = RaftError<u64, CheckIsLeaderError<u64, EmptyNode>>;

/// Readers that wait for the next question; more wait for a place.
const WAITING_MAX: usize = 16_384;

/// Who wants a read index.
struct Waiting {
    /// Asked by a peer that takes this node for the leader: not passed on.
    from_peer: bool,
    answer: oneshot::Sender<ReadAnswer>,
}

/// The queue of readers.
#[derive(Clone)]
pub(super) struct ReadQueue {
    sender: mpsc::Sender<Waiting>,
}

impl ReadQueue {
    /// Starts the queue's task; it ends when the last handle goes.
    /// `log_end` is the end of the log when the process started.
    pub(super) fn start(
        node: NodeId,
        (raft, state): (Raft, watch::Receiver<Arc<State>>),
        peers: Peers,
        deadline: Duration,
        log_end: Option<LogId>,
    ) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let task = Task {
            node,
            raft,
            state,
            peers,
            deadline,
            log_end,
        };
        tokio::spawn(task.run(receiver));
        Self { sender }
    }

    /// A read index that was taken after this call began.
    pub(super) async fn index(&self, from_peer: bool) -> ReadAnswer {
        let failed = || ReadAnswer::Failed {
            reason: "the node is shutting down".to_owned(),
        };
        let (answer, receiver) = oneshot::channel();
        let waiting = Waiting { from_peer, answer };
        if self.sender.send(waiting).await.is_err() {
            return failed();
        }
        receiver.await.unwrap_or_else(|_| failed())
    }
}

struct Task {
    node: NodeId,
    raft: Raft,
    /// For names of nodes.
    state: watch::Receiver<Arc<State>>,
    peers: Peers,
    deadline: Duration,
    log_end: Option<LogId>,
}

impl Task {
    async fn run(self, mut queue: mpsc::Receiver<Waiting>) {
        let mut batch = Vec::new();
        while queue.recv_many(&mut batch, WAITING_MAX).await > 0 {
            let local = self.ask_here().await;
            let passed_on = match &local {
                ReadAnswer::NotLeader {
                    leader: Some(leader),
                } if *leader != self.node && batch.iter().any(|one| !one.from_peer) => {
                    self.ask_leader(*leader).await
                }
                answer => answer.clone(),
            };
            for one in batch.drain(..) {
                let answer = match one.from_peer {
                    true => local.clone(),
                    false => passed_on.clone(),
                };
                // A reader that went away does not need the answer.
                drop(one.answer.send(answer));
            }
        }
    }

    async fn ask_here(&self) -> ReadAnswer {
        match tokio::time::timeout(self.deadline, self.raft.get_read_log_id()).await {
            Err(_) => ReadAnswer::Failed {
                reason: "no majority of the voters answered in time".to_owned(),
            },
            // Ids compare by term first, so this is the old end only while its term goes on.
            Ok(Ok((read, _))) => ReadAnswer::Done(read.max(self.log_end).map_or(0, |id| id.index)),
            Ok(Err(error)) => match error.forward_to_leader() {
                Some(forward) => ReadAnswer::NotLeader {
                    leader: forward.leader_id.map(NodeId),
                },
                None => ReadAnswer::Failed {
                    reason: self.in_words(&error),
                },
            },
        }
    }

    /// The failure for people: the library names voters by ids that nobody knows.
    fn in_words(&self, error: &ReadError) -> String {
        let RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(lack)) = error else {
            return error.to_string();
        };
        let state = self.state.borrow();
        let name = |node: &u64| match state.member(NodeId(*node)) {
            Some(member) => member.description.name.clone(),
            None => NodeId(*node).to_string(),
        };
        let answered: Vec<String> = lack.got.iter().map(name).collect();
        let answered = match answered.is_empty() {
            true => "none".to_owned(),
            false => answered.join(", "),
        };
        format!("no majority of the voters answered; only: {answered}")
    }

    async fn ask_leader(&self, leader: NodeId) -> ReadAnswer {
        let answer = self
            .peers
            .call(leader, RpcKind::ReadIndex, &(), self.deadline)
            .await;
        answer.unwrap_or_else(|error| ReadAnswer::Failed {
            reason: error.to_string(),
        })
    }
}
