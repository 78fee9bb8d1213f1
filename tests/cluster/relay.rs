//! Nodes that reach each other only through the harness' relay: the form of the attacks that needs no root.

use crate::EQUAL_WAIT_MAX;
use anyhow::{bail, ensure};
use std::{path::Path, process::Command, time::Duration};
use trefoil_jepsen::{
    Exclusive, FreePort, HttpClient, Process,
    net::{Link, LinkQuality, Network, Proxy, ProxyHost, shapes::all_links},
    ready_seconds_max, trefoil_binary, wait_until,
};

/// How long the others may take to see that a node is cut off, or is back.
const SEEN_WAIT_MAX: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn all_traffic_of_peers_passes_the_relay_and_a_cut_node_is_cut() -> anyhow::Result<()> {
    let _alone = Exclusive::take()?;
    let folder = tempfile::tempdir()?;
    let places: Vec<ProxyHost> = (0..3)
        .map(|_| ProxyHost::find())
        .collect::<Result<_, _>>()?;
    let proxy = Proxy::start(places.clone(), 1)?;
    let mut urls = Vec::new();
    let mut processes = Vec::new();
    for node in 0..3 {
        let http = FreePort::find()?.to_string();
        processes.push(start(folder.path(), node, &http, &places)?);
        urls.push(format!("http://{http}"));
    }
    let client = HttpClient::new(Duration::from_secs(5));
    let ready = Duration::from_secs(ready_seconds_max());
    wait_ready(&client, &urls, ready).await?;
    for link in all_links(&[0, 1, 2]) {
        let counts = proxy.counts(link);
        ensure!(counts.forwarded > 0, "{link:?} has passed nothing");
    }

    for other in [0, 1] {
        proxy.set(Link { from: 2, to: other }, LinkQuality::cut());
        proxy.set(Link { from: other, to: 2 }, LinkQuality::cut());
    }
    wait_state(&client, &urls[0], "node-3", "down").await?;
    wait_state(&client, &urls[2], "node-1", "down").await?;
    // The majority goes on.
    wait_ready(&client, &urls[..2], EQUAL_WAIT_MAX).await?;
    for (from, to) in [(0, 2), (2, 0), (1, 2), (2, 1)] {
        let counts = proxy.counts(Link { from, to });
        ensure!(counts.dropped > 0, "{from} -> {to}: {counts:?}");
    }

    proxy.heal();
    wait_state(&client, &urls[0], "node-3", "alive").await?;
    wait_state(&client, &urls[2], "node-1", "alive").await?;
    wait_ready(&client, &urls, SEEN_WAIT_MAX).await
}

fn start(folder: &Path, node: usize, http: &str, places: &[ProxyHost]) -> anyhow::Result<Process> {
    let name = format!("node-{}", node + 1);
    let seeds: Vec<String> = places.iter().map(|p| p.advertised.to_string()).collect();
    let mut command = Command::new(trefoil_binary()?);
    command
        .arg("serve")
        .arg("--data-dir")
        .arg(folder.join(&name))
        .args(["--node-name", &name, "--http", http])
        .args(["--peer", &places[node].node.to_string()])
        .args(["--advertise", &places[node].advertised.ip().to_string()])
        .args(["--seeds", &seeds.join(","), "--bootstrap-expect", "3"]);
    Process::start(&mut command, &folder.join(format!("{name}.log")), None)
}

async fn wait_ready(
    client: &HttpClient,
    urls: &[String],
    deadline: Duration,
) -> anyhow::Result<()> {
    let ready = async || {
        for url in urls {
            let answer = client.get(&format!("{url}/-/ready")).await?;
            ensure!(answer.is_success(), "{url}: {}", answer.text());
        }
        Ok(())
    };
    wait_until("the nodes are ready", deadline, ready).await?;
    Ok(())
}

/// Waits until a node sees another in a state.
async fn wait_state(client: &HttpClient, url: &str, name: &str, state: &str) -> anyhow::Result<()> {
    let page = format!("{url}/trefoil/api/v1/cluster");
    let seen = async || {
        let cluster = client.get(&page).await?.json()?;
        let nodes = cluster["nodes"].as_array().cloned().unwrap_or_default();
        match nodes.iter().find(|node| node["name"] == name) {
            Some(node) if node["state"] == state => Ok(()),
            other => bail!("{name}: {other:?}"),
        }
    };
    wait_until(&format!("{url} sees {name} {state}"), SEEN_WAIT_MAX, seen).await?;
    Ok(())
}
