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
    for warning in document["warnings"].as_array().into_iter().flatten() {
        eprintln!("warning: {}", warning.as_str().unwrap_or_default());
    }
    match args.output {
        Output::Json => print_json(&document["data"]),
        Output::Table => print(&render(&document["data"])),
    }
}

fn render(data: &Value) -> String {
    let mut table = Table::new(&["SERIES", "TIME", "VALUE"]);
    let mut sample = |series: &str, pair: &Value| {
        let value = pair[1].as_str().unwrap_or_default().to_owned();
        table.row([series.to_owned(), pair[0].to_string(), value]);
    };
    match data["resultType"].as_str() {
        Some("scalar" | "string") => sample("", &data["result"]),
        _ => {
            for series in data["result"].as_array().into_iter().flatten() {
                let name = metric_text(&series["metric"]);
                if series["value"].is_array() {
                    sample(&name, &series["value"]);
                }
                for pair in series["values"].as_array().into_iter().flatten() {
                    sample(&name, pair);
                }
            }
        }
    }
    table.render()
}

fn metric_text(metric: &Value) -> String {
    let empty = serde_json::Map::new();
    let labels = metric.as_object().unwrap_or(&empty);
    let name = labels
        .get("__name__")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let others: Vec<String> = labels
        .iter()
        .filter(|(label, _)| *label != "__name__")
        .map(|(label, value)| format!("{label}={value}"))
        .collect();
    if others.is_empty() && !name.is_empty() {
        return name.to_owned();
    }
    format!("{name}{{{}}}", others.join(", "))
}
