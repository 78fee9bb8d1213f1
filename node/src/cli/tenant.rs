//! `trefoil tenant`: what tenants may do.

use super::{Output, Target, cluster, print, print_json, table::Table};
use anyhow::Context;
use clap::{Args, Subcommand};
use std::{process::ExitCode, time::Duration};
use trefoil_api::{LimitValues, TenantName, admin};

/// How long the cluster may take to record a change.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(15);

/// What to do with tenants.
#[derive(Subcommand, Debug)]
pub(crate) enum TenantCommand {
    /// Show the limits of a tenant, or the defaults of all
    Limits(LimitsArgs),
    /// Set limits of a tenant, or the defaults of all, at run time
    SetLimits(SetLimitsArgs),
}

/// What `limits` takes.
#[derive(Args, Debug)]
pub(crate) struct LimitsArgs {
    /// The tenant; without it, the defaults of all
    tenant: Option<String>,
    #[command(flatten)]
    target: Target,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// What `set-limits` takes.
#[derive(Args, Debug)]
pub(crate) struct SetLimitsArgs {
    /// name=value, for example ingestion_rate=10000 or max_query_lookback=30d; name= goes back to the default. Others
    /// stay as they are
    #[arg(required = true, value_name = "NAME=VALUE")]
    limits: Vec<String>,
    /// The tenant; without it, the defaults of all
    #[arg(long)]
    tenant: Option<String>,
    #[command(flatten)]
    target: Target,
}

/// Runs the command; the code that the process ends with.
pub(crate) async fn run(command: TenantCommand) -> anyhow::Result<ExitCode> {
    match command {
        TenantCommand::Limits(args) => limits(&args).await,
        TenantCommand::SetLimits(args) => set_limits(&args).await,
    }
}

async fn fetch(target: &Target, tenant: Option<&str>) -> anyhow::Result<admin::Limits> {
    // An empty one would be none at the server.
    tenant.map(TenantName::new).transpose()?;
    let tenant = tenant.map(crate::http_client::query_encode);
    let tenant = tenant.map_or_else(String::new, |tenant| format!("?tenant={tenant}"));
    cluster::fetch(target, &format!("limits{tenant}"), 10).await
}

async fn limits(args: &LimitsArgs) -> anyhow::Result<ExitCode> {
    let limits = fetch(&args.target, args.tenant.as_deref()).await?;
    match args.output {
        Output::Json => print_json(&serde_json::to_value(&limits)?)?,
        Output::Table => {
            let mut table = Table::new(&["LIMIT", "VALUE", "SET"]);
            for (name, value) in &limits.effective {
                let set = if limits.set.contains_key(name) {
                    "yes"
                } else {
                    ""
                };
                let value = value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned);
                table.row([name.clone(), value, set.to_owned()]);
            }
            print(&table.render())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn set_limits(args: &SetLimitsArgs) -> anyhow::Result<ExitCode> {
    let present = fetch(&args.target, args.tenant.as_deref()).await?.set;
    let mut limits = present.clone();
    let mut seen = std::collections::BTreeSet::new();
    for text in &args.limits {
        let name = change(&mut limits, text)?;
        anyhow::ensure!(seen.insert(name), "{name} is set twice");
    }
    let wanted = admin::LimitsRequest {
        tenant: args.tenant.clone(),
        limits,
        // What somebody else sets meanwhile is not lost: the command fails then, and is run again.
        expected: Some(present),
    };
    cluster::post(&args.target, "limits", &wanted, CHANGE_TIMEOUT).await
}

/// Sets the limit that a text says, and gives its name.
fn change<'t>(limits: &mut LimitValues, text: &'t str) -> anyhow::Result<&'t str> {
    let (name, value) = text
        .split_once('=')
        .with_context(|| format!("{text:?} is not of the form NAME=VALUE"))?;
    if value.is_empty() {
        limits.remove(name);
        return Ok(name);
    }
    let number = value.parse::<u64>().map(serde_json::Value::from).ok();
    let float = || value.parse::<f64>().map(serde_json::Value::from).ok();
    let truth = || value.parse::<bool>().map(serde_json::Value::from).ok();
    let known = number.or_else(float).or_else(truth);
    let value = known.unwrap_or_else(|| value.into());
    limits.insert(name.to_owned(), value);
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_become_values() {
        let mut limits = LimitValues::new();
        for text in ["a=5", "b=1.5", "c=1h", "d=x", "d=", "e=false"] {
            change(&mut limits, text).expect("NAME=VALUE");
        }
        let text = serde_json::Value::Object(limits.clone()).to_string();
        assert_eq!(text, r#"{"a":5,"b":1.5,"c":"1h","e":false}"#);
        assert!(change(&mut limits, "a").is_err());
    }
}
