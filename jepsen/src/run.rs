//! A run from empty hosts to a judged history.
//!
//! Nodes start, clients work, faults come one after the other; then everything is healed, the clients rest, replicas are
//! compared, and everything that was ever written is read from every node. The folder of a run has `history.jsonl`,
//! `schedule.json` (what `--replay` takes), `report.html`, and a log per node.

use crate::{
    history::{Digests, Line, Recorder, Run},
    nemesis::{Fleet, Kind, Schedule, strike},
    site::{Site, SiteKind},
    wait_until,
    workload::{Addresses, Clients, Journalist, Workload},
};
use anyhow::{Context, ensure};
use std::{
    cell::RefCell,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// How long clients work before the first fault.
const WARM_UP: Duration = Duration::from_secs(3);
/// How long replicas are given to become equal, and the harness to see it; the promise is shorter.
const EQUAL_MAX: Duration = Duration::from_secs(60);
/// How long nodes are given at the end to be ready.
const READY_MAX: Duration = Duration::from_secs(120);

/// What a run is to do.
#[derive(Clone, Debug)]
pub struct RunPlan {
    /// What clients do.
    pub workloads: Vec<Workload>,
    /// Which faults come, in which order.
    pub schedule: Schedule,
    /// How long clients work.
    pub duration: Duration,
    /// What hosts are made of.
    pub hosts: SiteKind,
    /// Where the run's files go.
    pub folder: PathBuf,
}

impl RunPlan {
    /// Where the history of a run in this folder is.
    #[must_use]
    pub fn history(folder: &Path) -> PathBuf {
        folder.join("history.jsonl")
    }
}

/// What `run` tells while it goes on.
pub trait Progress {
    /// A sentence about what happens now.
    fn tell(&self, sentence: &str);
}

/// Does a run and writes its history. Judging it is another matter (see `checker::check_file`).
///
/// # Errors
/// When the harness cannot do what it should: make nodes, disturb them, write the history. What the nodes do wrong is in
/// the history.
pub async fn run(plan: &RunPlan, site: Site, progress: &dyn Progress) -> anyhow::Result<()> {
    let mut recorder = Recorder::create(&RunPlan::history(&plan.folder))?;
    let names = site.hosts()[..plan.schedule.nodes].iter();
    recorder.record(&Line::Run(Run {
        seed: plan.schedule.seed,
        nodes: names.map(|host| host.name.clone()).collect(),
        workloads: plan.workloads.iter().map(|w| w.name().to_owned()).collect(),
        faults: plan
            .schedule
            .kinds()
            .iter()
            .map(|kind| kind.name().to_owned())
            .collect(),
        duration: u64::try_from(plan.duration.as_micros()).unwrap_or(u64::MAX),
        hosts: plan.hosts.name().to_owned(),
    }))?;
    progress.tell("starting nodes");
    let addresses = Addresses::default();
    let mut fleet = Fleet::start(site, &addresses).await?;
    let journalist = Journalist::new(recorder);
    let seed = plan.schedule.seed;
    let mut clients = Clients::begin(
        &plan.workloads,
        fleet.nodes(),
        seed,
        &journalist,
        &addresses,
    );
    let disturbed = disturb(plan, &mut fleet, &journalist, progress).await;
    progress.tell("healing, then comparing and reading everything");
    if let Some(network) = fleet.site().network() {
        network.heal();
    }
    clients.stop().await?;
    fleet.start_ended()?;
    let rest_since = journalist.now();
    // Unready nodes are found by the checkers, which miss their last reads.
    let ready = fleet.wait_ready(READY_MAX).await;
    if let Err(error) = &ready {
        progress.tell(&format!("{error:#}"));
    }
    journalist.record(&Line::Digests(
        compare(&fleet, &journalist, rest_since).await,
    ));
    let reads = clients.last_reads();
    for node in 0..fleet.nodes() {
        reads.read_all(node).await;
    }
    journalist.finish()?;
    disturbed
}

/// Does the schedule's faults while the clients work.
async fn disturb(
    plan: &RunPlan,
    fleet: &mut Fleet,
    journalist: &Journalist,
    progress: &dyn Progress,
) -> anyhow::Result<()> {
    let begun = Instant::now();
    let file = plan.folder.join("schedule.json");
    tokio::time::sleep(WARM_UP.min(plan.duration)).await;
    for (done, step) in plan.schedule.steps.iter().enumerate() {
        if begun.elapsed() >= plan.duration {
            return Ok(());
        }
        let at = begun.elapsed().as_secs();
        progress.tell(&format!("{at:>4} s  {}", step.kind.name()));
        // Before it is done, so that it can be repeated whatever it comes to.
        plan.schedule.write(&file, done + 1)?;
        let fault = strike(fleet, step, journalist).await;
        let fault = fault.with_context(|| format!("nemesis {}", step.kind.name()))?;
        let took = fault.recovered.unwrap_or(fault.ended) - fault.begun;
        progress.tell(&format!(
            "        {} ({:.1} s)",
            fault.details,
            took as f64 / 1e6
        ));
        let recovered = fault.recovered.is_some();
        journalist.record(&Line::Fault(fault));
        ensure!(
            recovered,
            "the nodes did not recover from {}",
            step.kind.name()
        );
        tokio::time::sleep(Duration::from_millis(step.rest_ms)).await;
    }
    tokio::time::sleep(plan.duration.saturating_sub(begun.elapsed())).await;
    Ok(())
}

async fn compare(fleet: &Fleet, journalist: &Journalist, rest_since: u64) -> Digests {
    let last = RefCell::new((0, Vec::new()));
    let equal = wait_until("equal replicas", EQUAL_MAX, || async {
        let (equal, compared, unequal) = fleet.compare(0).await?;
        last.replace((compared, unequal));
        ensure!(equal, "replicas differ");
        Ok(())
    });
    let equal = equal.await;
    let (compared, mut unequal) = last.into_inner();
    let equal_at = match equal {
        Ok(_) => Some(journalist.now()),
        Err(error) => {
            unequal.push(format!("{error:#}"));
            None
        }
    };
    Digests {
        rest_since,
        equal_at,
        compared,
        unequal,
    }
}

/// The kinds that hosts of a site can suffer, and those that they cannot, with the reasons.
#[must_use]
pub fn possible(site: &Site, kinds: &[Kind]) -> (Vec<Kind>, Vec<(Kind, String)>) {
    let mut can = Vec::new();
    let mut cannot = Vec::new();
    for kind in kinds {
        match kind.check_possible(site) {
            Ok(()) => can.push(*kind),
            Err(reason) => cannot.push((*kind, reason)),
        }
    }
    (can, cannot)
}
