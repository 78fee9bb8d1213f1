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

/// Runs the files and prints what failed and how many passed. Fails when any evaluation did.
///
/// # Errors
/// For a file that cannot be read.
pub(crate) async fn run(command: TestCommand) -> anyhow::Result<ExitCode> {
    let TestCommand::Promql(args) = command;
    let mut target = Standalone::new().context("make a store for the tests")?;
    let (mut passed, mut failed) = (0, 0);
    for file in files(&args.paths)? {
        let name = file.display();
        let text = fs::read_to_string(&file).with_context(|| format!("read {name}"))?;
        let report = promqltest::run(&text, &mut target).await;
        let report = report.map_err(|error| anyhow::anyhow!("{name}: {error}"))?;
        passed += report.passed;
        failed += report.failures.len();
        for failure in &report.failures {
            let (line, query) = (failure.line, &failure.query);
            print(&format!("{name}:{line}: {query}\n    {}\n", failure.reason))?;
        }
    }
    print(&format!("{passed} passed, {failed} failed\n"))?;
    Ok(match failed {
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
