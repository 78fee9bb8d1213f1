//! A writer: one request under way at a time, at its pace; after a failure at once again.

use super::{destination::Destination, seen::Seen};
use crate::{Clock, Fate, HttpClient, Ledger, ledger::Request};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::time::{MissedTickBehavior, sleep};

/// Pauses after failures double from the first to the last, as senders do it. The last one is
/// short, so that the end of an outage is seen within it.
const FAILURE_PAUSE_MIN: Duration = Duration::from_millis(25);
const FAILURE_PAUSE_MAX: Duration = Duration::from_millis(200);

/// Writes a ledger.
pub(super) struct Writer {
    pub(super) client: HttpClient,
    pub(super) destination: Destination,
    pub(super) ledger: Arc<Ledger>,
    pub(super) seen: Seen,
}

impl Writer {
    pub(super) async fn run(self, every: Duration, delay: Duration, stopping: Arc<AtomicBool>) {
        let mut ticks = tokio::time::interval_at((Instant::now() + delay).into(), every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut pause = FAILURE_PAUSE_MIN;
        let mut again = None;
        while !stopping.load(Ordering::Relaxed) {
            if pause == FAILURE_PAUSE_MIN {
                ticks.tick().await;
            }
            let request = again
                .take()
                .unwrap_or_else(|| self.ledger.begin(Clock::now_millis()));
            if self.send(&request).await {
                pause = FAILURE_PAUSE_MIN;
                continue;
            }
            sleep(pause).await;
            pause = (pause * 2).min(FAILURE_PAUSE_MAX);
            // Real senders repeat what failed. Every second one is given up here instead: it may be
            // stored everywhere, somewhere or nowhere, and no replica may differ from another for it.
            again = (request.number % 2 == 0).then_some(request);
        }
    }

    /// Sends a request once; whether it was acknowledged.
    async fn send(&self, request: &Request) -> bool {
        let begun = Instant::now();
        let send = |url: String| async move {
            let body = request.body.clone();
            self.client.remote_write(&url, body).await
        };
        let (fate, text) = match self.destination.ask(send).await {
            Ok(answer) if answer.is_success() => (Fate::Acknowledged, String::new()),
            Ok(answer) => {
                let text = format!("{} {}", answer.status, answer.text());
                let again = answer.status >= 500 || answer.status == 429;
                (if again { Fate::Unknown } else { Fate::Refused }, text)
            }
            Err(error) => (Fate::Unknown, format!("{error:#}")),
        };
        self.ledger.settle(request.timestamp, fate, &text);
        let success = fate == Fate::Acknowledged;
        self.seen
            .record(begun, if success { Ok(()) } else { Err(text) });
        success
    }
}
