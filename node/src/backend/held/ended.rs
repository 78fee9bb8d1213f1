//! What is done when a job does not come to its end, for a panic or because its task is dropped.

/// Does something when it is dropped, unless the job has ended.
pub(super) struct Unended<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Unended<F> {
    pub(super) fn new(fail: F) -> Self {
        Self(Some(fail))
    }

    /// The job has ended.
    pub(super) fn end(mut self) {
        self.0 = None;
    }
}

impl<F: FnOnce()> Drop for Unended<F> {
    fn drop(&mut self) {
        if let Some(fail) = self.0.take() {
            fail();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    #[tokio::test]
    async fn a_job_that_panics_fails_and_one_that_ends_does_not() {
        for (panics, expected) in [(true, 1), (false, 0)] {
            let failed = Arc::new(AtomicUsize::new(0));
            let own = failed.clone();
            let job = tokio::spawn(async move {
                let unended = Unended::new(move || {
                    own.fetch_add(1, Ordering::SeqCst);
                });
                tokio::task::yield_now().await;
                assert!(!panics, "the job's own panic");
                unended.end();
            });
            assert_eq!(job.await.is_err(), panics);
            assert_eq!(failed.load(Ordering::SeqCst), expected);
        }
    }
}
