//! Two of three nodes are gone: no answer can be promised to be complete, so there is an error, or, for those who
//! ask for it, what there is with a warning.

use crate::{check_end, ready_seconds_max};
use anyhow::{Context, ensure};
use serde_json::Value;
use std::time::Duration;
use trefoil_api::remote_write::encode;
use trefoil_jepsen::{Clock, Cluster, Exclusive, wait_until};
use trefoil_model::Labels;

/// Addresses of the query API, each with what its answer must hold.
const QUESTIONS: [(&str, &str); 5] = [
    ("query?query=count(trefoil_test_partial)", "\"20\""),
    (
        "query_range?query=count(trefoil_test_partial)&step=1s",
        "\"20\"",
    ),
    ("series?match[]=trefoil_test_partial", "\"id\":\"19\""),
    ("labels?match[]=trefoil_test_partial", "\"id\""),
    ("label/id/values?match[]=trefoil_test_partial", "\"19\""),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_partial_answer_is_asked_for_and_says_so() -> anyhow::Result<()> {
    let _alone = Exclusive::take()?;
    let mut cluster = Cluster::start(3)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    let now = Clock::now_millis();
    let series = |id: usize| {
        Labels::from_pairs([
            ("__name__", "trefoil_test_partial"),
            ("id", &id.to_string()),
        ])
    };
    let series: Vec<Labels> = (0..20).map(series).collect();
    let samples = [(now, 1.0)];
    let body = encode(series.iter().map(|labels| (labels, samples.as_slice())));
    let written = cluster.client().remote_write(&cluster.url(0), body).await?;
    ensure!(written.is_success(), "{}", written.text());
    for question in QUESTIONS {
        let answer = ask(&cluster, question.0, now, "&partial_response=true").await?;
        check(&answer, question)?;
        ensure!(answer["warnings"].is_null(), "a complete answer: {answer}");
    }

    cluster.kill(1)?;
    cluster.kill(2)?;
    for question in QUESTIONS {
        for refuses in ["", "&partial_response=false"] {
            let answer = ask(&cluster, question.0, now, refuses).await?;
            ensure!(answer["status"] == "error", "{}: {answer}", question.0);
            ensure!(
                answer["errorType"] == "unavailable",
                "{}: {answer}",
                question.0
            );
        }
        let answer = ask(&cluster, question.0, now, "&partial_response=true").await?;
        check(&answer, question)?;
        let warnings = answer["warnings"]
            .as_array()
            .context("a partial answer warns")?;
        let text = warnings.first().and_then(Value::as_str).unwrap_or("");
        ensure!(
            text.starts_with("256 of 256 shards") && text.contains("(shards 0-255)"),
            "{}: {answer}",
            question.0
        );
    }

    cluster.start_node(1)?;
    let complete = wait_until("answers are complete", Duration::from_secs(30), || async {
        let answer = ask(&cluster, QUESTIONS[0].0, now, "&partial_response=true").await?;
        ensure!(answer["warnings"].is_null(), "{answer}");
        check(&answer, QUESTIONS[0])
    });
    complete.await?;
    cluster.start_node(2)?;
    cluster.wait_ready(ready_seconds_max()).await?;
    check_end(&cluster, &[]).await
}

/// What node 1 says to a question about the minute around a time, with further parameters.
async fn ask(cluster: &Cluster, question: &str, at: i64, more: &str) -> anyhow::Result<Value> {
    let (start, end) = (at / 1000 - 1, at / 1000 + 1);
    let times = format!("&time={end}&start={start}&end={end}&timeout=20s");
    let url = format!("{}/api/v1/{question}{times}{more}", cluster.url(0));
    // An error is an answer here, too.
    let answer = cluster.client().get(&url).await?;
    Ok(serde_json::from_slice(&answer.body)?)
}

fn check(answer: &Value, (question, holds): (&str, &str)) -> anyhow::Result<()> {
    ensure!(answer["status"] == "success", "{question}: {answer}");
    let data = answer["data"].to_string();
    ensure!(data.contains(holds), "{question}: {data} without {holds}");
    Ok(())
}
