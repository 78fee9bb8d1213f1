//! Commands on their way to the leader, and at the leader.
//!
//! A node proposes through *lanes*: each has its own client id and one proposal in flight, so the
//! state machine needs to remember only the newest serial per client. At the leader, proposals that
//! arrive while the last entry is being replicated go into the next entry together.

use crate::MetadataError;
use crate::engine::{Batch, Raft, Replies};
use crate::plane::wire::ProposeAnswer;
use crate::state::{Command, Proposal, Reply, limits::PROPOSAL_BYTES_MAX};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use trefoil_model::NodeId;

/// Proposals of one node that are under way at a time.
const LANES: usize = 64;
/// Proposals of one node that wait for a lane; more are refused as overload.
const WAITING_MAX: usize = 4096;
/// Proposals that wait at the leader for the next entry; more make their senders wait.
const QUEUE_MAX: usize = 4096;
/// Proposals in one entry.
const BATCH_PROPOSALS_MAX: usize = 512;

/// The lanes of a node.
pub(super) struct Lanes {
    free: Arc<Mutex<Vec<Lane>>>,
    permits: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

#[derive(Clone, Copy)]
struct Lane {
    client: u128,
    serial: u64,
}

/// A lane in use. Going back to the others, it never uses the serial again, whatever became of the
/// proposal.
pub(super) struct LaneInUse {
    lane: Lane,
    free: Arc<Mutex<Vec<Lane>>>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for LaneInUse {
    fn drop(&mut self) {
        self.free.lock().push(self.lane);
    }
}

impl LaneInUse {
    /// The command as a proposal of this lane.
    ///
    /// # Errors
    /// [`MetadataError::TooLarge`].
    pub(super) fn proposal(&self, command: Command) -> Result<Proposal, MetadataError> {
        let proposal = Proposal {
            client: self.lane.client,
            serial: self.lane.serial,
            leader_elapsed_ms: 0,
            command,
        };
        let bytes = crate::codec::encode_bare(&proposal)?.len();
        if bytes > PROPOSAL_BYTES_MAX {
            return Err(MetadataError::TooLarge {
                bytes,
                max: PROPOSAL_BYTES_MAX,
            });
        }
        Ok(proposal)
    }
}

impl Lanes {
    pub(super) fn new() -> Self {
        let lane = |_| Lane {
            client: rand::random(),
            serial: 0,
        };
        Self {
            free: Arc::new(Mutex::new((0..LANES).map(lane).collect())),
            permits: Arc::new(Semaphore::new(LANES)),
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
        }
    }

    /// Takes a lane, waiting for one if need be.
    ///
    /// # Errors
    /// [`MetadataError::Overloaded`] when too many wait already.
    pub(super) async fn take(&self) -> Result<LaneInUse, MetadataError> {
        let Ok(_waiting) = self.waiting.try_acquire() else {
            return Err(MetadataError::Overloaded { max: WAITING_MAX });
        };
        let stopped = || MetadataError::Stopped {
            reason: "the node is shutting down".to_owned(),
        };
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let permit = permit.map_err(|_| stopped())?;
        let mut lane = self.free.lock().pop().ok_or_else(stopped)?;
        lane.serial += 1;
        Ok(LaneInUse {
            lane,
            free: Arc::clone(&self.free),
            _permit: permit,
        })
    }
}

/// A proposal that waits at the leader.
struct Waiting {
    proposal: Proposal,
    answer: oneshot::Sender<ProposeAnswer>,
}

/// The leader's queue of proposals. On other nodes it answers that they are not the leader.
#[derive(Clone)]
pub(super) struct LeaderQueue {
    sender: mpsc::Sender<Waiting>,
}

impl LeaderQueue {
    /// Starts the queue's task; it ends when the last handle goes.
    pub(super) fn start(raft: Raft, deadline: Duration) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(run(raft, receiver, deadline));
        Self { sender }
    }

    /// Proposes at this node, if it is the leader.
    pub(super) async fn propose(&self, proposal: Proposal) -> ProposeAnswer {
        let failed = || ProposeAnswer::Failed {
            reason: "the node is shutting down".to_owned(),
        };
        let (answer, receiver) = oneshot::channel();
        if self
            .sender
            .send(Waiting { proposal, answer })
            .await
            .is_err()
        {
            return failed();
        }
        receiver.await.unwrap_or_else(|_| failed())
    }
}

async fn run(raft: Raft, mut queue: mpsc::Receiver<Waiting>, deadline: Duration) {
    let began = Instant::now();
    let mut batch = Vec::new();
    while queue.recv_many(&mut batch, BATCH_PROPOSALS_MAX).await > 0 {
        let waiting = std::mem::take(&mut batch);
        let elapsed_ms = began.elapsed().as_millis() as u64;
        for part in split(waiting) {
            propose_batch(&raft, part, elapsed_ms, deadline).await;
        }
    }
}

/// Cuts a batch where an entry would become larger than the largest single proposal may be.
fn split(waiting: Vec<Waiting>) -> Vec<Vec<Waiting>> {
    let mut parts = Vec::new();
    let mut part = Vec::new();
    let mut part_bytes = 0;
    for one in waiting {
        // A proposal that cannot be encoded cannot have arrived; should it, it goes alone and is
        // refused there.
        let bytes = crate::codec::encode_bare(&one.proposal).map_or(usize::MAX, |b| b.len());
        if !part.is_empty() && bytes.saturating_add(part_bytes) > PROPOSAL_BYTES_MAX {
            parts.push(std::mem::take(&mut part));
            part_bytes = 0;
        }
        part_bytes = bytes.saturating_add(part_bytes);
        part.push(one);
    }
    parts.push(part);
    parts
}

async fn propose_batch(raft: &Raft, waiting: Vec<Waiting>, elapsed_ms: u64, deadline: Duration) {
    let mut proposals = Vec::with_capacity(waiting.len());
    let mut answers = Vec::with_capacity(waiting.len());
    for one in waiting {
        proposals.push(Proposal {
            leader_elapsed_ms: elapsed_ms,
            ..one.proposal
        });
        answers.push(one.answer);
    }
    let written = raft.client_write(Batch { proposals });
    let outcome = match tokio::time::timeout(deadline, written).await {
        Err(_) => Err(ProposeAnswer::Failed {
            reason: "no majority of the voters answered in time".to_owned(),
        }),
        Ok(Err(error)) => Err(match error.forward_to_leader() {
            Some(forward) => ProposeAnswer::NotLeader {
                leader: forward.leader_id.map(NodeId),
            },
            None => ProposeAnswer::Failed {
                reason: error.to_string(),
            },
        }),
        Ok(Ok(response)) => Ok(response.data),
    };
    deliver(answers, outcome);
}

fn deliver(answers: Vec<oneshot::Sender<ProposeAnswer>>, outcome: Result<Replies, ProposeAnswer>) {
    let mut replies: Vec<Reply> = match &outcome {
        Ok(replies) => replies.0.clone(),
        Err(_) => Vec::new(),
    };
    replies.reverse();
    for answer in answers {
        let message = match (&outcome, replies.pop()) {
            (Err(failed), _) => failed.clone(),
            (Ok(_), Some(reply)) => ProposeAnswer::Done(reply),
            (Ok(_), None) => ProposeAnswer::Failed {
                reason: "the entry has fewer replies than proposals".to_owned(),
            },
        };
        // A proposer that went away asks again with the same serial, or does not care.
        drop(answer.send(message));
    }
}
