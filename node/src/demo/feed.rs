//! What the demo writes: an hour of the shop's history, then the shop and the nodes' own metrics live.

use super::{children::Node, shop};
use crate::http_client::HttpClient;
use anyhow::{Context, bail};
use bytes::Bytes;
use std::time::{SystemTime, UNIX_EPOCH};
use trefoil_api::{exposition, remote_write};
use trefoil_model::{Labels, LabelsBuilder, Millis};

/// Length of the history that is written first.
const HISTORY_MILLIS: Millis = 60 * 60 * 1000;
/// Distance of samples in the history.
const STEP_MILLIS: Millis = 15_000;
/// Steps of the history in one request.
const STEPS_PER_REQUEST: i64 = 20;

/// A sample on its way into the cluster.
type Item = (Labels, Millis, f64);

/// Writes an hour of the shop; returns how many samples it had.
pub(super) async fn history(client: &HttpClient, nodes: &[Node]) -> anyhow::Result<usize> {
    let end = now()? / STEP_MILLIS * STEP_MILLIS;
    let mut count = 0;
    let mut at = end - HISTORY_MILLIS;
    while at < end {
        let mut items = Vec::new();
        for step in 0..STEPS_PER_REQUEST {
            let time = at + step * STEP_MILLIS;
            if time < end {
                items.extend(shop_items(time));
            }
        }
        count += items.len();
        write(client, nodes, &items).await?;
        at += STEPS_PER_REQUEST * STEP_MILLIS;
    }
    Ok(count)
}

/// Writes the shop as it is now and what the running nodes say of themselves.
pub(super) async fn live(client: &HttpClient, nodes: &mut [Node]) -> anyhow::Result<()> {
    let at = now()?;
    let mut items = shop_items(at);
    for node in nodes.iter_mut() {
        let scraped = scrape(client, node, at).await;
        let up = if scraped.is_ok() { 1.0 } else { 0.0 };
        items.push((
            Labels::from_pairs([
                ("__name__", "up"),
                ("job", "trefoil"),
                ("instance", &node.name),
            ]),
            at,
            up,
        ));
        items.extend(scraped.unwrap_or_default());
    }
    write(client, nodes, &items).await
}

fn shop_items(at: Millis) -> Vec<Item> {
    shop::samples_at(at)
        .into_iter()
        .map(|sample| (sample.labels, at, sample.value))
        .collect()
}

async fn scrape(client: &HttpClient, node: &Node, at: Millis) -> anyhow::Result<Vec<Item>> {
    let answer = client.get(&format!("http://{}/metrics", node.http)).await?;
    let text = std::str::from_utf8(&answer.body).context("read /metrics as text")?;
    let mut items = Vec::new();
    for sample in exposition::parse(text)? {
        let mut labels = LabelsBuilder::from_labels(&sample.labels);
        labels.set("job", "trefoil").set("instance", &node.name);
        items.push((labels.build(), sample.timestamp.unwrap_or(at), sample.value));
    }
    Ok(items)
}

/// Writes to the first node that takes it.
async fn write(client: &HttpClient, nodes: &[Node], items: &[Item]) -> anyhow::Result<()> {
    let series = items
        .iter()
        .map(|(labels, at, value)| (labels, std::slice::from_ref(&(*at, *value)).to_vec()));
    let series: Vec<_> = series.collect();
    let body = Bytes::from(remote_write::encode(
        series
            .iter()
            .map(|(labels, samples)| (*labels, samples.as_slice())),
    ));
    let headers = [
        ("content-type", "application/x-protobuf"),
        ("content-encoding", "snappy"),
        ("x-prometheus-remote-write-version", "0.1.0"),
    ];
    let mut refusal = None;
    for node in nodes {
        let url = format!("http://{}/api/v1/write", node.http);
        match client.post(&url, &headers, body.clone()).await {
            Ok(answer) if answer.status.is_success() => return Ok(()),
            Ok(answer) => refusal = Some(anyhow::anyhow!("{}: {}", answer.status, answer.text())),
            Err(error) => refusal = Some(error),
        }
    }
    match refusal {
        Some(error) => Err(error).context("write to the cluster"),
        None => bail!("there is no node to write to"),
    }
}

fn now() -> anyhow::Result<Millis> {
    Ok(SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("read the clock")?
        .as_millis() as Millis)
}
