//! What a node takes on for its peers: a bounded number of parts at once, those of one query on one view. More wait for their turn, but not longer
//! than leaves the coordinator time to ask another owner; a refusal changes nothing.

use super::{pins::Pins, reuse::Reuse};
use crate::data_plane::ReadyPart;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::{Semaphore, SemaphorePermit};
use tonic::Status;

/// Parts that wait for each one that may be in work; more are refused at once.
const WAITING_PER_TURN_MAX: usize = 10;

/// The parts in work for peers.
pub(crate) struct Evaluator {
    turns: Semaphore,
    turns_max: usize,
    waiting: AtomicUsize,
    refused: AtomicU64,
    /// Views for the further parts of queries.
    pub(super) pins: Arc<Pins<ReadyPart>>,
    /// Earlier answers, to this node's own queries too.
    pub(crate) reuse: Arc<Reuse>,
}

/// The numbers of an [`Evaluator`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EvaluatorStatistics {
    /// Parts in work now.
    pub(crate) in_work: usize,
    /// Parts that wait for their turn.
    pub(crate) waiting: usize,
    /// Parts refused since the start, because too many were there.
    pub(crate) refused: u64,
    /// Views kept for further parts of their queries.
    pub(crate) views: usize,
}

impl Evaluator {
    /// An evaluator that works on so many parts at once, at least one.
    pub(crate) fn new(parts_at_once_max: usize) -> Self {
        let turns_max = parts_at_once_max.max(1);
        Self {
            turns: Semaphore::new(turns_max),
            turns_max,
            waiting: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
            pins: Pins::new(),
            reuse: Arc::new(Reuse::new(0)),
        }
    }

    /// The same, which keeps so many bytes of answers.
    pub(crate) fn keeping(self, answers: usize) -> Self {
        Self {
            reuse: Arc::new(Reuse::new(answers)),
            ..self
        }
    }

    /// Waits for a part's turn, which ends when the permit is dropped.
    ///
    /// # Errors
    /// `UNAVAILABLE` when too many wait already, or nothing ends within `patience`: another owner may have time.
    pub(crate) async fn turn(&self, patience: Duration) -> Result<SemaphorePermit<'_>, Status> {
        if let Ok(permit) = self.turns.try_acquire() {
            return Ok(permit);
        }
        let waiting = Waiting::begin(&self.waiting);
        if waiting.before < self.turns_max * WAITING_PER_TURN_MAX
            && let Ok(Ok(permit)) = tokio::time::timeout(patience, self.turns.acquire()).await
        {
            return Ok(permit);
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        Err(Status::unavailable(format!(
            "{} parts of queries are in work here already",
            self.turns_max
        )))
    }

    /// What is in work now.
    pub(crate) fn statistics(&self) -> EvaluatorStatistics {
        EvaluatorStatistics {
            in_work: self.turns_max - self.turns.available_permits(),
            waiting: self.waiting.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            views: self.pins.len(),
        }
    }
}

/// One part in the queue; leaves it when dropped, also when its coordinator goes away.
struct Waiting<'a> {
    count: &'a AtomicUsize,
    /// How many were there before it.
    before: usize,
}

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        let before = count.fetch_add(1, Ordering::Relaxed);
        Self { count, before }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::poll;
    use std::{pin::pin, task::Poll};

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn parts_wait_for_their_turn_within_bounds() {
        let evaluator = Evaluator::new(1);
        let first = evaluator.turn(LONG).await.expect("nobody is there");
        let refused = evaluator
            .turn(Duration::ZERO)
            .await
            .expect_err("no patience");
        assert_eq!(refused.code(), tonic::Code::Unavailable);

        let mut waiting: Vec<_> = (0..WAITING_PER_TURN_MAX)
            .map(|_| Box::pin(evaluator.turn(LONG)))
            .collect();
        for turn in &mut waiting {
            assert!(poll!(turn).is_pending());
        }
        let one_too_many = pin!(evaluator.turn(LONG));
        assert!(matches!(poll!(one_too_many), Poll::Ready(Err(_))));
        let expected = EvaluatorStatistics {
            in_work: 1,
            waiting: WAITING_PER_TURN_MAX,
            refused: 2,
            views: 0,
        };
        assert_eq!(evaluator.statistics(), expected);

        drop(first);
        let next = waiting.swap_remove(0).await.expect("its turn");
        drop(next);
        drop(waiting);
        let statistics = evaluator.statistics();
        assert_eq!((statistics.in_work, statistics.waiting), (0, 0));
    }
}
