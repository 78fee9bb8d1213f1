//! Runs PromQL test files: Prometheus' own where they are at hand, ours always.
//!
//! Series are spread over one storage and over several, so that partial results are merged. Every evaluation must pass;
//! how many there must be at least in each of Prometheus' files stands in a table, which only ever grows.

use futures::executor::block_on;
use std::{
    env, fs,
    path::{Path, PathBuf},
};
use trefoil_query_promql::{
    MemorySource,
    promqltest::{self, Report},
};

/// Over how many storages the series are spread.
const SPREADS: [usize; 3] = [1, 2, 7];

/// Prometheus' files and how many evaluations are in each at least.
const EVALUATIONS_MIN: [(&str, usize); 21] = [
    ("aggregators.test", 128),
    ("at_modifier.test", 63),
    ("collision.test", 1),
    ("duration_expression.test", 48),
    ("extended_vectors.test", 135),
    ("fill-modifier.test", 37),
    ("functions.test", 344),
    ("histograms.test", 148),
    ("info.test", 43),
    ("limit.test", 29),
    ("literals.test", 20),
    ("name_label_dropping.test", 24),
    ("native_histograms.test", 418),
    ("operators.test", 171),
    ("range_queries.test", 15),
    ("selectors.test", 24),
    ("staleness.test", 14),
    ("start_timestamps.test", 21),
    ("subquery.test", 27),
    ("trig_functions.test", 15),
    ("type_and_unit.test", 47),
];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Runs a file and prints what failed.
fn run(file: &Path, storages: usize) -> Report {
    let text = fs::read_to_string(file).expect("the file is readable");
    let mut source = MemorySource::new(storages);
    let report = block_on(promqltest::run(&text, &mut source));
    let report = report.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    println!(
        "{name} over {storages}: {} passed, {} failed",
        report.passed,
        report.failures.len()
    );
    for failure in &report.failures {
        println!("  {name}:{} {}", failure.line, failure.query);
        println!("    {}", failure.reason);
    }
    report
}

#[test]
fn our_cases_pass() {
    let cases = workspace().join("tests/cases/promql");
    let files = fs::read_dir(cases).expect("the cases are there");
    let mut count = 0;
    for file in files {
        let file = file.expect("the entry is readable").path();
        for storages in SPREADS {
            let report = run(&file, storages);
            assert!(report.failures.is_empty(), "{}", file.display());
            count += report.passed;
        }
    }
    assert!(count > 0, "no case was run");
}

#[test]
fn prometheus_cases_pass() {
    let usual = || workspace().join("../shared/conformance/promqltest");
    let directory = env::var_os("TREFOIL_CONFORMANCE").map_or_else(usual, PathBuf::from);
    if !directory.is_dir() {
        println!("no conformance files at {}", directory.display());
        return;
    }
    let mut wrong = Vec::new();
    for (name, evaluations_min) in EVALUATIONS_MIN {
        for storages in SPREADS {
            let report = run(&directory.join(name), storages);
            if report.passed < evaluations_min || !report.failures.is_empty() {
                let (passed, failed) = (report.passed, report.failures.len());
                wrong.push(format!(
                    "{name} over {storages}: {passed} passed, {failed} failed"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "not all passed: {wrong:?}");
}
