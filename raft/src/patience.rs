//! Waiting for space on a full disk. What waits is not durable, and nobody has been told that it is, so a node whose
//! disk is full is only slow until there is space again.

use crate::{DiskWork, MetadataError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use trefoil_store_pages::is_full_disk;

/// How often what has no space looks for some.
pub(crate) const FULL_DISK_RETRY: Duration = Duration::from_millis(500);

/// Until when a full disk is waited for. Clones end together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Patience(Arc<AtomicBool>);

impl Patience {
    /// From now on a full disk is a failure: nobody will make space in time.
    pub(crate) fn end(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Does the work, again and again while the disk has no space for it. It must leave nothing behind when it fails.
    ///
    /// # Errors
    /// What the work says, if it is not about space or the patience has ended.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        disk_work: &DiskWork,
        what: &'static str,
        work: impl Fn() -> Result<T, MetadataError> + Clone + Send + 'static,
    ) -> Result<T, MetadataError> {
        let mut told = false;
        loop {
            match disk_work.run(work.clone()).await? {
                Err(error) if is_full_disk(&error) && !self.has_ended() => {
                    if !told {
                        tracing::error!(%error, what, "wait for space on the disk");
                        told = true;
                    }
                    tokio::time::sleep(FULL_DISK_RETRY).await;
                }
                done => {
                    if told && done.is_ok() {
                        tracing::info!(what, "there is space again");
                    }
                    return done;
                }
            }
        }
    }
}
