//! What somebody sees who types commands at a node: tables and JSON, exit codes, and sentences that say what
//! to do.

use anyhow::{Context, ensure};
use serde_json::Value;
use std::{
    path::Path,
    process::{Command, Output},
};
use trefoil_jepsen::{Cluster, Exclusive, FreePort, ready_seconds_max, trefoil_binary};

#[tokio::test(flavor = "multi_thread")]
async fn commands_print_tables_and_json_and_end_with_the_right_code() -> anyhow::Result<()> {
    let _alone = Exclusive::take()?;
    let mut cluster = Cluster::start(1)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    let url = cluster.url(0);
    let bench = ["bench", "metrics", "--series", "20", "--samples", "2"];
    for (arguments, code) in [
        (&bench[..], 0),
        (&["cluster", "status"], 0),
        (&["cluster", "verify"], 0),
        (&["query", "metrics", "up"], 0),
        (&["query", "metrics", "1+1", "--time", "1"], 0),
        (&["query", "metrics", "1", "--start", "0", "--end", "30"], 0),
        (&["query", "metrics", "sum("], 1),
        (&["cluster", "drain", "nobody"], 1),
        (&["cluster", "drain", "node-1"], 1),
        (&["cluster", "stats"], 2),
    ] {
        let output = cluster.command(0, arguments)?;
        let (out, err) = texts(&output);
        ensure!(
            output.status.code() == Some(code),
            "{arguments:?}: {}\n{out}{err}",
            output.status
        );
        ensure!(out.is_empty() == (code != 0), "{arguments:?}: {out}");
        ensure!(err.is_empty() == (code == 0), "{arguments:?}: {err}");
        let plain = |text: &str| text.chars().all(|c| c == '\n' || !c.is_control());
        ensure!(plain(&out) && plain(&err), "{arguments:?}: {out:?}{err:?}");
        if code == 0 {
            let json = cluster.command(0, &[arguments, &["-o", "json"]].concat())?;
            let read: Result<Value, _> = serde_json::from_slice(&json.stdout);
            read.with_context(|| format!("{arguments:?} -o json"))?;
        }
    }
    // A reader that has seen enough ends nothing with a panic.
    let closed = format!("'{}' cluster status --url {url} | true", program()?);
    let output = Command::new("bash")
        .args(["-c", &format!("set -o pipefail; {closed}")])
        .output()?;
    ensure!(output.status.success(), "{}", texts(&output).1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_start_says_why_and_once() -> anyhow::Result<()> {
    let _alone = Exclusive::take()?;
    let mut cluster = Cluster::start(1)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    let node = &cluster.nodes()[0];
    let folder = tempfile::tempdir()?;
    let fresh = folder.path().join("data");
    let (used, free) = (node.data(), FreePort::find()?.to_string());
    let taken = node.http.to_string();
    let typo = folder.path().join("typo.yaml");
    std::fs::write(&typo, "storage:\n  retention_hour: 3\n")?;
    let typo = typo.to_string_lossy().into_owned();
    let file = folder.path().join("file");
    std::fs::write(&file, "")?;
    let below_a_file = file.join("data");
    let cases: [(&Path, &[&str], &str); 6] = [
        (used, &["--http", &free], "is used by another process"),
        (&fresh, &["--http", &taken], "if another program has it"),
        (&below_a_file, &["--http", &free], "make the data directory"),
        (&fresh, &["--config", "none.yaml"], "No such file"),
        (
            &fresh,
            &["--config", &typo],
            "did you mean \"retention_hours\"?",
        ),
        (&fresh, &["--log-level", "a=b=c"], "level filter"),
    ];
    for (data, arguments, expected) in cases {
        let output = Command::new(trefoil_binary()?)
            .args(["serve", "--peer", "127.0.0.1:0", "--data-dir"])
            .arg(data)
            .args(arguments)
            .output()?;
        let (_, err) = texts(&output);
        ensure!(output.status.code() == Some(1), "{arguments:?}: {err}");
        let last = err.lines().last().unwrap_or_default();
        ensure!(last.starts_with("error: "), "{arguments:?}: {err}");
        ensure!(
            last.matches(expected).count() == 1,
            "{arguments:?}: {expected:?} is not there once: {err}"
        );
    }
    Ok(())
}

/// While an owner is away the next one may not go: it says what would be lost, and serves on.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_would_cost_majorities_is_refused() -> anyhow::Result<()> {
    let _alone = Exclusive::take()?;
    let mut cluster = Cluster::start(3)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    cluster.stop(1)?;
    let output = cluster.command(0, &["node", "prepare-stop", "--wait", "1"])?;
    let (out, err) = texts(&output);
    ensure!(output.status.code() == Some(3), "{}: {err}", output.status);
    ensure!(out.is_empty(), "{out}");
    ensure!(err.contains("256 shards lose their majority"), "{err}");
    let ready = cluster.command(0, &["node", "ready"])?;
    ensure!(ready.status.success(), "{}", texts(&ready).1);
    cluster.start_node(1)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    let output = cluster.command(0, &["node", "prepare-stop"])?;
    ensure!(output.status.success(), "{}", texts(&output).1);
    let ready = cluster.command(0, &["node", "ready"])?;
    ensure!(ready.status.code() == Some(1), "it is ready");
    Ok(())
}

fn program() -> anyhow::Result<String> {
    Ok(trefoil_binary()?.display().to_string())
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}
