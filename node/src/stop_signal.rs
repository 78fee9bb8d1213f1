//! SIGTERM and SIGINT, heard from the moment this value is made. A signal that comes while nobody waits is
//! not lost; without a handler the first process of a container would not even notice it. SIGHUP, by which other servers read
//! their settings again, is said to change nothing.

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals.
pub(crate) struct StopSignal {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl StopSignal {
    /// Begins to listen.
    ///
    /// # Errors
    /// When the system takes no handler.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("listen for signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// What comes of `work`; nothing if a signal to stop comes first.
    ///
    /// # Errors
    /// Those of `work`.
    pub(crate) async fn unless<T>(
        &mut self,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<Option<T>> {
        tokio::select! {
            done = work => done.map(Some),
            () = self.come() => Ok(None),
        }
    }

    /// Resolves at the next signal to stop, at once when one has come since the last.
    pub(crate) async fn come(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => {
                    tracing::warn!("SIGHUP changes nothing: settings are read at the start only");
                }
            }
        }
    }
}
