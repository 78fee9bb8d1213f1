//! Comparisons of replicas.

use super::build::{Build, failed};
use crate::{checker::digests, history::Outcome};

/// A run of the set workload: a fault to 500 ms, a write to 600 ms.
fn run() -> Build {
    let mut build = Build::new("set");
    build.fault("kill-one", &[0], (100, 500));
    build.add(0, (590, 600), Outcome::Done);
    build
}

/// Number of violations and the first one's words.
fn judge(build: &Build) -> (u64, String) {
    let violations = digests::check(&build.history);
    let first = violations.kept().first();
    let text = first.map_or(String::new(), |violation| violation.text.clone());
    (violations.count(), text)
}

fn assert_rejected(build: &Build, words: &str) {
    let (count, text) = judge(build);
    assert_eq!(count, 1, "{text}");
    assert!(text.contains(words), "{text}");
}

#[test]
fn equal_replicas_within_ten_seconds_are_accepted() {
    let mut build = run();
    build.digests(600, 10_600);
    assert_eq!(judge(&build).0, 0);
}

#[test]
fn later_than_ten_seconds_is_rejected() {
    let mut build = run();
    build.digests(600, 10_601);
    assert_rejected(&build, "line 4: the replicas became equal only 10.001 s");
}

#[test]
fn replicas_that_stay_unequal_are_rejected() {
    let mut build = run();
    let digests = build.digests(600, 700);
    digests.equal_at = None;
    digests.unequal = vec!["shard 3 of window 7".to_owned()];
    assert_rejected(&build, "shard 3 of window 7");
}

#[test]
fn a_run_without_comparison_is_rejected() {
    assert_rejected(&run(), "never compared");
    let mut other = Build::new("register");
    other.fault("kill-one", &[0], (100, 500));
    assert_eq!(judge(&other).0, 0, "it has nothing to compare");
}

#[test]
fn a_comparison_of_nothing_is_rejected() {
    let mut build = run();
    build.digests(600, 700).compared = 0;
    assert_rejected(&build, "compared nothing");
}

#[test]
fn a_comparison_during_a_fault_is_rejected() {
    let mut build = run();
    build.digests(450, 550);
    build.digests(600, 700);
    assert_rejected(&build, "during the fault of line 2");
}

#[test]
fn writes_and_faults_after_the_last_comparison_are_rejected() {
    let mut build = run();
    build.digests(600, 700);
    build.add(1, (650, 710), failed());
    assert_rejected(&build, "not compared after the last fault and write");
    let mut build = run();
    build.digests(600, 700);
    build.fault("kill-one", &[0], (800, 900));
    assert_rejected(&build, "0.900 s");
}

#[test]
fn equality_before_rest_is_rejected() {
    let mut build = run();
    build.digests(600, 599);
    assert_rejected(&build, "before there was rest");
}
