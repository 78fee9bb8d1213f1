//! One fault from its begin to its end: done, proven, undone, waited for.

use super::{
    Fleet, Kind, Step, disks, fleet::RECOVERY_MAX, links, membership, metadata, processes,
};
use crate::{history::Fault, workload::Journalist};

/// What a fault came to.
pub(super) struct Struck {
    /// Whom it struck.
    pub(super) nodes: Vec<usize>,
    /// What was done, in words.
    pub(super) details: String,
    /// Proof: how often it really struck.
    pub(super) struck: u64,
}

/// Does one fault and waits until the nodes are ready again. What the fault needs to be undone is undone in
/// any case; nodes that have ended are started again.
///
/// # Errors
/// When the harness itself cannot go on: a process or disk that cannot be handled. A node that does not recover is no
/// such error, it is in the history.
pub async fn strike(
    fleet: &mut Fleet,
    step: &Step,
    journalist: &Journalist,
) -> anyhow::Result<Fault> {
    let begun = journalist.now();
    let struck = match step.kind {
        Kind::IsolateOne
        | Kind::Split
        | Kind::MajoritiesRing
        | Kind::Bridge
        | Kind::OneWay
        | Kind::LeaderOnly
        | Kind::Zone
        | Kind::Clog
        | Kind::Slow
        | Kind::Lossy
        | Kind::Duplicating
        | Kind::Reordering
        | Kind::Narrow => links::strike(fleet, step).await,
        Kind::KillOne
        | Kind::KillAll
        | Kind::Pause
        | Kind::RestartLoop
        | Kind::RollingRestart
        | Kind::AddressChange => processes::strike(fleet, step).await,
        Kind::ClockJump
        | Kind::ClockDrift
        | Kind::PowerCutOne
        | Kind::PowerCutAll
        | Kind::DiskFull
        | Kind::DiskReadOnly
        | Kind::SlowSync
        | Kind::FailingSync
        | Kind::TornTail
        | Kind::FlippedJournal
        | Kind::FlippedBlocks
        | Kind::DeletedData => disks::strike(fleet, step).await,
        Kind::Join | Kind::Drain | Kind::Replace => membership::strike(fleet, step).await,
        Kind::LeaderStorm | Kind::SnapshotStorm => metadata::strike(fleet, step).await,
    }?;
    fleet.start_ended()?;
    let ended = journalist.now();
    let ready = fleet.wait_ready(RECOVERY_MAX).await;
    let recovered = ready.is_ok().then(|| journalist.now());
    let mut details = struck.details;
    if let Err(error) = ready {
        details = format!("{details}; {error:#}");
    }
    Ok(Fault {
        kind: step.kind.name().to_owned(),
        nodes: struck.nodes,
        begun,
        ended,
        recovered,
        details,
        struck: struck.struck,
    })
}
