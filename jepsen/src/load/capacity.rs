//! What a cluster takes as fast as it can: a short burst through the writers' own requests, encoded
//! ahead, into a tenant that no check looks at.

use super::{ANSWER_WAIT_MAX, LoadPlan};
use crate::{Clock, HttpClient, Ledger};
use anyhow::{Context, ensure};
use bytes::Bytes;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Where the burst goes.
const TENANT: &str = "capacity";
/// Requests of each writer that are encoded ahead; the first one makes the series and is not counted.
const REQUESTS: usize = 150;
/// How long the burst lasts when the requests last.
const BURST: Duration = Duration::from_secs(3);

/// Acknowledged samples per second when the writers of a plan send to the nodes without any pause.
///
/// # Errors
/// When a node refuses a request: nothing is wrong with these nodes yet.
pub async fn measure_capacity(nodes: &[(usize, String)], plan: &LoadPlan) -> anyhow::Result<f64> {
    let mut writers = Vec::new();
    for (node, url) in nodes {
        for writer in 0..plan.writers_per_node {
            let ledger = Ledger::new(&format!("burst-{}-{writer}", node + 1), plan.series);
            let bodies = (0..REQUESTS).map(|_| ledger.begin(Clock::now_millis()).body);
            let bodies: Vec<Bytes> = bodies.collect();
            let client = HttpClient::new(ANSWER_WAIT_MAX).with_tenant(TENANT);
            write(&client, url, bodies[0].clone()).await?;
            writers.push((client, url.clone(), bodies));
        }
    }
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for (client, url, bodies) in writers {
        tasks.spawn(async move {
            let mut acknowledged = 0;
            for body in bodies.into_iter().skip(1) {
                if begun.elapsed() < BURST {
                    write(&client, &url, body).await?;
                    acknowledged += 1;
                }
            }
            anyhow::Ok((acknowledged, begun.elapsed()))
        });
    }
    let (mut requests, mut took) = (0, Duration::ZERO);
    while let Some(task) = tasks.join_next().await {
        let (acknowledged, ended) = task.context("a writer of the burst")??;
        requests += acknowledged;
        took = took.max(ended);
    }
    Ok((requests * plan.series) as f64 / took.as_secs_f64())
}

async fn write(client: &HttpClient, url: &str, body: Bytes) -> anyhow::Result<()> {
    let answer = client.remote_write(url, body).await?;
    ensure!(answer.is_success(), "{}: {}", answer.status, answer.text());
    Ok(())
}
