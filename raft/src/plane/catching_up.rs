//! Whether this node's state has everything that was decided before the node started.
//!
//! A node that restarts has the state of some moment before its stop: what it applied is not durable
//! by itself. Answers from such a state could lack a tenant, or bring back what a deletion erased.
//! One linearizable read per run proves that the state is newer than the start; until then the node
//! does not know, and should say so instead of answering.
//!
//! Once caught up, a node stays so for the rest of its run: a Raft group that loses its majority
//! decides nothing, so the state of a node that runs on is as good as any, but for what was decided
//! while the node was cut off. A node that *starts* without a majority does not catch up before the
//! majority is back or `trefoil cluster recover` has made a new one: it cannot know what was decided
//! while it was away.

use super::MetadataPlane;
use crate::MetadataError;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Time between two attempts while there seems to be a leader that does not answer.
const PAUSE: Duration = Duration::from_millis(200);

impl MetadataPlane {
    /// Becomes true, once, when the state on this node has the effect of everything that was
    /// acknowledged before this run began, anywhere. It never becomes false again.
    #[must_use]
    pub fn caught_up(&self) -> watch::Receiver<bool> {
        self.inner.caught_up.subscribe()
    }

    /// Returns at once when the node is caught up; otherwise tries to be, within the deadline of a
    /// linearizable read.
    ///
    /// # Errors
    /// Those of [`MetadataPlane::read_linearizable`].
    pub async fn catch_up(&self) -> Result<(), MetadataError> {
        if *self.inner.caught_up.borrow() {
            return Ok(());
        }
        self.read_linearizable().await.map(drop)
    }

    pub(super) fn note_caught_up(&self) {
        self.inner
            .caught_up
            .send_if_modified(|caught_up| !std::mem::replace(caught_up, true));
    }
}

/// Starts the task that catches up when there is a leader; it ends with that, or with the plane.
pub(super) fn start(plane: &MetadataPlane) -> tokio::task::JoinHandle<()> {
    let mut metrics = plane.inner.raft.server_metrics();
    let plane = Arc::downgrade(&plane.inner);
    tokio::spawn(async move {
        loop {
            let led = metrics.wait_for(|metrics| metrics.current_leader.is_some());
            if led.await.is_err() {
                return;
            }
            let Some(inner) = plane.upgrade() else {
                return;
            };
            match (MetadataPlane { inner }).catch_up().await {
                Err(MetadataError::NoLeader { .. }) => tokio::time::sleep(PAUSE).await,
                Ok(()) | Err(_) => return,
            }
        }
    })
}
