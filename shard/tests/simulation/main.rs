//! The replication core under simulated time, network, disks and metadata plane.
//!
//! `cargo test` runs [`SCHEDULES`] random schedules and all named ones. `TREFOIL_SIM_SCHEDULES=n` runs n random
//! schedules instead, `TREFOIL_SIM_SEED=s` runs one and prints its story. A schedule that breaks a promise
//! fails with its seed. At the end stands what really happened, and how often; a run in which a fault never strikes
//! fails too.
//!
//! Checked after every schedule: D1 (what was acknowledged survives), D2 (every answer holds all that was
//! acknowledged before the query began, and nothing that was never sent), D3 (at rest all replicas are equal; what was
//! deleted stays deleted), and that with everything up every node takes writes and answers.

mod checks;
mod client;
mod coverage;
mod dice;
mod named;
mod node;
mod plane;
mod schedule;
mod store;
mod world;

use coverage::Coverage;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use trefoil_shard::{Faults, movement::MovementFaults};

/// How many schedules `cargo test` runs.
const SCHEDULES: u64 = 20_000;
/// A thread of the simulation stops after so many failing schedules.
const FAILURES_MAX: usize = 5;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn random_schedules_keep_all_promises() {
    if let Some(seed) = number("TREFOIL_SIM_SEED") {
        let outcome = schedule::run(seed, Faults::default(), MovementFaults::default());
        match outcome {
            Ok(coverage) => println!("{coverage}"),
            Err(why) => panic!("seed {seed}: {why}"),
        }
        return;
    }
    let count = number("TREFOIL_SIM_SCHEDULES").unwrap_or(SCHEDULES);
    let (coverage, failures) = run_all(count);
    // Past the capture of the test harness: a run that went well shows what it did, too.
    let summary = format!("{count} random schedules\n{coverage}");
    std::io::stdout()
        .write_all(summary.as_bytes())
        .expect("the summary can be written");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    if count >= SCHEDULES {
        assert_eq!(coverage.lacks(), Vec::<String>::new());
    }
}

/// Runs the schedules of the first seeds, on all processors. Says what happened in those that went well, and
/// which did not.
fn run_all(count: u64) -> (Coverage, Vec<String>) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let next = AtomicU64::new(0);
    let run = || {
        let mut coverage = Coverage::default();
        let mut failures = Vec::new();
        while failures.len() < FAILURES_MAX {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= count {
                break;
            }
            match schedule::run(seed, Faults::default(), MovementFaults::default()) {
                Ok(one) => coverage.add(&one),
                Err(why) => failures.push(format!("TREFOIL_SIM_SEED={seed}: {why}")),
            }
        }
        (coverage, failures)
    };
    let mut coverage = Coverage::default();
    let mut failures = Vec::new();
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        for thread in running {
            match thread.join() {
                Ok((one, of_thread)) => {
                    coverage.add(&one);
                    failures.extend(of_thread);
                }
                Err(why) => std::panic::resume_unwind(why),
            }
        }
    });
    (coverage, failures)
}
