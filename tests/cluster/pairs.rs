//! Pairs of senders: one of them counts at all nodes, and the other one when it is silent.

use anyhow::{Context, ensure};
use std::time::Duration;
use trefoil_jepsen::{Cluster, Exclusive, ready_seconds_max, wait_until};

const SETTINGS: &str = "limits:\n  accept_ha_samples: true\n  ha_tracker_update_timeout_seconds: 1\n  \
                        ha_tracker_failover_timeout_seconds: 5\n  ha_max_clusters: 1\n";

/// How long another sender may take to be elected: the settings' 5 s and as much again for a slow machine.
const FAILOVER_MAX: Duration = Duration::from_secs(10);

/// How far the clocks of nodes of one machine may be apart.
const CLOCKS_APART_MAX: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread")]
async fn one_sender_of_a_pair_counts_until_it_is_silent() -> anyhow::Result<()> {
    let _alone = Exclusive::take()?;
    let mut cluster = Cluster::start_configured(3, SETTINGS)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    send(&cluster, 0, "a", 1).await?;
    // Both are thanked, whichever node they talk to.
    for node in [1, 2] {
        send(&cluster, node, "b", 2).await?;
        soon_stored(&cluster, node, "1").await?;
    }
    send(&cluster, 2, "a", 3).await?;
    soon_stored(&cluster, 0, "3").await?;
    let elected = wait_until("the other sender is elected", FAILOVER_MAX, || async {
        send(&cluster, 1, "b", 4).await?;
        stored(&cluster, 2, "4").await
    });
    elected.await?;
    send(&cluster, 0, "a", 5).await?;
    stored(&cluster, 0, "4").await?;
    // Of a pair too many the series are refused and named; all others of the request are stored.
    let url = format!("{}/api/v1/import/prometheus", cluster.url(0));
    let text = "other{cluster=\"d\",__replica__=\"a\"} 1\nplain 1\n";
    let answer = cluster.client().post(&url, &[], text.to_owned()).await?;
    let says = answer
        .text()
        .contains("(ha_max_clusters), in series other{");
    ensure!(answer.status == 400 && says, "{}", answer.text());
    let plain = wait_until("the other series is there", CLOCKS_APART_MAX, || async {
        let found = cluster.instant(0, "{__name__=~\"plain|other\"}").await?;
        let series = found.as_array().context("a list")?;
        ensure!(
            series.len() == 1 && series[0]["metric"]["__name__"] == "plain",
            "{found}"
        );
        Ok(())
    });
    plain.await?;
    Ok(())
}

/// A sample of one sender; it must be answered with success.
async fn send(cluster: &Cluster, node: usize, sender: &str, value: u32) -> anyhow::Result<()> {
    let url = format!("{}/api/v1/import/prometheus", cluster.url(node));
    let text = format!("pair{{cluster=\"c\",__replica__=\"{sender}\"}} {value}\n");
    let answer = cluster.client().post(&url, &[], text).await?;
    ensure!(answer.status == 204, "{}: {}", answer.status, answer.text());
    Ok(())
}

/// As [`stored`], at the latest when the clocks of all nodes have passed the time of the sample: the node that takes it
/// gives it its own time.
async fn soon_stored(cluster: &Cluster, node: usize, expected: &str) -> anyhow::Result<()> {
    let stored = wait_until("the sample is there", CLOCKS_APART_MAX, || {
        stored(cluster, node, expected)
    });
    stored.await.map(|_| ())
}

/// The newest value of the one series that there is.
async fn stored(cluster: &Cluster, node: usize, expected: &str) -> anyhow::Result<()> {
    let found = cluster.instant(node, "pair").await?;
    let series = found.as_array().context("a list")?;
    ensure!(
        series.len() == 1 && series[0]["metric"]["__replica__"].is_null(),
        "{found}"
    );
    ensure!(series[0]["value"][1] == expected, "{found}, not {expected}");
    Ok(())
}
