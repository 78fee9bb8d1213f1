//! Long answers that go out piece by piece, while the query that makes them has its turn.
//!
//! The turn must not depend on the client: a task takes pieces from the query and gives them to the connection. It ends, and
//! gives the turn back, when the query has ended, when the client has gone, or at the deadline, when a client that
//! does not read loses the connection.

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use std::time::Instant;
use tokio::sync::mpsc;
use trefoil_query_promql::QueryError;

/// The pieces of an answer.
pub(super) type PieceStream = stream::BoxStream<'static, Result<Bytes, QueryError>>;

/// The same pieces, one of them read ahead, which break off at the deadline; `turn` is dropped when no more are made.
pub(super) fn until<T: Send + 'static>(
    deadline: Instant,
    mut pieces: PieceStream,
    turn: T,
) -> impl Stream<Item = Result<Bytes, QueryError>> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let _turn = turn;
        let sending = async {
            while let Some(piece) = pieces.next().await {
                if sender.send(Some(piece)).await.is_err() {
                    return;
                }
            }
            // Without this the end would look like a complete answer.
            sender.send(None).await.ok();
        };
        let in_time = tokio::time::timeout_at(deadline.into(), sending);
        tokio::select! {
            _ = in_time => {}
            // Also while the query works on the next piece.
            () = sender.closed() => {}
        }
    });
    stream::unfold(Some(receiver), |receiver| async move {
        let mut receiver = receiver?;
        match receiver.recv().await {
            Some(Some(piece)) => Some((piece, Some(receiver))),
            Some(None) => None,
            None => Some((Err(QueryError::Timeout), None)),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::Arc, time::Duration};
    use tokio::sync::Notify;

    fn endless() -> PieceStream {
        stream::repeat_with(|| Ok(Bytes::from_static(b"a"))).boxed()
    }

    /// Tells when it is given back.
    struct Turn(Arc<Notify>);

    impl Drop for Turn {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }

    async fn is_given_back(turn: &Notify) {
        let given_back = tokio::time::timeout(Duration::from_secs(20), turn.notified());
        given_back.await.expect("the turn is given back");
    }

    #[tokio::test]
    async fn a_reader_that_stalls_loses_its_turn() {
        let turn = Arc::new(Notify::new());
        let deadline = Instant::now() + Duration::from_millis(50);
        let mut stalled = until(deadline, endless(), Turn(turn.clone())).boxed();
        assert!(stalled.next().await.is_some());
        is_given_back(&turn).await;
        let rest: Vec<_> = stalled.collect().await;
        assert_eq!(rest.last(), Some(&Err(QueryError::Timeout)));
    }

    #[tokio::test]
    async fn a_reader_that_goes_gives_its_turn_back() {
        let turn = Arc::new(Notify::new());
        let deadline = Instant::now() + Duration::from_secs(3_600);
        let slow = stream::pending().boxed();
        drop(until(deadline, slow, Turn(turn.clone())));
        is_given_back(&turn).await;
    }

    #[tokio::test]
    async fn a_complete_answer_ends_without_an_error() {
        let deadline = Instant::now() + Duration::from_secs(20);
        let whole = until(deadline, endless().take(3).boxed(), ());
        let pieces: Vec<_> = whole.collect().await;
        assert!(pieces.len() == 3 && pieces.iter().all(Result::is_ok));
    }
}
