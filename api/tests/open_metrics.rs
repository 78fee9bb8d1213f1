//! The parser cases of the OpenMetrics project: folders with a text and whether it may be read.
//!
//! They are read from beside the project, or from `TREFOIL_CONFORMANCE_OPENMETRICS`; where they are not,
//! the test says so.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::{
    env, fs,
    path::{Path, PathBuf},
};
use trefoil_api::exposition::{Dialect, Parser};

fn read(text: &[u8]) -> Result<usize, String> {
    let mut parser = Parser::new(text, Dialect::OpenMetrics).map_err(|error| error.to_string())?;
    let mut entries = 0;
    while parser
        .next_entry()
        .map_err(|error| error.to_string())?
        .is_some()
    {
        entries += 1;
    }
    Ok(entries)
}

/// What is wrong with the outcome of a case.
fn check(case: &Path) -> Option<String> {
    let expected: serde_json::Value =
        serde_json::from_slice(&fs::read(case.join("test.json")).unwrap()).unwrap();
    let text = fs::read(case.join("metrics")).unwrap();
    let name = case.file_name().unwrap().to_string_lossy();
    match (read(&text), expected["shouldParse"].as_bool().unwrap()) {
        (Ok(_), false) => Some(format!("{name} was read")),
        (Err(error), true) => Some(format!("{name} was refused: {error}")),
        _ => None,
    }
}

#[test]
fn cases_of_the_open_metrics_project() {
    let beside =
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/conformance/openmetrics");
    let directory =
        env::var_os("TREFOIL_CONFORMANCE_OPENMETRICS").map_or_else(beside, PathBuf::from);
    if !directory.is_dir() {
        println!(
            "did not run: no conformance files at {}",
            directory.display()
        );
        return;
    }
    let cases: Vec<PathBuf> = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(!cases.is_empty(), "{} is empty", directory.display());
    let wrong: Vec<String> = cases.iter().filter_map(|case| check(case)).collect();
    assert!(
        wrong.is_empty(),
        "{} of {}: {wrong:#?}",
        wrong.len(),
        cases.len()
    );
    println!("{} cases passed", cases.len());
}
