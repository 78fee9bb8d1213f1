//! Turns of writing about a pair of senders: one at a time for each pair of this node, and none for a moment after one
//! failed.
//!
//! Many requests of a sender come at once. Without turns each of them would ask the metadata plane the same, and each
//! would wait for its deadline while the plane is away.

use parking_lot::Mutex;
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// How long nothing is tried after a failure.
const PAUSE: Duration = Duration::from_secs(1);
/// Failures that are remembered; of those beyond the next request tries again.
const FAILURES_MAX: usize = 4096;

/// What is under way, by the pair's key. Turns in work are as many as the requests and recordings that hold them.
#[derive(Default)]
pub(crate) struct Turns {
    keys: Mutex<BTreeMap<String, Last>>,
}

/// What is known of the last turn.
enum Last {
    /// It is under way, until the other end is gone.
    UnderWay(watch::Receiver<()>),
    /// It failed then.
    Failed(Instant),
}

/// What somebody gets who wants a turn.
pub(super) enum Wanted {
    /// The turn.
    Mine(Turn),
    /// Somebody has it, until the channel closes.
    Taken(watch::Receiver<()>),
    /// Nothing, because the last one failed just now.
    Paused,
}

/// The right to write about a pair. Ends when dropped, as a success unless it was failed.
pub(super) struct Turn {
    turns: Arc<Turns>,
    key: String,
    failed: Option<Instant>,
    /// Closes, and so wakes who waits, behind what [`Drop`] notes.
    _end: watch::Sender<()>,
}

impl Turns {
    pub(super) fn want(self: &Arc<Self>, key: &str, now: Instant) -> Wanted {
        let mut keys = self.keys.lock();
        keys.retain(|_, last| match last {
            Last::UnderWay(_) => true,
            Last::Failed(at) => now.saturating_duration_since(*at) < PAUSE,
        });
        match keys.get(key) {
            Some(Last::UnderWay(end)) => Wanted::Taken(end.clone()),
            Some(Last::Failed(_)) => Wanted::Paused,
            None => {
                let (sender, receiver) = watch::channel(());
                keys.insert(key.to_owned(), Last::UnderWay(receiver));
                Wanted::Mine(Turn {
                    turns: Arc::clone(self),
                    key: key.to_owned(),
                    failed: None,
                    _end: sender,
                })
            }
        }
    }

    /// Whether the last turn of this pair failed just now.
    pub(super) fn is_paused(&self, key: &str, now: Instant) -> bool {
        let keys = self.keys.lock();
        matches!(keys.get(key), Some(Last::Failed(at)) if now.saturating_duration_since(*at) < PAUSE)
    }
}

impl Turn {
    /// Ends the turn and says that it failed.
    pub(super) fn fail(mut self, now: Instant) {
        self.failed = Some(now);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut keys = self.turns.keys.lock();
        keys.remove(&self.key);
        if let Some(at) = self.failed.filter(|_| keys.len() < FAILURES_MAX) {
            keys.insert(std::mem::take(&mut self.key), Last::Failed(at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(turns: &Arc<Turns>, key: &str, now: Instant) -> Option<Turn> {
        match turns.want(key, now) {
            Wanted::Mine(turn) => Some(turn),
            _ => None,
        }
    }

    #[tokio::test]
    async fn one_has_the_turn_and_the_others_hear_of_its_end() {
        let (turns, now) = (Arc::new(Turns::default()), Instant::now());
        let first = turn(&turns, "a", now).unwrap();
        let Wanted::Taken(mut end) = turns.want("a", now) else {
            panic!("two have a turn at once");
        };
        // Other pairs do not wait.
        drop(turn(&turns, "b", now).unwrap());
        drop(first);
        end.changed().await.unwrap_err();
        assert!(turn(&turns, "a", now).is_some());
        assert!(turns.keys.lock().is_empty());
    }

    #[test]
    fn a_failure_pauses_its_pair_for_a_moment() {
        let (turns, now) = (Arc::new(Turns::default()), Instant::now());
        turn(&turns, "a", now).unwrap().fail(now);
        assert!(matches!(turns.want("a", now), Wanted::Paused));
        assert!(turns.is_paused("a", now) && !turns.is_paused("a", now + PAUSE));
        assert!(turn(&turns, "b", now).is_some());
        assert!(turn(&turns, "a", now + PAUSE).is_some());
        for index in 0..FAILURES_MAX + 1 {
            turn(&turns, &index.to_string(), now).unwrap().fail(now);
        }
        assert_eq!(turns.keys.lock().len(), FAILURES_MAX);
        drop(turns.want("z", now + PAUSE));
        assert!(turns.keys.lock().is_empty());
    }
}
