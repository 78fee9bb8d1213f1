//! Which peers the metadata plane reaches, so that people hear of a change once and by name.

use parking_lot::Mutex;
use std::{collections::BTreeMap, time::Duration};
use tonic::Code;
use trefoil_model::NodeId;

/// A peer counts as unreachable when calls have failed for this long and none was answered. Shorter trouble, such as a pause
/// or a restart of a moment, is no news.
const UNREACHED_AFTER: Duration = Duration::from_secs(2);

/// Failures further apart are not one trouble: some peers are called every few minutes.
const FAILURES_APART_MAX: Duration = Duration::from_secs(5);

/// How calls to the peers went lately. One entry per node that was ever called in this run.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    peers: Mutex<BTreeMap<NodeId, Calls>>,
}

/// How calls to one peer went; times by the boot clock.
#[derive(Clone, Copy, Debug, Default)]
struct Calls {
    /// The first and the last call that failed since one was answered.
    failed: Option<(Duration, Duration)>,
    /// Whether it was told last that the peer is out of reach.
    told: bool,
}

impl Calls {
    fn is_unreached(self) -> bool {
        self.failed
            .is_some_and(|(first, last)| last.saturating_sub(first) >= UNREACHED_AFTER)
    }
}

impl Reach {
    /// Notes how a call ended at `now`.
    pub(super) fn note<T>(&self, node: NodeId, outcome: &Result<T, tonic::Status>, now: Duration) {
        let mut peers = self.peers.lock();
        let calls = peers.entry(node).or_default();
        calls.failed = match outcome {
            Err(status) if is_unanswered(status.code()) => {
                let same = |(_, last): &(Duration, Duration)| {
                    calls.told || now.saturating_sub(*last) <= FAILURES_APART_MAX
                };
                let first = calls.failed.filter(same).map_or(now, |(first, _)| first);
                Some((first, now))
            }
            _ => None,
        };
    }

    /// The peers that have come within reach (`true`) or gone out of it since this was asked last, ascending.
    pub(crate) fn changes(&self) -> Vec<(NodeId, bool)> {
        let mut peers = self.peers.lock();
        let changed = peers.iter_mut().filter_map(|(node, calls)| {
            let unreached = calls.is_unreached();
            // While the calls since the last answer are too few to say so, nothing has changed.
            let news = unreached != calls.told && (unreached || calls.failed.is_none());
            news.then(|| {
                calls.told = unreached;
                (*node, !unreached)
            })
        });
        changed.collect()
    }
}

/// Whether the peer itself has not answered. With the identity of another, somebody else has its address.
fn is_unanswered(code: Code) -> bool {
    matches!(
        code,
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::FailedPrecondition
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Status;

    #[test]
    fn each_change_is_told_once_and_short_trouble_never() {
        let reach = Reach::default();
        let peer = NodeId(2);
        let failed = |at| {
            let gone: Result<(), Status> = Err(Status::unavailable("gone"));
            reach.note(peer, &gone, Duration::from_millis(at));
        };
        let answered = |at| reach.note(peer, &Ok(()), Duration::from_millis(at));
        answered(0);
        failed(100);
        failed(2_000);
        assert_eq!(reach.changes(), [], "not for long enough");
        failed(20_000);
        assert_eq!(reach.changes(), [], "two troubles");
        answered(20_100);
        failed(22_100);
        failed(24_000);
        assert_eq!(reach.changes(), [], "one was answered between");
        failed(24_100);
        assert_eq!(reach.changes(), [(peer, false)]);
        failed(60_000);
        assert_eq!(reach.changes(), [], "it was told");
        // A refusal is an answer.
        let refused: Result<(), Status> = Err(Status::internal("no"));
        reach.note(peer, &refused, Duration::from_secs(61));
        failed(61_100);
        assert_eq!(reach.changes(), [], "whether it is back is not clear");
        answered(61_200);
        assert_eq!(reach.changes(), [(peer, true)]);
        assert_eq!(reach.changes(), []);
    }
}
