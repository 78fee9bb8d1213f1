//! Which node adds deltas up: the holder of a lease of the metadata plane.
//!
//! Whoever gets deltas and finds no holder takes the lease; whoever uses it renews it, and without deltas it lapses. Who
//! held it last is still asked first, so that totals do not move without need. The holder counts the term from before it
//! asked, on the boot clock, and uses 0.8 of it. While nobody can say who holds it, because the metadata plane has no
//! majority, requests share one question: none waits for another one's, and all are told to come later.

use super::Cluster;
use crate::{
    clock,
    deltas::message::{Answered, Deltas, KIND_DELTAS},
};
use parking_lot::Mutex;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tonic::{Code, Status};
use trefoil_api::ApiError;
use trefoil_model::NodeId;
use trefoil_raft::{Command, MetadataError, Refusal, Reply};

/// The name of the lease.
const NAME: &str = "otlp-deltas";
/// How long nobody else can get it, in milliseconds: as long deltas wait when its holder dies.
const TERM_MS: u64 = 10_000;
/// How long the holder uses it from before it asked.
const USED: Duration = Duration::from_millis(TERM_MS * 8 / 10);
/// It is renewed behind a request that finds it older than this.
const RENEWED_AFTER: Duration = Duration::from_millis(TERM_MS * 3 / 10);
/// Between two questions for a lease that another node has: requests of that time share an answer.
const ASKED_AGAIN_AFTER: Duration = Duration::from_millis(200);
/// How long the metadata plane may take to say who has it: an election, not an outage. Requests wait meanwhile.
const ANSWERED_WITHIN: Duration = Duration::from_secs(3);
/// How long requests share that it did not say so.
const ASKED_AGAIN_AFTER_FAILURE: Duration = Duration::from_secs(1);
/// When senders should try again that nobody could tell who has it: all else of their requests is stored each time.
const RETRY_AFTER_FAILURE: Duration = Duration::from_secs(5);
/// How long a node that stops waits until the lease is given back.
const GIVING_BACK_MAX: Duration = Duration::from_secs(1);

/// This node's side of the lease.
#[derive(Default)]
pub(crate) struct DeltaLease {
    held: Mutex<Option<Held>>,
    /// What became of the last question that did not get it, and until when that is not asked again.
    refused: Mutex<Option<(Result<Holder, String>, Duration)>>,
    /// Taken by who asks for it.
    asking: tokio::sync::Mutex<()>,
    /// Whether this node is about to stop.
    is_closed: AtomicBool,
}

#[derive(Clone, Copy)]
struct Held {
    fencing: u64,
    /// By the boot clock, before it was asked for.
    asked: Duration,
}

/// Who holds the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// This node, under this fencing number.
    Here(u64),
    /// Another node, for so long at most.
    Other(NodeId, Duration),
}

impl DeltaLease {
    /// What is held at this time, and whether it should be renewed.
    fn used(&self, now: Duration) -> Option<(u64, bool)> {
        let held = (*self.held.lock())?;
        let age = now.saturating_sub(held.asked);
        (age < USED).then_some((held.fencing, age >= RENEWED_AFTER))
    }

    /// What need not be asked at this time.
    fn known(&self, now: Duration) -> Option<Result<Holder, ApiError>> {
        if let Some((fencing, _)) = self.used(now) {
            return Some(Ok(Holder::Here(fencing)));
        }
        self.refused_at(now).map(|answer| answer.map_err(unknown))
    }

    /// Why it need not be asked for at this time, though it is held as well: the answer would be the same.
    fn refused_at(&self, now: Duration) -> Option<Result<Holder, String>> {
        let refused = self.refused.lock();
        let (answer, until) = refused.as_ref()?;
        (now < *until).then(|| answer.clone())
    }

    /// Notes that the lease was not got.
    fn refuse(&self, answer: Result<Holder, String>) {
        let pause = match answer {
            Ok(_) => ASKED_AGAIN_AFTER,
            Err(_) => ASKED_AGAIN_AFTER_FAILURE,
        };
        *self.refused.lock() = Some((answer, clock::boot() + pause));
    }
}

impl Cluster {
    /// The other node that held the lease last, if it can be reached.
    pub(crate) fn delta_holder(&self) -> Option<NodeId> {
        let state = self.metadata.state();
        let holder = state.lease(NAME)?.holder;
        (holder != self.identity.node && self.is_reachable(holder)).then_some(holder)
    }

    /// Whether another node seems to be there.
    pub(crate) fn is_reachable(&self, node: NodeId) -> bool {
        self.directory.get(node).is_some_and(|w| w.alive)
    }

    /// Uses the lease, or takes it if nobody has it.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`] when the metadata plane does not answer.
    pub(crate) async fn hold_deltas(self: &Arc<Self>) -> Result<Holder, ApiError> {
        if self.is_done_with_deltas() {
            return Err(unknown("this node stops".to_owned()));
        }
        let lease = &self.delta_lease;
        match lease.used(clock::boot()) {
            Some((fencing, false)) => return Ok(Holder::Here(fencing)),
            Some((fencing, true)) => {
                let cluster = self.clone();
                tokio::spawn(async move {
                    let Ok(_asking) = cluster.delta_lease.asking.try_lock() else {
                        return;
                    };
                    // Each request comes here while it cannot be renewed.
                    if cluster.delta_lease.refused_at(clock::boot()).is_some() {
                        return;
                    }
                    if let Err(error) = cluster.ask_for_deltas().await {
                        tracing::warn!(%error, "cannot renew the lease of deltas");
                    }
                });
                return Ok(Holder::Here(fencing));
            }
            None => {}
        }
        if let Some(known) = lease.known(clock::boot()) {
            return known;
        }
        let _asking = lease.asking.lock().await;
        // By a request that had its turn before.
        match lease.known(clock::boot()) {
            Some(known) => known,
            None => self.ask_for_deltas().await,
        }
    }

    /// Asks for the lease; who does has taken `asking`.
    async fn ask_for_deltas(&self) -> Result<Holder, ApiError> {
        let lease = &self.delta_lease;
        if self.is_done_with_deltas() {
            return Err(unknown("this node stops".to_owned()));
        }
        let asked = clock::boot();
        let command = Command::AcquireLease {
            name: NAME.to_owned(),
            holder: self.identity.node,
            incarnation: self.identity.incarnation,
            term_ms: TERM_MS,
        };
        let reply = tokio::time::timeout(ANSWERED_WITHIN, self.metadata.propose(command));
        let failed = match reply.await {
            Ok(Ok(Reply::Lease { fencing })) => {
                *lease.held.lock() = Some(Held { fencing, asked });
                return Ok(Holder::Here(fencing));
            }
            Ok(Err(MetadataError::Refused(Refusal::LeaseHeld {
                holder,
                remaining_ms,
            }))) => {
                let holder = Holder::Other(holder, Duration::from_millis(remaining_ms));
                lease.refuse(Ok(holder));
                return Ok(holder);
            }
            Ok(Ok(other)) => format!("it answered {other:?}"),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it did not answer in time".to_owned(),
        };
        lease.refuse(Err(failed.clone()));
        Err(unknown(failed))
    }

    /// Whether the lease is still held under this number.
    pub(crate) fn holds_deltas(&self, fencing: u64) -> bool {
        let used = self.delta_lease.used(clock::boot());
        used.is_some_and(|(held, _)| held == fencing)
    }

    /// Whether the lease is held.
    pub(crate) fn adds_up(&self) -> bool {
        self.delta_lease.used(clock::boot()).is_some()
    }

    /// Whether this node takes the lease no more.
    pub(crate) fn is_done_with_deltas(&self) -> bool {
        self.delta_lease.is_closed.load(Ordering::Acquire)
    }

    /// Gives the lease back before the node stops, so that another one need not wait for its end. A question for it that is under
    /// way is waited for: it would take the lease again.
    pub(crate) async fn give_deltas_back(&self) {
        let lease = &self.delta_lease;
        lease.is_closed.store(true, Ordering::Release);
        let released = async {
            let _asking = lease.asking.lock().await;
            let (fencing, _) = lease.used(clock::boot())?;
            *lease.held.lock() = None;
            let command = Command::ReleaseLease {
                name: NAME.to_owned(),
                fencing,
            };
            Some(self.metadata.propose(command).await)
        };
        let released = tokio::time::timeout(GIVING_BACK_MAX, released).await;
        if !matches!(released, Ok(None | Some(Ok(_)))) {
            tracing::debug!("the lease of deltas ends by itself");
        }
    }

    /// Hands deltas to the node that adds them up. `None`: it was not reached and has not got them.
    pub(crate) async fn hand_over_deltas(
        &self,
        holder: NodeId,
        deltas: &mut Deltas,
        deadline: Instant,
    ) -> Option<Answered> {
        let left = deadline.saturating_duration_since(Instant::now());
        deltas.timeout_ms = left.as_millis() as u64;
        let asked: Result<Answered, Status> = self.ask(holder, KIND_DELTAS, deltas, left).await;
        match asked {
            Ok(answered) => Some(answered),
            // An older program, another run of the node, or nobody.
            Err(status)
                if matches!(
                    status.code(),
                    Code::Unavailable | Code::FailedPrecondition | Code::Unimplemented
                ) =>
            {
                tracing::debug!(%holder, error = status.message(), "hand deltas over");
                None
            }
            Err(status) => {
                let holder = self.node_name(holder);
                let reason = status.message();
                Some(Answered::Later {
                    message: format!(
                        "node {holder}, which adds deltas up, did not answer: {reason}"
                    ),
                    retry_after_ms: 1000,
                })
            }
        }
    }
}

fn unknown(reason: String) -> ApiError {
    ApiError::Unavailable {
        message: format!("which node adds deltas up cannot be recorded now: {reason}"),
        retry_after: RETRY_AFTER_FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_used_for_less_than_its_term() {
        let lease = DeltaLease::default();
        let asked = Duration::from_secs(100);
        assert_eq!(lease.used(asked), None);
        *lease.held.lock() = Some(Held { fencing: 7, asked });
        assert_eq!(lease.used(asked), Some((7, false)));
        assert_eq!(lease.used(asked + RENEWED_AFTER), Some((7, true)));
        assert_eq!(lease.used(asked + USED), None);
        assert!(USED < Duration::from_millis(TERM_MS));
    }

    #[test]
    fn requests_share_an_answer_and_a_failure_for_a_while() {
        let lease = DeltaLease::default();
        assert!(lease.known(clock::boot()).is_none());
        lease.refuse(Err("no leader".to_owned()));
        let now = clock::boot();
        let Some(Err(ApiError::Unavailable { retry_after, .. })) = lease.known(now) else {
            panic!("{:?}", lease.known(now));
        };
        assert_eq!(retry_after, RETRY_AFTER_FAILURE);
        assert!(lease.known(now + ASKED_AGAIN_AFTER_FAILURE).is_none());
        let holder = Holder::Other(NodeId(3), Duration::from_secs(2));
        lease.refuse(Ok(holder));
        let now = clock::boot();
        assert!(matches!(lease.known(now), Some(Ok(found)) if found == holder));
        assert!(lease.known(now + ASKED_AGAIN_AFTER).is_none());
        // What is held comes first, and its renewal waits.
        *lease.held.lock() = Some(Held {
            fencing: 7,
            asked: now,
        });
        assert!(matches!(lease.known(now), Some(Ok(Holder::Here(7)))));
        lease.refuse(Err("no leader".to_owned()));
        let now = clock::boot();
        assert!(matches!(lease.known(now), Some(Ok(Holder::Here(7)))));
        assert!(matches!(lease.refused_at(now), Some(Err(_))));
        let later = now + ASKED_AGAIN_AFTER_FAILURE;
        assert_eq!(lease.refused_at(later), None);
    }
}
