//! The program itself, as its users start it.
//!
//! These are integration tests of the package so that `cargo test` builds the program beside them, of the same libraries:
//! what other test programs start is then built once.

use anyhow::ensure;
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Its second evaluation is wrong on purpose.
const CASES: &str = r#"load 1m
  up{job="a"} 0+1x10

eval instant at 5m up
  up{job="a"} 5

eval instant at 5m sum(up)
  {} 6
"#;

/// Exit code and standard output of `trefoil test promql PATH`.
fn test_promql(path: &Path) -> anyhow::Result<(Option<i32>, String)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trefoil"));
    let output = command.args(["test", "promql"]).arg(path).output()?;
    Ok((output.status.code(), String::from_utf8(output.stdout)?))
}

#[test]
fn failing_cases_are_printed_with_what_was_got_and_wanted() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("sums.test");
    fs::write(&file, CASES)?;
    let (code, output) = test_promql(folder.path())?;
    let place = format!("{}:7: sum(up)\n", file.display());
    ensure!(code == Some(1), "{code:?}: {output}");
    ensure!(output.starts_with(&place), "{output}");
    ensure!(output.contains("got 5, want 6"), "{output}");
    ensure!(output.ends_with("1 passed, 1 failed\n"), "{output}");
    Ok(())
}

#[test]
fn our_own_cases_pass() -> anyhow::Result<()> {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/cases/promql");
    let (code, output) = test_promql(&cases)?;
    ensure!(code == Some(0), "{output}");
    ensure!(output.ends_with(" passed, 0 failed\n"), "{output}");
    ensure!(!output.starts_with("0 passed"), "no cases were found");
    Ok(())
}

/// Prometheus' own cases are not part of this tree: they are read where they are at hand.
#[test]
fn prometheus_cases_pass() -> anyhow::Result<()> {
    let usual =
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/conformance/promqltest");
    let cases = env::var_os("TREFOIL_CONFORMANCE").map_or_else(usual, PathBuf::from);
    if !cases.is_dir() {
        eprintln!("no conformance files at {}", cases.display());
        return Ok(());
    }
    let (code, output) = test_promql(&cases)?;
    ensure!(code == Some(0), "{output}");
    ensure!(output.ends_with(" passed, 0 failed\n"), "{output}");
    Ok(())
}
