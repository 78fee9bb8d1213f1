//! Snapshots of a whole cluster, read without it and imported into a fresh one; with nodes down, killed in the middle, and
//! where nobody may make one.

use anyhow::{Context, bail, ensure};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use trefoil_jepsen::{
    Answer, Clock, Cluster, Exclusive, HttpClient, percent_encode, ready_seconds_max,
    trefoil_binary, wait_until,
};

/// Longer than a node may take to make its part.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(150);
/// Series of each kind.
const SERIES: u64 = 20;
/// Samples of a series at once.
const SAMPLES: i64 = 30;
const TENANTS: [&str; 2] = ["one", "other"];

/// A client of a tenant.
fn client(tenant: &str) -> HttpClient {
    HttpClient::new(ANSWER_WAIT_MAX).with_tenant(tenant)
}

/// Floats, stale markers and histograms of a tenant, from a time on.
fn lines(tenant: &str, begin: i64) -> String {
    let mut text = String::new();
    for series in 0..SERIES {
        let times: Vec<String> = (0..SAMPLES)
            .map(|at| (begin + at * 1_000).to_string())
            .collect();
        let float = |at: i64| match (at, tenant.len()) {
            (7, _) => "null".to_owned(),
            (at, length) => format!("{}.{length}", at as u64 * series),
        };
        let histogram = |at: i64| {
            let count = (at + 1) as u64 * (series + 1);
            format!(
                r#"{{"schema":0,"count":{count},"sum":1.5,"zero_threshold":0,"zero_count":0,"positive":{{"spans":[[0,1]],"counts":[{count}]}}}}"#
            )
        };
        let floats: Vec<String> = (0..SAMPLES).map(float).collect();
        let histograms: Vec<String> = (0..SAMPLES).map(histogram).collect();
        for (name, values) in [
            ("gone", &floats),
            ("kept", &floats),
            ("native", &histograms),
        ] {
            text.push_str(&format!(
                "{{\"metric\":{{\"__name__\":\"snapshot_{name}\",\"i\":\"{series}\"}},\"values\":[{}],\"timestamps\":[{}]}}\n",
                values.join(","),
                times.join(",")
            ));
        }
    }
    text
}

async fn import(cluster: &Cluster, node: usize, tenant: &str, lines: String) -> anyhow::Result<()> {
    let url = format!("{}/api/v1/import", cluster.url(node));
    let answer = client(tenant).post(&url, &[], lines).await?;
    ensure!(answer.status == 204, "{}", answer.text());
    Ok(())
}

/// The lines that a node exports for a tenant, in any order.
async fn exported(
    cluster: &Cluster,
    node: usize,
    tenant: &str,
) -> anyhow::Result<BTreeSet<String>> {
    let selector = percent_encode("{__name__!=\"\"}");
    let url = format!("{}/api/v1/export?match[]={selector}", cluster.url(node));
    let answer = client(tenant).get(&url).await?;
    ensure!(answer.is_success(), "{}", answer.text());
    Ok(sorted(std::str::from_utf8(&answer.body)?))
}

fn sorted(text: &str) -> BTreeSet<String> {
    text.lines().map(str::to_owned).collect()
}

async fn administer(cluster: &Cluster, node: usize, what: &str) -> anyhow::Result<Answer> {
    let url = format!("{}/prometheus/api/v1/admin/tsdb/{what}", cluster.url(node));
    client("one").post(&url, &[], String::new()).await
}

/// Makes a snapshot: its name and its warnings.
async fn snapshot(cluster: &Cluster, node: usize) -> anyhow::Result<(String, Vec<String>)> {
    let answer = administer(cluster, node, "snapshot").await?;
    ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
    let document = answer.json()?;
    let name = document["data"]["name"].as_str().context("a name")?;
    let warnings = document["warnings"].as_array().cloned().unwrap_or_default();
    let text = |warning: &Value| warning.as_str().unwrap_or_default().to_owned();
    Ok((name.to_owned(), warnings.iter().map(text).collect()))
}

/// What is in the folder of snapshots of a node.
fn found(cluster: &Cluster, node: usize) -> anyhow::Result<Vec<String>> {
    let folder = cluster.nodes()[node].data().join("snapshots");
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let names = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into()));
    names.collect()
}

/// The folders of a snapshot on the nodes that have it.
fn folders(cluster: &Cluster, name: &str) -> Vec<PathBuf> {
    let nodes = cluster.nodes().iter();
    let folders = nodes.map(|node| node.data().join("snapshots").join(name));
    folders.filter(|folder| folder.exists()).collect()
}

/// Runs `trefoil snapshot`; standard output and standard error.
fn run(what: &str, folders: &[PathBuf], more: &[&str]) -> anyhow::Result<(String, String)> {
    let mut command = Command::new(trefoil_binary()?);
    let output = command
        .args(["snapshot", what])
        .args(folders)
        .args(more)
        .output()?;
    let errors = String::from_utf8(output.stderr)?;
    if !output.status.success() {
        bail!("{errors}");
    }
    Ok((String::from_utf8(output.stdout)?, errors))
}

fn export(folders: &[PathBuf], tenant: &str) -> anyhow::Result<BTreeSet<String>> {
    let (text, _) = run("export", folders, &["--tenant", tenant])?;
    let lines = sorted(&text);
    ensure!(lines.len() == text.lines().count(), "a line is there twice");
    Ok(lines)
}

/// The same lines; the first that is only on one side otherwise.
fn same(lines: &BTreeSet<String>, expected: &BTreeSet<String>) -> anyhow::Result<()> {
    match lines.symmetric_difference(expected).next() {
        None => Ok(()),
        Some(line) => bail!(
            "{} lines, not {}; only one side has {line}",
            lines.len(),
            expected.len()
        ),
    }
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}

/// Two tenants, in blocks and heads, with samples that are deleted and written again.
async fn filled(nodes: usize) -> anyhow::Result<Cluster> {
    let mut cluster = Cluster::start(nodes)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    let now = Clock::now_millis();
    for (node, tenant) in TENANTS.into_iter().enumerate() {
        let node = node % nodes;
        import(&cluster, node, tenant, lines(tenant, now - 5 * 3_600_000)).await?;
        import(&cluster, node, tenant, lines(tenant, now - 300_000)).await?;
    }
    // Puts all of it into blocks, which the deletion finds there.
    snapshot(&cluster, 0).await?;
    let selector = percent_encode("snapshot_gone");
    let what = format!("delete_series?match[]={selector}");
    let deleted = administer(&cluster, 0, &what).await?;
    ensure!(deleted.status == 204, "{}", deleted.text());
    import(&cluster, 0, "one", lines("one", now - 200_000)).await?;
    Ok(cluster)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_is_the_cluster_without_it() -> anyhow::Result<()> {
    let _alone = Exclusive::take()?;
    let mut cluster = filled(3).await?;
    let mut expected = Vec::new();
    for tenant in TENANTS {
        expected.push(exported(&cluster, 2, tenant).await?);
    }
    // Only what was written again is left of what was deleted.
    let gone = expected[0].iter().filter(|line| line.contains("_gone"));
    let gone = gone.count();
    ensure!(gone == SERIES as usize, "{gone} series are left");
    let (name, warnings) = snapshot(&cluster, 1).await?;
    ensure!(warnings.is_empty(), "{warnings:?}");
    let kept = tempfile::tempdir()?;
    let mut copies = Vec::new();
    for (node, folder) in folders(&cluster, &name).iter().enumerate() {
        let to = kept.path().join(format!("n{node}"));
        copy(folder, &to)?;
        copies.push(to);
    }
    ensure!(copies.len() == 3, "{copies:?}");
    // Later writes and deletions are not in it.
    let now = Clock::now_millis();
    import(&cluster, 0, "one", lines("one", now - 100_000)).await?;
    for node in 0..3 {
        cluster.kill(node)?;
        cluster.delete_data(node)?;
    }
    for node in 0..3 {
        cluster.start_node(node)?;
    }
    cluster.wait_ready(ready_seconds_max()).await?;

    // Any one node of three has all shards; of several each sample comes once.
    for folders in [&copies[..], &copies[1..2], &copies[..2]] {
        for (tenant, expected) in TENANTS.iter().zip(&expected) {
            let lines = export(folders, tenant)?;
            same(&lines, expected).with_context(|| format!("{tenant} of {folders:?}"))?;
        }
    }
    let (listed, _) = run("list", &copies, &["-o", "json"])?;
    let listed: Value = serde_json::from_str(&listed)?;
    ensure!(listed["name"] == name.as_str(), "{listed}");
    ensure!(
        listed["shards_missing"] == serde_json::json!([]),
        "{listed}"
    );
    for (at, tenant) in TENANTS.iter().enumerate() {
        let found = &listed["tenants"][at];
        let series = 3 * SERIES;
        ensure!(
            found["tenant"] == *tenant && found["series"] == series,
            "{listed}"
        );
    }
    let samples = &listed["tenants"][1]["samples"];
    ensure!(*samples == 2 * 3 * SERIES * SAMPLES as u64, "{listed}");
    let (table, _) = run("list", &copies[..1], &[])?;
    ensure!(
        table.contains("shards are here") && table.contains("other"),
        "{table}"
    );
    let several = run("export", &copies, &[]).map_err(|error| error.to_string());
    ensure!(several.is_err_and(|why| why.contains("one, other")));
    let (some, _) = run(
        "export",
        &copies,
        &["--tenant", "one", "--match", "snapshot_native{i=\"3\"}"],
    )?;
    ensure!(
        some.lines().count() == 1 && some.contains("snapshot_native"),
        "{some}"
    );

    for (tenant, expected) in TENANTS.iter().zip(&expected) {
        let (text, _) = run("export", &copies, &["--tenant", tenant])?;
        import(&cluster, 0, tenant, text).await?;
        let again = exported(&cluster, 1, tenant).await?;
        same(&again, expected)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_says_who_has_no_part_and_is_whole_or_none() -> anyhow::Result<()> {
    let _alone = Exclusive::take()?;
    let mut cluster = filled(3).await?;
    let expected = exported(&cluster, 0, "one").await?;
    // Who answers nothing is waited for until gossip holds it for down.
    cluster.pause(2)?;
    let paused = snapshot(&cluster, 0).await;
    cluster.resume(2)?;
    let (name, warnings) = paused?;
    ensure!(
        warnings.len() == 1 && warnings[0].contains("node-3"),
        "{warnings:?}"
    );
    same(&export(&folders(&cluster, &name), "one")?, &expected)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    let before = found(&cluster, 0)?;
    cluster.kill(2)?;
    let (name, warnings) = snapshot(&cluster, 1).await?;
    ensure!(
        warnings.len() == 1 && warnings[0].contains("node-3"),
        "{warnings:?}"
    );
    let two = folders(&cluster, &name);
    ensure!(two.len() == 2, "{two:?}");
    same(&export(&two, "one")?, &expected)?;

    cluster.kill(1)?;
    let answer = administer(&cluster, 0, "snapshot").await?;
    ensure!(answer.status == 503, "{}: {}", answer.status, answer.text());
    ensure!(answer.text().contains("node-2"), "{}", answer.text());
    let mut after = found(&cluster, 0)?;
    after.retain(|other| *other != name);
    ensure!(after == before, "{after:?}, not {before:?}");

    // What is not flushed yet is not in a snapshot without the head.
    cluster.start_node(1)?;
    cluster.start_node(2)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    let late = lines("late", Clock::now_millis() - 60_000);
    import(&cluster, 0, "late", late).await?;
    let answer = administer(&cluster, 0, "snapshot?skip_head=true").await?;
    ensure!(answer.status == 200, "{}", answer.text());
    let name = answer.json()?["data"]["name"]
        .as_str()
        .context("a name")?
        .to_owned();
    let folders = folders(&cluster, &name);
    let (listed, warned) = run("list", &folders, &["-o", "json"])?;
    ensure!(
        !listed.contains("late") && warned.contains("head was skipped"),
        "{listed}{warned}"
    );
    same(&export(&folders, "one")?, &expected)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_makes_a_snapshot_where_that_is_off() -> anyhow::Result<()> {
    let _alone = Exclusive::take()?;
    let mut cluster = Cluster::start_configured(1, "enable_admin_api: false\n")?;
    cluster.wait_ready(ready_seconds_max()).await?;
    let answer = administer(&cluster, 0, "snapshot").await?;
    ensure!(answer.status == 503, "{}", answer.text());
    ensure!(
        answer.text().contains("admin APIs disabled"),
        "{}",
        answer.text()
    );
    ensure!(found(&cluster, 0)?.is_empty());
    Ok(())
}

/// Kills a node while a snapshot is made, at another moment in each round: what is there afterwards is whole.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_leaves_no_half_snapshot() -> anyhow::Result<()> {
    let _alone = Exclusive::take()?;
    let mut cluster = filled(3).await?;
    let mut expected = exported(&cluster, 0, "one").await?;
    let mut made = 0;
    for round in 0..8_u64 {
        // Something to flush.
        let begin = Clock::now_millis() - 90_000 + round as i64;
        import(&cluster, 0, "one", lines("one", begin)).await?;
        let struck = round as usize % 2;
        let url = format!("{}/api/v1/admin/tsdb/snapshot", cluster.url(0));
        let asked = tokio::spawn(async move { client("one").post(&url, &[], String::new()).await });
        tokio::time::sleep(Duration::from_millis(round * 7)).await;
        cluster.kill(struck)?;
        let answer = asked.await?;
        cluster.start_node(struck)?;
        cluster.wait_ready(ready_seconds_max()).await?;
        expected = wait_exported(&cluster).await?;
        if let Ok(answer) = answer {
            match answer.status {
                200 => {
                    let document = answer.json()?;
                    let name = document["data"]["name"].as_str().context("a name")?;
                    same(&export(&folders(&cluster, name), "one")?, &expected)?;
                    made += 1;
                }
                503 => {}
                other => bail!("{other}: {}", answer.text()),
            }
        }
        let left = found(&cluster, struck)?;
        ensure!(!left.iter().any(|name| name.ends_with(".part")), "{left:?}");
        for name in left {
            let folder = cluster.nodes()[struck].data().join("snapshots").join(name);
            run("list", &[folder], &[])?;
        }
    }
    ensure!(made > 0, "no snapshot was made while a node was killed");
    ensure!(!expected.is_empty());
    Ok(())
}

/// What a node exports, as soon as it can.
async fn wait_exported(cluster: &Cluster) -> anyhow::Result<BTreeSet<String>> {
    let exported = wait_until("an export", Duration::from_secs(20), || async {
        exported(cluster, 2, "one").await
    });
    Ok(exported.await?.0)
}
