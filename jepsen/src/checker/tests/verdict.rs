//! The table and what decides the exit code.

use super::build::{Build, failed};
use crate::{
    checker::{Row, VIOLATIONS_KEPT_MAX, check, check_file},
    history::{Line, Outcome, Recorder},
};

/// Element 1 was acknowledged during a power cut and is gone after it.
fn lossy() -> Build {
    let mut build = Build::new("set");
    build.history.run.faults = vec!["power-cut-all".to_owned(), "kill-one".to_owned()];
    build.add(0, (0, 10), Outcome::Done);
    build.fault("power-cut-all", &[0, 1, 2], (20, 50));
    build.add(1, (22, 25), Outcome::Done);
    build.add(2, (30, 40), failed());
    build.last_reads((100, 110), 2, &[(0, 0)]);
    build.digests(50, 90);
    build
}

#[test]
fn rows_count_what_happened_while_their_faults_were_in_force() {
    let verdict = check(&lossy().history);
    let kinds: Vec<_> = verdict.rows.iter().map(|row| row.kind.as_str()).collect();
    assert_eq!(kinds, ["power-cut-all", "kill-one", "(none)"]);
    let power = Row {
        kind: "power-cut-all".to_owned(),
        faults: 1,
        operations: 2,
        acknowledged: 1,
        lost: 1,
        window_anywhere: 10_000,
        ..Row::default()
    };
    assert_eq!(verdict.rows[0], power);
    let quiet = Row {
        kind: "(none)".to_owned(),
        operations: 4,
        acknowledged: 1,
        incomplete_silent: 3,
        ..Row::default()
    };
    assert_eq!(verdict.rows[2], quiet);
    let total = (verdict.total.operations, verdict.total.acknowledged);
    assert_eq!((total, verdict.total.lost), ((6, 2), 1));
}

#[test]
fn an_operation_during_two_faults_stands_in_both_rows_and_once_in_the_total() {
    let mut build = Build::new("set");
    build.fault("kill-one", &[0], (0, 50));
    build.fault("slow-links", &[1], (40, 90));
    build.add(0, (45, 48), Outcome::Done);
    let verdict = check(&build.history);
    let operations: Vec<u64> = verdict.rows.iter().map(|row| row.operations).collect();
    assert_eq!((operations, verdict.total.operations), (vec![1, 1, 0], 1));
}

#[test]
fn a_verdict_reads_as_text_and_as_json() {
    let verdict = check(&lossy().history);
    assert_eq!((verdict.is_good(), verdict.exit_code()), (false, 1));
    let text = verdict.to_string();
    for words in ["seed 7", "power-cut-all", "VIOLATION set: ", "violations\n"] {
        assert!(text.contains(words), "{text}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&verdict.to_json().expect("JSON")).expect("JSON");
    assert_eq!(json["total"]["lost"], 1);
    assert_eq!(json["run"]["seed"], 7);
}

#[test]
fn many_violations_are_counted_and_some_kept() {
    let mut build = lossy();
    for at in 200..300 {
        build.read(0, (at, at + 1), (0, 2), &[]);
    }
    let verdict = check(&build.history);
    assert!(verdict.violations_count > 100);
    assert!(verdict.violations.len() <= 6 * VIOLATIONS_KEPT_MAX);
    assert!(verdict.to_string().contains("\nand 84 more\n"), "{verdict}");
}

#[test]
fn files_are_checked_and_files_that_are_none_are_errors() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("history.jsonl");
    let build = lossy();
    let mut recorder = Recorder::create(&path).expect("a file");
    let run = Line::Run(build.history.run.clone());
    let fault = Line::Fault(build.history.faults[0].item.clone());
    for line in [run, fault] {
        recorder.record(&line).expect("a line");
    }
    recorder.flush().expect("all of it");
    let verdict = check_file(&path).expect("a verdict");
    assert_eq!(verdict.total.faults, 1);
    std::fs::write(&path, "{}\n").expect("a file");
    assert!(check_file(&path).is_err());
}
