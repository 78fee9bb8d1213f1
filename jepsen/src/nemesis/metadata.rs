//! Faults of the metadata plane: leaders that vanish again and again, logs that are gone when a node comes back.

use super::{Fleet, Kind, Step, strike::Struck};
use anyhow::Context;
use futures::{StreamExt, stream};
use rand::RngExt;
use serde_json::json;
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};
use tokio::time::sleep;

/// How long a leader is paused: longer than the others wait for one.
const LEADER_PAUSE: Duration = Duration::from_millis(2_500);
/// More than the log may grow before it is cut off behind a snapshot.
const STORM_BYTES: usize = 80 << 20;
/// One value of it.
const VALUE_BYTES: usize = 32_000;
/// Writes that are under way at a time.
const AT_ONCE: usize = 16;
/// Keys that are written over and over.
const KEYS: usize = 8;

pub(super) async fn strike(fleet: &mut Fleet, step: &Step) -> anyhow::Result<Struck> {
    match step.kind {
        Kind::LeaderStorm => leader_storm(fleet, step).await,
        _ => snapshot_storm(fleet, step).await,
    }
}

async fn leader_storm(fleet: &mut Fleet, step: &Step) -> anyhow::Result<Struck> {
    let (begun, mut struck, mut nodes) = (Instant::now(), 0, BTreeSet::new());
    while begun.elapsed() < step.lasts() {
        // Between two leaders nobody knows one.
        let Ok(Some(leader)) = fleet.leader().await else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        fleet.host(leader).pause()?;
        sleep(LEADER_PAUSE).await;
        fleet.host(leader).resume()?;
        struck += 1;
        nodes.insert(leader);
    }
    Ok(Struck {
        nodes: nodes.into_iter().collect(),
        details: format!("{struck} leaders paused for {LEADER_PAUSE:?} each"),
        struck,
    })
}

/// A node is paused while the others write more commands than a log keeps, so that it must take a snapshot.
async fn snapshot_storm(fleet: &mut Fleet, step: &Step) -> anyhow::Result<Struck> {
    let leader = fleet.leader().await.ok().flatten();
    let mut others: Vec<usize> = (0..fleet.nodes()).collect();
    others.retain(|node| Some(*node) != leader);
    let node = others[step.dice().random_range(0..others.len())];
    let asked = leader.unwrap_or((node + 1) % fleet.nodes());
    fleet.host(node).pause()?;
    let written = write_values(fleet, asked).await;
    fleet.host(node).resume()?;
    Ok(Struck {
        nodes: vec![node],
        details: format!(
            "{written} bytes of commands while node {} was paused",
            node + 1
        ),
        struck: (written / STORM_BYTES) as u64,
    })
}

/// How many bytes were taken.
async fn write_values(fleet: &Fleet, node: usize) -> usize {
    let url = format!("{}/trefoil/api/v1/values", fleet.site().host(node).url());
    let value = "x".repeat(VALUE_BYTES);
    let headers = [("content-type", "application/json")];
    // Some are refused while a leader is elected.
    let count = 2 * STORM_BYTES / VALUE_BYTES;
    let writes = stream::iter(0..count).map(|number| {
        let key = format!("jepsen/storm/{}", number % KEYS);
        let body = json!({ "key": key, "value": value }).to_string();
        let url = &url;
        async move {
            let answer = fleet.http().post(url, &headers, body).await;
            answer
                .context("a write of the storm")
                .is_ok_and(|answer| answer.is_success())
        }
    });
    let mut writes = writes.buffer_unordered(AT_ONCE);
    let mut written = 0;
    while let Some(done) = writes.next().await {
        written += if done { VALUE_BYTES } else { 0 };
        if written > STORM_BYTES {
            break;
        }
    }
    written
}
