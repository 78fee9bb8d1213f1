//! Waiting for a state with a deadline, and the wall clock in milliseconds.

use anyhow::bail;
use std::{
    future::Future,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use trefoil_model::Millis;

/// Between two looks at the awaited state.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks until `state` gives a value; the time that took is returned with it.
///
/// # Errors
/// When `deadline` passes first: names what was awaited, and the last reason that `state` gave.
pub async fn wait_until<T, F>(
    what: &str,
    deadline: Duration,
    mut state: impl FnMut() -> F,
) -> anyhow::Result<(T, Duration)>
where
    F: Future<Output = anyhow::Result<T>>,
{
    let begun = Instant::now();
    loop {
        match state().await {
            Ok(value) => return Ok((value, begun.elapsed())),
            Err(reason) if begun.elapsed() >= deadline => {
                bail!("{what}: not within {deadline:?}: {reason:#}")
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// The wall clock.
pub struct Clock;

impl Clock {
    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub fn now_millis() -> Millis {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.map_or(0, |now| i64::try_from(now.as_millis()).unwrap_or(i64::MAX))
    }
}
