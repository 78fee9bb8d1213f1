//! Work for queries that ends when nobody waits for it any more: the client has left, or the time is over.
//!
//! A request is dropped by the task of its connection, which can see that the client leaves only while it waits. What works for
//! longer therefore does so elsewhere, and asks its budget from time to time.

use std::future::Future;
use tokio::task::JoinSet;
use trefoil_query_promql::{Budget, QueryError};

/// Cancels what works within budgets, if it is dropped before [`CancelOnDrop::ended`].
pub(super) struct CancelOnDrop(Vec<Budget>);

impl CancelOnDrop {
    pub(super) fn new(budgets: Vec<Budget>) -> Self {
        Self(budgets)
    }

    /// The work has ended by itself.
    pub(super) fn ended(mut self) {
        self.0.clear();
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.iter().for_each(Budget::cancel);
    }
}

/// Works a query out in a task of its own. When this is dropped, what of the query waits is dropped with it, and what works finds
/// at its next look that `budgets` are canceled.
///
/// # Errors
/// The query's; [`QueryError::Internal`] when it panics.
pub(crate) async fn in_own_task<T: Send + 'static>(
    budgets: Vec<Budget>,
    query: impl Future<Output = Result<T, QueryError>> + Send + 'static,
) -> Result<T, QueryError> {
    let guard = CancelOnDrop::new(budgets);
    let mut tasks = JoinSet::new();
    tasks.spawn(query);
    let ended = tasks.join_next().await;
    guard.ended();
    match ended {
        Some(Ok(result)) => result,
        Some(Err(panic)) => Err(QueryError::Internal(format!(
            "the query ended early: {panic}"
        ))),
        None => Err(QueryError::Internal("the query did not begin".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::poll;
    use std::{pin::pin, sync::mpsc, task::Poll};

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_works_ends_when_nobody_waits_for_it() {
        let budget = Budget::default();
        let (begun, ended) = (mpsc::channel(), tokio::sync::oneshot::channel());
        let within = budget.clone();
        let work = async move {
            // A piece of work that keeps its thread until it is told to end.
            let error = tokio::task::block_in_place(|| {
                begun.0.send(()).ok();
                loop {
                    match within.check() {
                        Ok(()) => std::thread::yield_now(),
                        Err(error) => return error,
                    }
                }
            });
            ended.0.send(error.clone()).ok();
            Err::<(), _>(error)
        };
        {
            let mut asked = pin!(in_own_task(vec![budget], work));
            assert!(matches!(poll!(&mut asked), Poll::Pending));
            tokio::task::block_in_place(|| begun.1.recv()).expect("it works");
            assert!(matches!(poll!(&mut asked), Poll::Pending));
        }
        assert_eq!(ended.1.await, Ok(QueryError::Canceled));
    }

    #[tokio::test]
    async fn what_waits_is_dropped_when_nobody_waits_for_it() {
        let budget = Budget::default();
        let (held, dropped) = tokio::sync::oneshot::channel::<()>();
        let work = async move {
            std::future::pending::<()>().await;
            drop(held);
            Ok(())
        };
        {
            let mut asked = pin!(in_own_task(vec![budget.clone()], work));
            assert!(matches!(poll!(&mut asked), Poll::Pending));
            assert_eq!(budget.check(), Ok(()));
        }
        assert_eq!(budget.check(), Err(QueryError::Canceled));
        assert!(dropped.await.is_err());
    }

    #[tokio::test]
    async fn answers_and_panics_arrive() {
        let budget = Budget::default();
        let answered = in_own_task(vec![budget.clone()], async { Ok(7) }).await;
        assert_eq!((answered, budget.check()), (Ok(7), Ok(())));
        let broken = in_own_task(vec![budget], async {
            assert!(std::hint::black_box(false), "a broken invariant");
            Ok(())
        });
        let error = broken.await.expect_err("it panicked");
        assert_eq!(error.error_type(), "internal");
        assert!(error.to_string().contains("a broken invariant"), "{error}");
    }
}
