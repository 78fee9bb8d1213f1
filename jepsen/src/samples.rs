//! Raw samples of one writer, as a node answers them.

use crate::{HttpClient, ledger::METRIC};
use anyhow::{Context, ensure};
use serde::Deserialize;
use trefoil_model::Millis;

/// What a node has of a writer.
pub(crate) struct Answer {
    /// The number of a series and its samples, in the order of time.
    pub(crate) series: Vec<(usize, Vec<(Millis, f64)>)>,
    /// What the node says is missing.
    pub(crate) warnings: Vec<String>,
}

#[derive(Deserialize)]
struct Page<'a> {
    status: &'a str,
    #[serde(default)]
    warnings: Vec<String>,
    #[serde(borrow)]
    data: Matrix<'a>,
}

#[derive(Deserialize)]
struct Matrix<'a> {
    #[serde(borrow)]
    result: Vec<RawSeries<'a>>,
}

#[derive(Deserialize)]
struct RawSeries<'a> {
    #[serde(borrow)]
    metric: Metric<'a>,
    #[serde(borrow)]
    values: Vec<(f64, &'a str)>,
}

#[derive(Deserialize)]
struct Metric<'a> {
    series: &'a str,
}

/// Asks a node for all samples of a writer after `from` and up to `to`; `partial`: also for an answer that says that it
/// is incomplete.
///
/// # Errors
/// When there is no answer, it is not a success, or cannot be read.
pub(crate) async fn read_samples(
    client: &HttpClient,
    url: &str,
    writer: &str,
    (from, to): (Millis, Millis),
    partial: bool,
) -> anyhow::Result<Answer> {
    let range = to - from;
    let query = format!("{METRIC}{{writer=\"{writer}\"}}[{range}ms]");
    let time = format!("{:.3}", to as f64 / 1000.0);
    let mut parameters = vec![("query", query.as_str()), ("time", time.as_str())];
    if partial {
        parameters.push(("partial_response", "true"));
    }
    let url = format!("{url}/api/v1/query");
    let answer = client.post_form(&url, &parameters).await?;
    ensure!(answer.is_success(), "{}: {}", answer.status, answer.text());
    let page: Page<'_> = serde_json::from_slice(&answer.body).context("read raw samples")?;
    ensure!(page.status == "success", "{}", answer.text());
    let series = page.data.result.iter().map(|series| {
        let number = series
            .metric
            .series
            .parse()
            .context("the number of a series")?;
        Ok((number, samples(&series.values)?))
    });
    Ok(Answer {
        series: series.collect::<anyhow::Result<_>>()?,
        warnings: page.warnings,
    })
}

fn samples(values: &[(f64, &str)]) -> anyhow::Result<Vec<(Millis, f64)>> {
    let samples = values.iter().map(|(seconds, value)| {
        let timestamp = (seconds * 1000.0).round() as Millis;
        Ok((timestamp, value.parse()?))
    });
    samples.collect()
}
