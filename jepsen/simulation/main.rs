//! Whole nodes under simulated time, network, disks and clocks, in one thread, under one seed.
//!
//! What is real: Raft (openraft with Trefoil's log, state machine, snapshots, bootstrap), gossip, the replication core,
//! journal, manifest, blocks and metrics engine. What is modelled: the driver around them, thinly (see
//! `docs/decisions/0009-simulation-of-whole-nodes.md`), network, disks, clocks and clients.
//!
//! - `cargo test` runs the schedules of [`SEEDS`] seeds, each in a process of its own, so that nothing but the seed
//!   decides what happens; the planted bugs of [`FOUND`]; and the named schedules, with their bugs and without.
//! - `TREFOIL_SIM_SEED=s` runs one seed and tells its story, `TREFOIL_SIM_STORY=name` a named schedule;
//!   `TREFOIL_SIM_BUG=Name` with it plants that bug.
//! - `TREFOIL_SIM_SEEDS=n` runs n seeds instead.

mod bugs;
mod checks;
mod clients;
mod coverage;
mod dice;
mod disk;
mod entropy;
mod gossip;
mod ledger;
mod member;
mod named;
mod network;
mod plane;
mod process;
mod registers;
mod runner;
mod schedule;
mod stage;
mod tangle;
mod trouble;
mod world;

use bugs::Bug;
use runner::{Order, Outcome};
use std::io::Write as _;

/// How many seeds `cargo test` runs.
const SEEDS: u64 = 1_000;
/// The seed whose history is compared.
const COMPARED: [u64; 3] = [1, 2, 3];

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Whether one run is asked for, so that the tests of many have nothing to do.
fn is_ordered() -> bool {
    let story = std::env::var_os("TREFOIL_SIM_STORY").is_some();
    story || number("TREFOIL_SIM_SEED").is_some() || Order::from_environment().is_some()
}

/// Prints past the capture of the test harness: a run that went well shows what it did, too.
fn show(text: &str) {
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes())
        .expect("the summary can be written");
}

/// What the processes of the other tests run; by itself it runs one seed, or tells the story of the one that is asked
/// for.
#[test]
fn one_seed() {
    if let Some(order) = Order::from_environment() {
        let outcome = runner::simulate(&order);
        return outcome.print();
    }
    let seed = number("TREFOIL_SIM_SEED");
    let bug = std::env::var("TREFOIL_SIM_BUG")
        .ok()
        .and_then(|name| Bug::named(&name));
    let story = std::env::var("TREFOIL_SIM_STORY")
        .ok()
        .and_then(|name| named::story(&name));
    let order = Order {
        seed: seed.unwrap_or(0),
        bug,
        story: story.map(|story| story.name),
        keeps_all: false,
    };
    let outcome = runner::simulate(&order);
    if seed.is_some() || story.is_some() {
        show(&outcome.story.join("\n"));
        show(&format!("\n{}\n{:?}\n", outcome.coverage, outcome.broken));
    }
    assert!(
        outcome.broken.is_none(),
        "seed {}: {:?}",
        order.seed,
        outcome.broken
    );
}

#[test]
fn many_seeds_keep_all_promises() {
    if is_ordered() {
        return;
    }
    let count = number("TREFOIL_SIM_SEEDS").unwrap_or(SEEDS);
    let begun = std::time::Instant::now();
    let run = runner::run_seeds(0..count, &Order::default(), usize::MAX);
    show(&format!(
        "{count} seeds in {:.0} s, {} foundings stuck\n{}",
        begun.elapsed().as_secs_f64(),
        run.stuck,
        run.coverage
    ));
    assert!(run.failures.is_empty(), "{}", run.failures.join("\n"));
    if count >= SEEDS {
        assert_eq!(run.coverage.lacks(), []);
    }
}

#[test]
fn the_same_seed_has_the_same_history() {
    if is_ordered() {
        return;
    }
    for seed in COMPARED {
        let order = Order {
            seed,
            keeps_all: true,
            ..Order::default()
        };
        let once: Outcome = runner::in_a_process(&order);
        let again = runner::in_a_process(&order);
        let lines = once.story.iter().zip(&again.story);
        let different = lines.enumerate().find(|(_, (a, b))| a != b);
        assert_eq!(
            different, None,
            "seed {seed}: the histories part at this line"
        );
        assert_eq!(once.story.len(), again.story.len());
        assert_eq!(once.digest, again.digest);
    }
}

/// Planted bugs that random schedules find, with the number of seeds, from 0, within which one must. `docs/decisions/0009`
/// says which was the first; whatever changes a history moves it.
const FOUND: [(Bug, u64); 10] = [
    (Bug::AcknowledgeBeforeFsync, 10),
    (Bug::MajorityOfOne, 10),
    (Bug::BelieveUnsyncedNumbers, 10),
    (Bug::PromiseTwice, 150),
    (Bug::LoseIdempotency, 30),
    (Bug::UnappliedEvaluated, 10),
    (Bug::PositionBeforeParcels, 20),
    (Bug::DamageIgnored, 30),
    (Bug::RaftAcknowledgesBeforeFsync, 40),
    (Bug::OldBarrierUsed, 60),
];

/// With how many seeds each named schedule is told.
const STORY_SEEDS: u64 = 3;

/// Runs seeds with a bug until one finds it; the same ones must pass without.
fn look_for(bug: Bug, story: Option<&'static str>, seeds: std::ops::Range<u64>) -> Vec<String> {
    let with = Order {
        bug: Some(bug),
        story,
        ..Order::default()
    };
    let without = Order {
        bug: None,
        ..with.clone()
    };
    let found = runner::run_seeds(seeds.clone(), &with, 1);
    let (what, name) = (bug.what(), story.unwrap_or("random schedules"));
    let Some((seed, how)) = found.first else {
        return vec![format!("{bug:?} is not found by {name}, seeds {seeds:?}")];
    };
    show(&format!("{what} ({bug:?}): {name}, seed {seed}: {how}\n"));
    // All random schedules run without bugs elsewhere.
    let same = match story {
        Some(_) => seeds,
        None => seed..seed + 1,
    };
    runner::run_seeds(same, &without, usize::MAX).failures
}

#[test]
fn planted_bugs_are_found_by_seeds_that_pass_without_them() {
    if is_ordered() {
        return;
    }
    let found = FOUND.into_iter();
    let wrong = found.flat_map(|(bug, count)| look_for(bug, None, 0..count));
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn named_schedules_break_a_promise_with_their_bug_only() {
    if is_ordered() {
        return;
    }
    let stories = named::STORIES.iter();
    let wrong = stories.flat_map(|story| look_for(story.bug, Some(story.name), 0..STORY_SEEDS));
    let wrong: Vec<String> = wrong.collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_planted_bug_is_found_by_some_test() {
    let by_seeds = FOUND.iter().map(|(bug, _)| *bug);
    let by_stories = named::STORIES.iter().map(|story| story.bug);
    let found: Vec<Bug> = by_seeds.chain(by_stories).collect();
    let all = bugs::ALL.iter().map(|(bug, _)| *bug);
    let missed: Vec<Bug> = all.filter(|bug| !found.contains(bug)).collect();
    assert_eq!(missed, []);
}
