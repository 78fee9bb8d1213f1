//! A request with more content than one message and one journal record take: cut into pieces, and acknowledged
//! when all of them are held.

use crate::Scenario;
use anyhow::ensure;
use trefoil_api::remote_write::encode;
use trefoil_jepsen::Clock;
use trefoil_model::Labels;

/// Series of the request.
const SERIES: usize = 60_000;
/// Bytes of a label that each of them has: together with the rest 48 MB, far below the 128 MiB that a request may
/// have, and above the 32 MiB that one parcel takes.
const LABEL_BYTES: usize = 800;

#[tokio::test(flavor = "multi_thread")]
async fn a_request_above_the_size_of_a_parcel_is_stored_whole() -> anyhow::Result<()> {
    let run = Scenario::begin().await?;
    let now = Clock::now_millis();
    let filler = "x".repeat(LABEL_BYTES);
    let series: Vec<Labels> = (0..SERIES)
        .map(|number| {
            let text = format!("{number:08}{filler}");
            Labels::from_pairs([("__name__", "trefoil_test_large"), ("text", &text)])
        })
        .collect();
    let samples = [(now, 1.0)];
    let body = encode(series.iter().map(|labels| (labels, samples.as_slice())));
    let (client, url) = (run.cluster.client(), run.cluster.url(0));
    let answer = client.remote_write(&url, body).await?;
    ensure!(answer.is_success(), "{}: {}", answer.status, answer.text());
    for node in 0..3 {
        let count = format!("count(trefoil_test_large @ {})", now / 1000 + 1);
        let found = run.cluster.instant(node, &count).await?;
        let expected = SERIES.to_string();
        ensure!(
            found[0]["value"][1] == expected.as_str(),
            "node {node} has {found}, not {expected}"
        );
    }
    run.finish().await
}
