//! Faults of disks and clocks: power cuts, full and failing disks, damaged files, wrong time.

use super::{Fleet, Kind, Step, fleet::RECOVERY_MAX, strike::Struck};
use crate::{
    Clock,
    site::{DamagePlace, Tear},
};
use anyhow::Context;
use rand::RngExt;
use std::time::{Duration, Instant};
use tokio::time::sleep;
use trefoil_api::remote_write::encode;
use trefoil_model::{Labels, Millis};

/// What a full disk has left.
const LEFT_BYTES: u64 = 64 << 10;
/// By how much a slow sync is slower.
const SLOW_SYNC: Duration = Duration::from_millis(500);
/// The largest jump of a clock.
const JUMP_SECONDS_MAX: i64 = 900;
/// The smallest one: what is below it may be within the nodes' tolerance.
const JUMP_SECONDS_MIN: i64 = 120;
/// How much too fast a drifting clock is, in billionths: at the end of its fault it is seconds ahead.
const DRIFT_PPB: i64 = 500_000_000;
/// Who writes what only takes space.
const BULK_TENANT: &str = "jepsen-bulk";
/// Series of such a request.
const BULK_SERIES: usize = 2_000;
/// Such requests in one fault, about 25 kB each.
const BULK_REQUESTS_MAX: usize = 4_000;
/// A full disk that nobody noticed until then is given back.
const STRIKES_MAX: Duration = Duration::from_secs(30);
/// Between two looks at what a fault does.
const LOOK_EVERY: Duration = Duration::from_millis(100);

pub(super) async fn strike(fleet: &mut Fleet, step: &Step) -> anyhow::Result<Struck> {
    let node = step.dice().random_range(0..fleet.nodes());
    let (struck, details) = match step.kind {
        Kind::ClockJump | Kind::ClockDrift => wrong_clock(fleet, step, node).await?,
        Kind::PowerCutAll => return cut_all(fleet, step).await,
        Kind::PowerCutOne => {
            fleet.host(node).power_cut()?;
            sleep(step.lasts()).await;
            fleet.start_node(node)?;
            (1, "power cut".to_owned())
        }
        Kind::DiskFull => {
            fleet.host(node).fill_disk(LEFT_BYTES)?;
            let looks = tokio::select! {
                looks = watch_unready(fleet, step, node) => looks,
                () = use_space(fleet, step, node) => 0,
            };
            fleet.host(node).free_disk()?;
            (looks, format!("{LEFT_BYTES} bytes left"))
        }
        Kind::DiskReadOnly => {
            fleet.host(node).make_read_only()?;
            let looks = watch_unready(fleet, step, node).await;
            fleet.host(node).make_writable()?;
            (looks, "read-only".to_owned())
        }
        Kind::SlowSync | Kind::FailingSync => bad_syncs(fleet, step, node).await?,
        _ => damage(fleet, step, node).await?,
    };
    Ok(Struck {
        nodes: vec![node],
        details,
        struck,
    })
}

async fn cut_all(fleet: &mut Fleet, step: &Step) -> anyhow::Result<Struck> {
    let nodes: Vec<usize> = (0..fleet.nodes()).collect();
    fleet.site_mut().power_cut(&nodes)?;
    // Short: nobody answers meanwhile.
    sleep(step.lasts() / 4).await;
    for &node in &nodes {
        fleet.start_node(node)?;
    }
    Ok(Struck {
        struck: nodes.len() as u64,
        nodes,
        details: "power cut of all".to_owned(),
    })
}

/// Waits until the fault is over, which is not before it has struck, but at last; how often the node said meanwhile that
/// it is not ready, or was gone.
async fn watch_unready(fleet: &Fleet, step: &Step, node: usize) -> u64 {
    let (begun, mut unready) = (Instant::now(), 0);
    while begun.elapsed() < step.lasts() || (unready == 0 && begun.elapsed() < STRIKES_MAX) {
        unready += u64::from(fleet.readiness(node).await.is_err());
        sleep(LOOK_EVERY).await;
    }
    unready
}

/// Writes through another node: what a node has reserved ahead would last for long under the clients alone. Ends when
/// far more is used than any node reserves.
async fn use_space(fleet: &Fleet, step: &Step, node: usize) {
    let url = fleet.site().host((node + 1) % fleet.nodes()).url();
    let http = fleet.http().clone().with_tenant(BULK_TENANT);
    let series: Vec<Labels> = (0..BULK_SERIES)
        .map(|number| {
            let number = number.to_string();
            Labels::from_pairs([("__name__", "trefoil_test_bulk"), ("series", &number)])
        })
        .collect();
    let mut dice = step.dice();
    for _ in 0..BULK_REQUESTS_MAX {
        let now = Clock::now_millis();
        // Nothing compresses them.
        let samples: Vec<[(Millis, f64); 1]> =
            (0..BULK_SERIES).map(|_| [(now, dice.random())]).collect();
        let samples = samples.iter().map(|samples| samples.as_slice());
        let body = encode(series.iter().zip(samples));
        // What becomes of it is not asked: no check looks at this tenant's samples but the comparison of replicas.
        drop(http.remote_write(&url, body).await);
    }
}

/// How often the clock was read, or syncs were slow or failed, is the proof.
async fn wrong_clock(fleet: &mut Fleet, step: &Step, node: usize) -> anyhow::Result<(u64, String)> {
    let before = fleet.host(node).fault_counts()?.clock_readings;
    let mut dice = step.dice();
    let sign = if dice.random() { 1 } else { -1 };
    let details = match step.kind {
        Kind::ClockJump => {
            let seconds = sign * dice.random_range(JUMP_SECONDS_MIN..JUMP_SECONDS_MAX);
            fleet.host(node).set_clock_offset(seconds * 1_000_000_000)?;
            format!("{seconds} s off")
        }
        _ => {
            fleet.host(node).set_clock_rate(DRIFT_PPB)?;
            format!("too fast by {} %", DRIFT_PPB / 10_000_000)
        }
    };
    sleep(step.lasts()).await;
    fleet.host(node).set_clock_rate(0)?;
    fleet.host(node).set_clock_offset(0)?;
    let after = fleet.host(node).fault_counts()?.clock_readings;
    Ok((after - before, details))
}

async fn bad_syncs(fleet: &mut Fleet, step: &Step, node: usize) -> anyhow::Result<(u64, String)> {
    let before = fleet.host(node).fault_counts()?;
    let slow = step.kind == Kind::SlowSync;
    match slow {
        true => fleet.host(node).slow_syncs(SLOW_SYNC)?,
        false => fleet.host(node).fail_syncs(true)?,
    }
    sleep(step.lasts()).await;
    // What ended by itself has let go of the fault; what runs on must be freed of it.
    let undone = match slow {
        true => fleet.host(node).slow_syncs(Duration::ZERO),
        false => fleet.host(node).fail_syncs(false),
    };
    undone.context("undo a fault of the disk")?;
    let after = fleet.host(node).fault_counts()?;
    Ok(match slow {
        true => (
            after.syncs_delayed - before.syncs_delayed,
            format!("every sync takes {SLOW_SYNC:?} longer"),
        ),
        false => (
            after.syncs_failed - before.syncs_failed,
            "every sync fails".to_owned(),
        ),
    })
}

/// Files that are not as the node left them.
async fn damage(fleet: &mut Fleet, step: &Step, node: usize) -> anyhow::Result<(u64, String)> {
    let choice = step.choice;
    // A node that ends by SIGTERM writes its head into blocks first, so that there are some.
    match step.kind {
        Kind::FlippedBlocks => drop(fleet.host(node).stop()?),
        _ => fleet.host(node).kill()?,
    }
    let done = match step.kind {
        Kind::TornTail => {
            let place = match choice % 2 {
                0 => DamagePlace::Journal,
                _ => DamagePlace::RaftLog,
            };
            fleet.host(node).tear_tail(place, Tear::Unsynced, choice)?
        }
        Kind::FlippedJournal => fleet.host(node).flip_bits(DamagePlace::Journal, choice)?,
        Kind::FlippedBlocks => fleet.host(node).flip_bits(DamagePlace::Blocks, choice)?,
        _ => {
            fleet.host(node).delete_data()?;
            Some("the data directory is gone".to_owned())
        }
    };
    sleep(step.lasts() / 4).await;
    fleet.start_node(node)?;
    if step.kind == Kind::FlippedBlocks {
        // Damage that nobody has met yet would still be there when the next disk is struck, and two at once are
        // promised nothing: a comparison reads all there is. Under load it finds differences, too; they do not matter.
        fleet.wait_ready(RECOVERY_MAX).await.ok();
        fleet.compare(node).await.ok();
    }
    let struck = u64::from(done.is_some());
    Ok((
        struck,
        done.unwrap_or_else(|| "there was nothing to damage".to_owned()),
    ))
}
