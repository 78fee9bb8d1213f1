//! Who waits for what: clients' writes and parts of queries that the core has not answered yet.

use super::ReadyPart;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use tokio::sync::oneshot;
use trefoil_model::TimeRange;
use trefoil_shard::{QueryId, QueryReady, RequestId, WriteOutcome};
use trefoil_store_metrics::View;

/// Open writes and queries. Their number is bounded by the core, which answers at once beyond its bounds.
#[derive(Default)]
pub(super) struct Waits {
    writes: Mutex<BTreeMap<RequestId, oneshot::Sender<WriteOutcome>>>,
    queries: Mutex<BTreeMap<QueryId, (TimeRange, oneshot::Sender<ReadyPart>)>>,
}

impl Waits {
    pub(super) fn begin_write(&self, request: RequestId) -> oneshot::Receiver<WriteOutcome> {
        let (sender, receiver) = oneshot::channel();
        self.writes.lock().insert(request, sender);
        receiver
    }

    pub(super) fn finish_write(&self, request: RequestId, outcome: WriteOutcome) {
        if let Some(sender) = self.writes.lock().remove(&request) {
            // A client that went away does not want the answer.
            sender.send(outcome).ok();
        }
    }

    pub(super) fn begin_query(
        &self,
        query: QueryId,
        range: TimeRange,
    ) -> oneshot::Receiver<ReadyPart> {
        let (sender, receiver) = oneshot::channel();
        self.queries.lock().insert(query, (range, sender));
        receiver
    }

    pub(super) fn finish_query(&self, ready: QueryReady, view: View) {
        if let Some((range, sender)) = self.queries.lock().remove(&ready.query) {
            let ready = ReadyPart {
                view,
                complete: ready.complete,
                gaps: ready.gaps,
                range,
            };
            sender.send(ready).ok();
        }
    }

    pub(super) fn forget_query(&self, query: QueryId) {
        self.queries.lock().remove(&query);
    }
}
