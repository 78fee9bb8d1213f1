//! The median of the cluster's clocks: what "now" is for acceptance, retention and queries.
//!
//! Every node asks the others for their time and keeps by how much the median is ahead of its own
//! clock. A node whose clock is far off says so and takes no writes; it does not judge by its own clock
//! what is too old or too new.

use super::{Cluster, admin::KIND_CLOCK};
use crate::clock;
use futures::future::join_all;
use std::{sync::Arc, time::Duration};
use trefoil_model::{Millis, NodeId};
use trefoil_raft::{MemberState, State};

/// How often the others are asked.
const INTERVAL: Duration = Duration::from_secs(5);
/// The same while nothing is known yet: the node takes no writes before.
const FIRST_INTERVAL: Duration = Duration::from_millis(100);
/// How long an answer may take; a slower one says too little about the time.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// A clock that is further from the median than this is wrong, milliseconds.
pub(crate) const OFFSET_MAX: Millis = 60_000;

/// Asks until the process ends.
pub(super) async fn run(cluster: Arc<Cluster>) {
    let mut was_off = false;
    loop {
        if let Some(begin) = measure(&cluster).await {
            cluster.clock.set_begin(begin);
            let offset = cluster.clock.offset().unwrap_or_default();
            let is_off = offset.abs() > OFFSET_MAX;
            if is_off && !was_off {
                tracing::error!(
                    offset_ms = offset,
                    "this node's clock is off; it takes no writes until the clock is set right"
                );
            }
            was_off = is_off;
        }
        let pause = cluster.clock.offset().map_or(FIRST_INTERVAL, |_| INTERVAL);
        tokio::time::sleep(pause).await;
    }
}

/// When this node's boot clock began, by the median of all clocks; none when most members did not answer, and before this
/// node is a member: it does not know then whom to ask.
async fn measure(cluster: &Cluster) -> Option<Millis> {
    let state = cluster.metadata.state();
    let me = cluster.identity.node;
    state.member(me)?;
    // One that is drained may have been given up, and one that is dead and owns nothing forgotten.
    let dead = cluster.dead_since.lock().clone();
    let counts = |node: NodeId| !dead.contains_key(&node) || owns_shards(&state, node);
    let others: Vec<_> = state
        .members()
        .filter(|member| member.state == MemberState::Active && member.node != me)
        .map(|member| member.node)
        .filter(|node| counts(*node))
        .collect();
    // By the boot clock: a wall clock that is set while the others are asked is only this node's own word.
    let own = clock::wall() - clock::boot_millis();
    let asked = others.iter().map(|node| async {
        let sent = clock::boot_millis();
        let theirs: Millis = cluster
            .ask(*node, KIND_CLOCK, &(), ANSWER_TIMEOUT)
            .await
            .ok()?;
        let received = clock::boot_millis();
        Some(theirs - (sent + received) / 2)
    });
    let mut begins: Vec<Millis> = join_all(asked).await.into_iter().flatten().collect();
    begins.push(own);
    (begins.len() * 2 > others.len() + 1).then(|| median(&mut begins))
}

fn owns_shards(state: &State, node: NodeId) -> bool {
    let mut entries = state.placement().iter();
    entries.any(|(_, entry)| entry.configuration.has_owner(node))
}

/// The middle value; of an even number, the mean of the two in the middle.
fn median(values: &mut [Millis]) -> Millis {
    values.sort_unstable();
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        (values[middle - 1] + values[middle]) / 2
    }
}

impl Cluster {
    /// The cluster's time, as far as this node knows it, in milliseconds of UTC.
    pub(crate) fn now(&self) -> Millis {
        self.clock.now().unwrap_or_else(clock::wall)
    }

    /// Whether this node may judge what is too old or too new.
    ///
    /// # Errors
    /// How far its clock is off, or that it is not known, in words.
    pub(crate) fn check_clock(&self) -> Result<(), String> {
        judge(self.clock.offset())
    }
}

fn judge(offset: Option<Millis>) -> Result<(), String> {
    let Some(offset) = offset else {
        return Err("the clocks of most members are not known here yet, so nobody can say what is too old or too new".to_owned());
    };
    if offset.abs() <= OFFSET_MAX {
        return Ok(());
    }
    let way = if offset > 0 { "behind" } else { "ahead of" };
    Err(format!(
        "this node's clock is {} s {way} the median of the cluster's clocks; set it right",
        offset.abs() / 1000
    ))
}

#[cfg(test)]
mod tests {
    use super::{OFFSET_MAX, judge, median};

    #[test]
    fn a_clock_that_is_off_or_unknown_does_not_judge() {
        assert!(judge(None).is_err());
        assert!(judge(Some(OFFSET_MAX)).is_ok());
        assert!(judge(Some(OFFSET_MAX + 1)).is_err());
        assert!(judge(Some(-OFFSET_MAX - 1)).is_err());
    }

    #[test]
    fn one_wrong_clock_does_not_move_the_median_of_three() {
        assert_eq!(median(&mut [0, 86_400_000, 5]), 5);
        assert_eq!(median(&mut [-86_400_000, 0, 5]), 0);
    }

    #[test]
    fn two_clocks_meet_in_the_middle() {
        assert_eq!(median(&mut [0]), 0);
        assert_eq!(median(&mut [100, 0]), 50);
    }
}
