//! Where work that waits for the disk is done: on threads that may wait, or, in a simulation, on the
//! runtime's own tasks after a pause that the simulation draws.
//!
//! The seam is here because a whole simulated cluster lives in one thread: a second one would
//! let the operating system decide what happens first. With [`DiskWork::Tasks`] the plane makes no
//! thread at all, as long as [`crate::PlaneOptions::materialise`] is off.

use crate::MetadataError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Who waits for the disk.
#[derive(Clone, Default)]
pub enum DiskWork {
    /// Threads: the Raft log's own, and those of the runtime for blocking work.
    #[default]
    Threads,
    /// Tasks of the runtime, each after a pause that this draws; what is written becomes durable
    /// behind the pause, in one step. For simulations: a real disk would hold up the runtime.
    Tasks(Arc<dyn Fn() -> Duration + Send + Sync>),
}

impl fmt::Debug for DiskWork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Threads => "Threads",
            Self::Tasks(_) => "Tasks",
        })
    }
}

impl DiskWork {
    /// Does the work where it holds up nobody else.
    ///
    /// # Errors
    /// [`MetadataError::Stopped`] when the runtime has ended or the work has panicked.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, MetadataError> {
        match self {
            Self::Threads => {
                let done = tokio::task::spawn_blocking(work).await;
                done.map_err(|error| MetadataError::Stopped {
                    reason: error.to_string(),
                })
            }
            Self::Tasks(pause) => {
                tokio::time::sleep(pause()).await;
                Ok(work())
            }
        }
    }
}
