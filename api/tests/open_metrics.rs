//! The parser cases of the OpenMetrics project: folders with a text and whether it may be read, by the parser and by the
//! import over HTTP.
//!
//! They are read from beside the project, or from `TREFOIL_CONFORMANCE_OPENMETRICS`; where they are not,
//! the test says so.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[allow(dead_code, reason = "other tests use more of it")]
mod fake;

use axum::{body::Body, http::Request};
use fake::FakeNode;
use http_body_util::BodyExt;
use std::{
    env, fs,
    path::{Path, PathBuf},
};
use tower::ServiceExt;
use trefoil_api::{
    ApiLimits,
    exposition::{Dialect, Parser},
    router,
};

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

/// Posts the text to a node; an error when it says that it cannot be read.
async fn import(text: Vec<u8>) -> Result<usize, String> {
    let request = Request::post("/api/v1/import/prometheus")
        .header("content-type", "application/openmetrics-text")
        .body(Body::from(text))
        .unwrap();
    let response = router(FakeNode::new(), ApiLimits::default());
    let response = response.oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let answer = String::from_utf8_lossy(&body).into_owned();
    match status {
        204 => Ok(0),
        400 if answer.contains("nothing of the request was stored") => Err(answer),
        _ => panic!("{status} {answer}"),
    }
}

/// What is wrong with the outcome of a case.
async fn check(case: &Path) -> Option<String> {
    let expected: serde_json::Value =
        serde_json::from_slice(&fs::read(case.join("test.json")).unwrap()).unwrap();
    let text = fs::read(case.join("metrics")).unwrap();
    let name = case.file_name().unwrap().to_string_lossy();
    let outcomes = [("parser", read(&text)), ("import", import(text).await)];
    let should_parse = expected["shouldParse"].as_bool().unwrap();
    let mut wrong =
        outcomes
            .into_iter()
            .filter_map(|(by, outcome)| match (outcome, should_parse) {
                (Ok(_), false) => Some(format!("{name} was read by the {by}")),
                (Err(error), true) => Some(format!("{name} was refused by the {by}: {error}")),
                _ => None,
            });
    wrong.next()
}

#[tokio::test]
async fn cases_of_the_open_metrics_project() {
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
    let mut wrong = Vec::new();
    for case in &cases {
        wrong.extend(check(case).await);
    }
    assert!(
        wrong.is_empty(),
        "{} of {}: {wrong:#?}",
        wrong.len(),
        cases.len()
    );
    println!("{} cases passed", cases.len());
}
