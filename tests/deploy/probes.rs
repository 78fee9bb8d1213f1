//! The probes of the manifests at a real node: what each of them says before there is a cluster, when the node
//! serves, and when it is about to stop.

use crate::{documents, manifests_text};
use anyhow::{Context, ensure};
use serde_json::Value;
use std::{
    process::Command,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use trefoil_jepsen::{
    Cluster, Exclusive, FreePort, HttpClient, Process, ready_seconds_max, trefoil_binary,
    wait_until,
};

/// How long a node may take to do what takes a moment.
const MOMENT: Duration = Duration::from_secs(20);

/// Paths of the liveness and the readiness probe, and the command of the hook before a stop.
fn of_manifests() -> anyhow::Result<(String, String, Vec<String>)> {
    let objects = documents(&manifests_text(&[])?)?;
    let set = objects
        .iter()
        .find(|o| o["kind"] == "StatefulSet")
        .context("the StatefulSet")?;
    let container = &set["spec"]["template"]["spec"]["containers"][0];
    let path = |probe: &str| {
        let path = container[probe]["httpGet"]["path"].as_str();
        path.map(str::to_owned).context("a path")
    };
    ensure!(
        path("startupProbe")? == path("livenessProbe")?,
        "the startup probe asks something else"
    );
    let hook = container["lifecycle"]["preStop"]["exec"]["command"]
        .as_array()
        .context("a hook")?;
    let hook = hook
        .iter()
        .skip(1)
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    Ok((path("livenessProbe")?, path("readinessProbe")?, hook))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_cluster_lives_says_what_it_waits_for_and_stops() -> anyhow::Result<()> {
    let (live, ready, _) = of_manifests()?;
    let folder = tempfile::tempdir()?;
    let (http, peer, nobody) = (FreePort::find()?, FreePort::find()?, FreePort::find()?);
    let mut command = Command::new(trefoil_binary()?);
    command
        .args(["serve", "--node-name", "alone", "--bootstrap-expect", "2"])
        .args(["--http", &http.to_string(), "--peer", &peer.to_string()])
        .args(["--seeds", &format!("{peer},{nobody}")])
        .arg("--data-dir")
        .arg(folder.path().join("data"));
    let mut process = Process::start(&mut command, &folder.path().join("log"), None)?;
    let client = HttpClient::new(Duration::from_secs(5));
    let ask = async |path: &str| client.get(&format!("http://{http}{path}")).await;
    let said = wait_until("it says what it waits for", MOMENT, || async {
        let (alive, answer) = (ask(&live).await?, ask(&ready).await?);
        let why = String::from_utf8_lossy(&answer.body).into_owned();
        ensure!(
            alive.status == 200 && answer.status == 503,
            "{}, {}",
            alive.status,
            answer.status
        );
        ensure!(why.contains("1 of 2 nodes are there"), "{why}");
        Ok(())
    });
    said.await?;
    // Whoever asks for something else is told to ask another node.
    let refused = ask("/api/v1/query?query=1").await?;
    ensure!(refused.status == 503, "{}", refused.status);
    let status = process.stop()?;
    ensure!(status.success(), "{status}");
    Ok(())
}

/// The nodes that are not ready; all of them live.
async fn unready_of(
    cluster: &Cluster,
    client: &HttpClient,
    live: &str,
    ready: &str,
) -> anyhow::Result<Vec<usize>> {
    let mut unready = Vec::new();
    for node in 0..cluster.nodes().len() {
        let url = cluster.url(node);
        let status = client.get(&format!("{url}{live}")).await?.status;
        ensure!(status == 200, "{node} is dead");
        if client.get(&format!("{url}{ready}")).await?.status != 200 {
            unready.push(node);
        }
    }
    Ok(unready)
}

/// Three nodes are told to make ready at the same time, as when several StatefulSets or people are at work. One
/// may go at once; each other one waits until those before it are back, and takes requests meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_are_to_stop_together_go_one_after_the_other() -> anyhow::Result<()> {
    let (live, ready, hook) = of_manifests()?;
    let _alone = Exclusive::take()?;
    let mut cluster = Cluster::start(3)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    let client = HttpClient::new(Duration::from_secs(5));
    let folder = tempfile::tempdir()?;
    let mut hooks = Vec::new();
    for node in 0..3 {
        let mut command = Command::new(trefoil_binary()?);
        command.args(&hook).env("TREFOIL_URL", cluster.url(node));
        let log = folder.path().join(format!("hook-{node}"));
        hooks.push(Process::start(&mut command, &log, None)?);
    }
    let aside = wait_until("one steps aside", MOMENT, || async {
        let unready = unready_of(&cluster, &client, &live, &ready).await?;
        ensure!(unready.len() == 1, "{unready:?} are not ready");
        Ok(())
    });
    aside.await?;

    let hooks = Mutex::new(hooks);
    let ended = || -> Vec<usize> {
        let mut hooks = hooks.lock().unwrap_or_else(PoisonError::into_inner);
        let hooks = hooks.iter_mut().enumerate();
        hooks
            .filter_map(|(node, hook)| hook.check_running().is_err().then_some(node))
            .collect()
    };
    let mut restarted: Vec<usize> = Vec::new();
    while restarted.len() < 3 {
        let most = Mutex::new(0);
        let next = wait_until("one more may go", MOMENT, || async {
            let unready = unready_of(&cluster, &client, &live, &ready).await?.len();
            let mut most = most.lock().unwrap_or_else(PoisonError::into_inner);
            *most = unready.max(*most);
            ensure!(ended().len() > restarted.len(), "only {:?} may", ended());
            Ok(())
        });
        next.await?;
        let most = most.into_inner().unwrap_or_else(PoisonError::into_inner);
        ensure!(most <= 1, "{most} nodes were not ready at once");
        let gone = ended();
        ensure!(
            gone.len() == restarted.len() + 1,
            "{gone:?} after {restarted:?}"
        );
        let node = gone
            .into_iter()
            .find(|node| !restarted.contains(node))
            .context("a node")?;
        cluster.stop(node)?;
        ensure!(
            ended().len() == restarted.len() + 1,
            "another goes while {node} is away"
        );
        cluster.start_node(node)?;
        restarted.push(node);
        let back = wait_until("it is back", MOMENT, || async {
            let answer = client.get(&format!("{}{ready}", cluster.url(node))).await?;
            ensure!(answer.status == 200, "{}", answer.text());
            Ok(())
        });
        back.await?;
    }
    eprintln!("they went in the order {restarted:?}");
    Ok(())
}
