//! `trefoil query`: questions to any server that speaks the signal's usual HTTP interface.

use super::{Output, Target, print, print_json, table::Table};
use crate::http_client::{HttpClient, query_encode};
use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde_json::Value;
use std::time::Duration;

/// Which signal to ask.
#[derive(Subcommand, Debug)]
pub(crate) enum QueryCommand {
    /// Evaluate a PromQL expression
    Metrics(MetricsArgs),
}

/// What `trefoil query metrics` takes.
#[derive(Args, Debug)]
pub(crate) struct MetricsArgs {
    /// The expression, for example 'sum by (job) (rate(http_requests_total[5m]))'
    expression: String,
    /// Evaluate at this time (Unix seconds or RFC 3339) [default: now]
    #[arg(long, conflicts_with_all = ["start", "end", "step"])]
    time: Option<String>,
    /// First time of a range query
    #[arg(long, requires = "end")]
    start: Option<String>,
    /// Last time of a range query
    #[arg(long, requires = "start")]
    end: Option<String>,
    /// Step of a range query, for example 15s
    #[arg(long, requires = "start", default_value = "15s")]
    step: String,
    /// The tenant to ask as [default: anonymous]
    #[arg(long)]
    tenant: Option<String>,
    #[command(flatten)]
    target: Target,
    /// How to print the result
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Asks and prints.
pub(crate) async fn run(command: QueryCommand) -> anyhow::Result<()> {
    let QueryCommand::Metrics(args) = command;
    let (page, times) = match (&args.start, &args.end) {
        (Some(start), Some(end)) => {
            let times = [("start", start), ("end", end), ("step", &args.step)];
            ("query_range", times.to_vec())
        }
        _ => (
            "query",
            args.time.iter().map(|time| ("time", time)).collect(),
        ),
    };
    let mut url = args.target.path(&format!("/api/v1/{page}?query="));
    url.push_str(&query_encode(&args.expression));
    for (name, value) in times {
        url.push_str(&format!("&{name}={}", query_encode(value)));
    }
    let headers: Vec<(&str, &str)> = args
        .tenant
        .iter()
        .map(|tenant| ("x-scope-orgid", tenant.as_str()))
        .collect();
    let client = HttpClient::new(Duration::from_secs(150));
    let answer = client.get_with(&url, &headers).await?;
    let document: Value = serde_json::from_slice(&answer.body)
        .with_context(|| format!("{}: {}", answer.status, answer.text()))?;
    if document["status"] != "success" {
        let kind = document["errorType"].as_str().unwrap_or("error");
        bail!(
            "{kind}: {}",
            document["error"].as_str().unwrap_or("no message")
        );
    }
    for (kind, list) in [("warning", "warnings"), ("info", "infos")] {
        for remark in document[list].as_array().into_iter().flatten() {
            eprintln!("{kind}: {}", remark.as_str().unwrap_or_default());
        }
    }
    match args.output {
        Output::Json => print_json(&document["data"]),
        Output::Table => print(&render(&document["data"])),
    }
}

fn render(data: &Value) -> String {
    let mut table = Table::new(&["SERIES", "TIME", "VALUE"]);
    let mut sample = |series: &str, pair: &Value| {
        let value = value_text(&pair[1]);
        table.row([series.to_owned(), pair[0].to_string(), value]);
    };
    match data["resultType"].as_str() {
        Some("scalar" | "string") => sample("", &data["result"]),
        _ => {
            for series in data["result"].as_array().into_iter().flatten() {
                let name = metric_text(&series["metric"]);
                for one in ["value", "histogram"] {
                    if series[one].is_array() {
                        sample(&name, &series[one]);
                    }
                }
                let pairs = |list: &str| series[list].as_array().into_iter().flatten();
                let mut pairs: Vec<&Value> = pairs("values").chain(pairs("histograms")).collect();
                let time = |pair: &Value| pair[0].as_f64().unwrap_or_default();
                pairs.sort_by(|a, b| time(a).total_cmp(&time(b)));
                for pair in pairs {
                    sample(&name, pair);
                }
            }
        }
    }
    table.render()
}

/// A number as it is; a histogram with its filled buckets, as Prometheus' page shows it.
fn value_text(value: &Value) -> String {
    let Some(histogram) = value.as_object() else {
        return value.as_str().unwrap_or_default().to_owned();
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let field = |name: &str| histogram.get(name).map(text).unwrap_or_default();
    let mut parts = vec![
        format!("count:{}", field("count")),
        format!("sum:{}", field("sum")),
    ];
    let buckets = histogram.get("buckets").and_then(Value::as_array);
    for bucket in buckets.into_iter().flatten() {
        // Which ends belong to the bucket: none but the upper one, the lower one, none, both.
        let (open, close) = match bucket[0].as_u64() {
            Some(0) => ('(', ']'),
            Some(1) => ('[', ')'),
            Some(2) => ('(', ')'),
            _ => ('[', ']'),
        };
        let (lower, upper, count) = (text(&bucket[1]), text(&bucket[2]), text(&bucket[3]));
        parts.push(format!("{open}{lower},{upper}{close}:{count}"));
    }
    format!("{{{}}}", parts.join(", "))
}

/// A selector of the series, so that it can be asked for.
fn metric_text(metric: &Value) -> String {
    let is_plain = |name: &str, also: &[char]| {
        !name.starts_with(|first: char| first.is_ascii_digit())
            && !name.is_empty()
            && name
                .chars()
                .all(|one| one.is_ascii_alphanumeric() || one == '_' || also.contains(&one))
    };
    let empty = serde_json::Map::new();
    let labels = metric.as_object().unwrap_or(&empty);
    let mut name = String::new();
    let mut others = Vec::new();
    for (label, value) in labels {
        match (label.as_str(), value.as_str().unwrap_or_default()) {
            ("__name__", metric) if is_plain(metric, &[':']) => metric.clone_into(&mut name),
            ("__name__", metric) => others.insert(0, format!("{metric:?}")),
            (label, value) if is_plain(label, &[]) => others.push(format!("{label}={value:?}")),
            (label, value) => others.push(format!("{label:?}={value:?}")),
        }
    }
    if others.is_empty() && !name.is_empty() {
        return name;
    }
    format!("{name}{{{}}}", others.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn histograms_and_odd_names_are_shown() {
        let histogram = json!({"count": "3", "sum": "2.5", "buckets": [[0, "0.5", "1", "2"], [3, "-1", "1", "1"]]});
        let data = json!({"resultType": "matrix", "result": [
            {"metric": {"__name__": "m"}, "values": [[1, "2"], [3, "4"]], "histograms": [[2, histogram]]},
            {"metric": {"__name__": "a.b", "c.d": "x", "e": "y\"z"}, "values": [[1, "2"]]},
        ]});
        let shown = render(&data);
        let rows: Vec<Vec<&str>> = shown
            .lines()
            .map(|line| {
                line.split("  ")
                    .map(str::trim)
                    .filter(|cell| !cell.is_empty())
                    .collect()
            })
            .collect();
        assert_eq!(rows[1], ["m", "1", "2"]);
        assert_eq!(
            rows[2],
            ["m", "2", "{count:3, sum:2.5, (0.5,1]:2, [-1,1]:1}"]
        );
        assert_eq!(rows[3], ["m", "3", "4"]);
        assert_eq!(rows[4][0], r#"{"a.b", "c.d"="x", e="y\"z"}"#);
    }
}
