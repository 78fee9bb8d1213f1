//! Pairs of senders: one of them counts at all nodes, and the other one when it is silent, without a gap.

use anyhow::{Context, ensure};
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};
use trefoil_jepsen::{Clock, Cluster, Exclusive, HttpClient, ready_seconds_max, wait_until};

const SETTINGS: &str = "limits:\n  accept_ha_samples: true\n  ha_tracker_update_timeout_seconds: 1\n  \
                        ha_tracker_failover_timeout_seconds: 5\n  ha_max_clusters: 1\n";

/// How long another sender may take to be elected: the settings' 5 s and as much again for a slow machine.
const FAILOVER_MAX: Duration = Duration::from_secs(10);

/// The same, with the memory for what is held as it is by default. Requests of clients end within 2 s, so that a change has settled 3 s
/// after it.
const WITHOUT_GAP: &str = "limits:\n  accept_ha_samples: true\n  ha_tracker_update_timeout_seconds: 1\n  \
                           ha_tracker_failover_timeout_seconds: 5\n  ha_held_late_samples: true\n  \
                           write_timeout_seconds: 2\n";

/// Nothing is said but that pairs are told.
const BY_DEFAULT: &str = "limits:\n  accept_ha_samples: true\n";

/// Memory for what is held that is too small for any late request.
const WITHOUT_ROOM: &str = "limits:\n  accept_ha_samples: true\n  ha_tracker_update_timeout_seconds: 1\n  \
                            ha_tracker_failover_timeout_seconds: 5\n  ha_held_bytes_max: 100\n  \
                            ha_held_late_samples: true\n  \
                            write_timeout_seconds: 2\n";

/// How long what was held may take into the store behind an election: it is compared after 10 s at most and stored after 30 s
/// more; the rest is for a slow machine.
const RELEASED_MAX: Duration = Duration::from_secs(100);

/// How long a request may be sent again and again, in milliseconds.
const TAKEN_WITHIN: i64 = 20_000;

/// Between two scrapes of a sender, in milliseconds.
const SCRAPE_INTERVAL: i64 = 500;

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

/// What two senders have sent.
struct Senders {
    urls: Vec<String>,
    client: HttpClient,
    /// When the next scrape is due, by the clock.
    next: i64,
    requests: usize,
    /// The node that took each scrape of the second sender.
    taken: BTreeMap<i64, usize>,
}

impl Senders {
    fn new(cluster: &Cluster) -> Self {
        Self {
            urls: (0..3).map(|node| cluster.url(node)).collect(),
            client: HttpClient::new(Duration::from_secs(2)),
            next: Clock::now_millis(),
            requests: 0,
            taken: BTreeMap::new(),
        }
    }

    /// Waits for the next scrape and sends it, `a` half an interval before `b`, each to the next node in turn. A node that does
    /// not answer is passed over.
    async fn scrape(&mut self, senders: &[&str], metrics: &[&str]) -> anyhow::Result<()> {
        let time = self.wait_for_scrape().await;
        for sender in senders {
            self.send_scrape(sender, time, metrics).await?;
        }
        Ok(())
    }

    /// When the next scrape is.
    async fn wait_for_scrape(&mut self) -> i64 {
        let left = (self.next - Clock::now_millis()).max(0);
        tokio::time::sleep(Duration::from_millis(left as u64)).await;
        let time = self.next.max(Clock::now_millis());
        self.next = time + SCRAPE_INTERVAL;
        time
    }

    async fn send_scrape(
        &mut self,
        sender: &str,
        time: i64,
        metrics: &[&str],
    ) -> anyhow::Result<()> {
        let (time, value) = match sender {
            "a" => (time, 1),
            _ => (time + SCRAPE_INTERVAL / 2, 2),
        };
        let text: String = metrics
            .iter()
            .map(|name| {
                format!("{name}{{cluster=\"c\",__replica__=\"{sender}\"}} {value} {time}\n")
            })
            .collect();
        let node = self.send(&text).await?;
        if sender == "b" {
            self.taken.insert(time, node);
        }
        Ok(())
    }

    /// The node that took a text. While the metadata plane has no leader there may be none.
    async fn send(&mut self, text: &str) -> anyhow::Result<usize> {
        let begun = Clock::now_millis();
        let mut last = String::new();
        while Clock::now_millis() - begun < TAKEN_WITHIN {
            let node = self.requests % self.urls.len();
            self.requests += 1;
            let url = format!("{}/api/v1/import/prometheus", self.urls[node]);
            match self.client.post(&url, &[], text.to_owned()).await {
                Ok(answer) if answer.status == 204 => return Ok(node),
                Ok(answer) => last = answer.text(),
                Err(error) => last = error.to_string(),
            }
        }
        anyhow::bail!("no node took {text}: {last}")
    }
}

/// The samples of the only series of a metric: when, and the number of the sender.
async fn samples(cluster: &Cluster, metric: &str) -> anyhow::Result<Vec<(i64, i64)>> {
    samples_at(cluster, 0, metric).await
}

/// The same as a node says it.
async fn samples_at(
    cluster: &Cluster,
    node: usize,
    metric: &str,
) -> anyhow::Result<Vec<(i64, i64)>> {
    let found = cluster.instant(node, &format!("{metric}[5m]")).await?;
    let series = found.as_array().context("a list")?;
    ensure!(series.len() <= 1, "{found}");
    let Some(series) = series.first() else {
        return Ok(Vec::new());
    };
    let values = series["values"].as_array().context("values")?;
    let read = |pair: &Value| {
        let time = (pair[0].as_f64().context("a time")? * 1000.0).round() as i64;
        let sender = pair[1].as_str().context("a value")?.parse()?;
        anyhow::Ok((time, sender))
    };
    values.iter().map(read).collect()
}

/// Sends both, then `b` alone until it counts; a node dies meanwhile.
async fn fail_over(
    cluster: &mut Cluster,
    senders: &mut Senders,
    metrics: &[&str],
    killed: Option<usize>,
) -> anyhow::Result<()> {
    for _ in 0..12 {
        senders.scrape(&["a", "b"], metrics).await?;
    }
    for scrapes in 0.. {
        if let Some(node) = killed.filter(|_| scrapes == 6) {
            cluster.kill(node)?;
        }
        senders.scrape(&["b"], &metrics[..1]).await?;
        // Elected after 5 s; then it is stored as it comes.
        let newest = samples(cluster, metrics[0]).await?.last().copied();
        if newest.is_some_and(|(_, sender)| sender == 2) && scrapes > 12 {
            return Ok(());
        }
        ensure!(scrapes < 60, "the other sender is not elected");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fail_over_leaves_no_gap() -> anyhow::Result<()> {
    let _alone = Exclusive::take()?;
    let mut cluster = Cluster::start_configured(3, WITHOUT_GAP)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    let mut senders = Senders::new(&cluster);
    let metrics = ["scraped", "deleted"];
    fail_over(&mut cluster, &mut senders, &metrics, None).await?;
    // What is held comes from before the deletion, so it is deleted, too.
    let url = format!("{}/api/v1/admin/tsdb/delete_series", senders.urls[0]);
    let deleted = cluster.client().post_form(&url, &[("match[]", "deleted")]);
    ensure!(deleted.await?.is_success(), "the deletion failed");
    let told = wait_until("what was held is stored", RELEASED_MAX, || async {
        let samples = samples(&cluster, "scraped").await?;
        let last_of_a = samples.iter().rfind(|(_, sender)| *sender == 1);
        let last_of_a = last_of_a.context("samples of the first")?.0;
        let expected = senders.taken.keys().filter(|time| **time > last_of_a);
        let of_b = samples.iter().filter(|(_, sender)| *sender == 2);
        ensure!(of_b.map(|(time, _)| time).eq(expected), "{samples:?}");
        Ok(samples)
    });
    let (samples_of, _) = told.await?;
    let runs = samples_of.chunk_by(|one, next| one.1 == next.1).count();
    ensure!(runs == 2, "{samples_of:?}");
    let mut pairs = samples_of.windows(2);
    let change = pairs.find(|pair| pair[0].1 != pair[1].1);
    let change = change.context("both senders")?;
    ensure!(
        change[1].0 - change[0].0 < SCRAPE_INTERVAL,
        "{samples_of:?}"
    );
    let deleted = samples(&cluster, "deleted").await?;
    ensure!(deleted.is_empty(), "it came back: {deleted:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dies_takes_only_what_it_held() -> anyhow::Result<()> {
    let _alone = Exclusive::take()?;
    let mut cluster = Cluster::start_configured(3, WITHOUT_GAP)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    let mut senders = Senders::new(&cluster);
    let killed = 2;
    fail_over(&mut cluster, &mut senders, &["scraped"], Some(killed)).await?;
    let told = wait_until("what was held is stored", RELEASED_MAX, || async {
        let samples = samples(&cluster, "scraped").await?;
        let last_of_a = samples.iter().rfind(|(_, sender)| *sender == 1);
        let last_of_a = last_of_a.context("samples of the first")?.0;
        let kept = |(time, node): &(&i64, &usize)| **time > last_of_a && **node != killed;
        let expected = senders.taken.iter().filter(kept).map(|(time, _)| time);
        let of_b = samples.iter().filter(|(_, sender)| *sender == 2);
        ensure!(of_b.map(|(time, _)| time).eq(expected), "{samples:?}");
        Ok(samples)
    });
    let (samples, _) = told.await?;
    let lost = senders
        .taken
        .values()
        .filter(|node| **node == killed)
        .count();
    ensure!(lost > 1, "the node held nothing");
    let runs = samples.chunk_by(|one, next| one.1 == next.1).count();
    ensure!(runs == 2, "{samples:?}");
    Ok(())
}

/// What is stored of `scraped` is one run of each sender, without a gap, and all that the second one sent behind the first. All nodes
/// say so.
async fn is_whole(cluster: &Cluster, senders: &Senders) -> anyhow::Result<()> {
    let told = wait_until("what was held is stored", RELEASED_MAX, || async {
        let samples = samples(cluster, "scraped").await?;
        let last_of_a = samples.iter().rfind(|(_, sender)| *sender == 1);
        let last_of_a = last_of_a.context("samples of the first")?.0;
        let expected = senders.taken.keys().filter(|time| **time > last_of_a);
        let of_b = samples.iter().filter(|(_, sender)| *sender == 2);
        ensure!(of_b.map(|(time, _)| time).eq(expected), "{samples:?}");
        Ok(samples)
    });
    let (samples, _) = told.await?;
    let runs = samples.chunk_by(|one, next| one.1 == next.1).count();
    ensure!(runs == 2, "{samples:?}");
    let mut pairs = samples.windows(2);
    let change = pairs.find(|pair| pair[0].1 != pair[1].1);
    let change = change.context("both senders")?;
    ensure!(change[1].0 - change[0].0 <= SCRAPE_INTERVAL, "{samples:?}");
    for node in 1..3 {
        let others = samples_at(cluster, node, "scraped").await?;
        ensure!(others == samples, "{others:?}, not {samples:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_stands_still_leaves_no_gap_by_default() -> anyhow::Result<()> {
    let _alone = Exclusive::take()?;
    let mut cluster = Cluster::start_configured(3, BY_DEFAULT)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    let mut senders = Senders::new(&cluster);
    let metrics = ["scraped"];
    for _ in 0..12 {
        senders.scrape(&["a", "b"], &metrics).await?;
    }
    let mut missed = Vec::new();
    for scrapes in 0.. {
        let time = senders.wait_for_scrape().await;
        senders.send_scrape("b", time, &metrics).await?;
        missed.push(time);
        // Elected after 30 s; then it is stored as it comes.
        let newest = samples(&cluster, metrics[0]).await?.last().copied();
        if newest.is_some_and(|(_, sender)| sender == 2) {
            break;
        }
        ensure!(scrapes < 100, "the other sender is not elected");
    }
    // The first one goes on where it stood still.
    for time in missed.into_iter().take(4) {
        senders.send_scrape("a", time, &metrics).await?;
    }
    for _ in 0..8 {
        senders.scrape(&["a", "b"], &metrics).await?;
    }
    is_whole(&cluster, &senders).await
}

/// Both send, the second one is cut off, then the first one dies, and nobody is heard for longer than the time-out. Then the second one
/// sends what it could not, and goes on.
async fn take_over_with_a_backlog(senders: &mut Senders) -> anyhow::Result<()> {
    let metrics = ["scraped"];
    for _ in 0..8 {
        senders.scrape(&["a", "b"], &metrics).await?;
    }
    let mut backlog = Vec::new();
    for scrapes in 0..30 {
        let time = senders.wait_for_scrape().await;
        if scrapes < 6 {
            senders.send_scrape("a", time, &metrics).await?;
        }
        backlog.push(time);
    }
    for time in backlog {
        senders.send_scrape("b", time, &metrics).await?;
    }
    for _ in 0..4 {
        senders.scrape(&["b"], &metrics).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_takes_over_with_a_backlog_is_not_mixed_in() -> anyhow::Result<()> {
    let _alone = Exclusive::take()?;
    let mut cluster = Cluster::start_configured(3, WITHOUT_GAP)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    let mut senders = Senders::new(&cluster);
    take_over_with_a_backlog(&mut senders).await?;
    is_whole(&cluster, &senders).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_there_is_no_room_for_of_a_sender_that_counts_is_stored_as_it_comes()
-> anyhow::Result<()> {
    let _alone = Exclusive::take()?;
    let mut cluster = Cluster::start_configured(3, WITHOUT_ROOM)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    let mut senders = Senders::new(&cluster);
    // What was sent before the change is not held for want of room, and all that comes behind it is taken at once.
    take_over_with_a_backlog(&mut senders).await?;
    let stored = wait_until("its last sample is there", CLOCKS_APART_MAX, || async {
        let samples = samples(&cluster, "scraped").await?;
        let of_b = samples.iter().filter(|one| one.1 == 2);
        let sent = senders.taken.keys().skip(8);
        ensure!(of_b.map(|(time, _)| time).eq(sent), "{samples:?}");
        Ok(())
    });
    stored.await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_stop_keeps_what_a_sender_that_counts_sent_late() -> anyhow::Result<()> {
    let _alone = Exclusive::take()?;
    let mut cluster = Cluster::start_configured(3, WITHOUT_GAP)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    let mut senders = Senders::new(&cluster);
    take_over_with_a_backlog(&mut senders).await?;
    for node in 0..3 {
        cluster.stop(node)?;
        cluster.start_node(node)?;
        cluster.wait_ready(ready_seconds_max()).await?;
    }
    let stored = wait_until("what was held is stored", RELEASED_MAX, || async {
        let samples = samples(&cluster, "scraped").await?;
        let last_of_a = samples.iter().rfind(|(_, sender)| *sender == 1);
        let last_of_a = last_of_a.context("samples of the first")?.0;
        let sent = senders.taken.keys().filter(|time| **time > last_of_a);
        let of_b = samples.iter().filter(|one| one.1 == 2 && one.0 > last_of_a);
        ensure!(of_b.map(|(time, _)| time).eq(sent), "{samples:?}");
        Ok(())
    });
    stored.await.map(|_| ())
}
