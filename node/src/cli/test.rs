//! `trefoil test`: runs files of test cases against the engines of this program, over a store in a temporary directory.

use super::print;
use crate::query::standalone::Standalone;
use anyhow::Context;
use clap::{Args, Subcommand};
use std::{fs, path::PathBuf, process::ExitCode};
use trefoil_query_promql::promqltest;

/// What to test.
#[derive(Subcommand, Debug)]
pub(crate) enum TestCommand {
    /// Run PromQL test files in the format of Prometheus' promqltest
    Promql(PromqlArgs),
}

/// What `trefoil test promql` takes.
#[derive(Args, Debug)]
pub(crate) struct PromqlArgs {
    /// Files, and directories whose *.test files are run in the order of their names
    #[arg(required = true)]
    paths: Vec<PathBuf>,
}

/// What a shell gives for SIGINT.
const EXIT_INTERRUPTED: u8 = 130;

/// Runs the files and prints what failed and how many passed. Fails when any evaluation did, or a file could not be read; the others
/// are run all the same.
///
/// # Errors
/// When a directory cannot be read or there are no files.
pub(crate) async fn run(command: TestCommand) -> anyhow::Result<ExitCode> {
    let TestCommand::Promql(args) = command;
    let files = files(&args.paths)?;
    anyhow::ensure!(!files.is_empty(), "there are no *.test files in there");
    // Its directory goes with it, also when somebody interrupts.
    let mut target = Standalone::new().context("make a store for the tests")?;
    tokio::select! {
        outcome = run_files(&files, &mut target) => outcome,
        _ = tokio::signal::ctrl_c() => Ok(ExitCode::from(EXIT_INTERRUPTED)),
    }
}

async fn run_files(files: &[PathBuf], target: &mut Standalone) -> anyhow::Result<ExitCode> {
    let (mut passed, mut failed, mut unreadable) = (0, 0, 0);
    for file in files {
        let name = file.display();
        let report = match fs::read_to_string(file) {
            Ok(text) => promqltest::run(&text, target).await,
            Err(error) => Err(error.to_string()),
        };
        let report = match report {
            Ok(report) => report,
            Err(error) => {
                unreadable += 1;
                print(&format!("{name}: {error}\n"))?;
                continue;
            }
        };
        passed += report.passed;
        failed += report.failures.len();
        for failure in &report.failures {
            let (line, query) = (failure.line, &failure.query);
            print(&format!("{name}:{line}: {query}\n    {}\n", failure.reason))?;
        }
        // Others may run meanwhile, and an interrupt is heard.
        tokio::task::yield_now().await;
    }
    if unreadable > 0 {
        print(&format!(
            "{unreadable} files could not be run to their end\n"
        ))?;
    }
    print(&format!("{passed} passed, {failed} failed\n"))?;
    Ok(match failed + unreadable {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// The files that are meant, directories opened.
fn files(paths: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries = fs::read_dir(path).with_context(|| format!("read {}", path.display()))?;
        let mut inside = Vec::new();
        for entry in entries {
            let file = entry
                .with_context(|| format!("read {}", path.display()))?
                .path();
            if file.extension() == Some("test".as_ref()) {
                inside.push(file);
            }
        }
        inside.sort();
        files.append(&mut inside);
    }
    Ok(files)
}
