//! `trefoil cluster retention`: shows and changes how long metrics are kept.

use super::{
    Output, Target,
    cluster::{CHANGE_TIMEOUT, fetch, post},
    print, print_json,
    table::Table,
};
use anyhow::bail;
use clap::Args;
use std::process::ExitCode;
use trefoil_api::{Span, TENANT_DEFAULT, admin};

/// What `retention` takes.
#[derive(Args, Debug)]
pub(crate) struct RetentionArgs {
    /// Hours, or a length of time such as 30d; 0 keeps metrics for ever. What is older is removed for good. Without it, show what holds
    #[arg(value_name = "HOURS", value_parser = whole_hours)]
    hours: Option<u64>,
    /// The tenant whose metrics are meant, instead of all tenants that have no time of their own
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// The tenant's series that are meant, as {job="debug"}: they are kept for a shorter time than its others
    #[arg(long, value_name = "SELECTOR", requires = "tenant")]
    selector: Option<String>,
    /// Remove the time of the tenant or of the selector
    #[arg(long, conflicts_with = "hours")]
    unset: bool,
    /// Do it also when metrics are removed by it
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    target: Target,
    /// How to print what holds
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Hours, as a number or as a length of time.
fn whole_hours(text: &str) -> Result<u64, String> {
    const HOUR: i64 = 3_600_000;
    if let Ok(hours) = text.parse() {
        return Ok(hours);
    }
    let span: Option<Span> = serde_json::from_value(text.into()).ok();
    let span = span.filter(|span| span.0 >= HOUR && span.0 % HOUR == 0);
    span.map(|span| (span.0 / HOUR) as u64)
        .ok_or_else(|| "whole hours, as 720 or 30d".to_owned())
}

/// Runs the command; the code that the process ends with.
pub(super) async fn run(args: &RetentionArgs) -> anyhow::Result<ExitCode> {
    let present: admin::Retention = fetch(&args.target, "retention", 10).await?;
    if args.hours.is_none() && !args.unset {
        match args.output {
            Output::Json => print_json(&serde_json::to_value(&present)?)?,
            Output::Table => print(&text(&present))?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    let (before, after) = (kept(args, &present), wanted(args, &present));
    if is_shorter(after, before) && !args.yes {
        bail!(
            "all metrics{} older than {} hours would be removed from all nodes for good; add --yes to do it",
            args.selector
                .as_ref()
                .map_or(String::new(), |selector| format!(" of {selector}")),
            after.unwrap_or_default()
        );
    }
    let wanted = admin::RetentionRequest {
        hours: args.hours,
        tenant: args.tenant.clone(),
        selector: args.selector.clone(),
    };
    let path = match args.tenant {
        None => "retention",
        Some(_) => "retention/tenants",
    };
    post(&args.target, path, &wanted, CHANGE_TIMEOUT).await
}

fn tenant_of<'a>(
    args: &RetentionArgs,
    present: &'a admin::Retention,
) -> Option<&'a admin::TenantRetention> {
    let name = args.tenant.as_deref().unwrap_or(TENANT_DEFAULT);
    present.tenants.iter().find(|tenant| tenant.tenant == name)
}

/// For how long what is meant is kept now: hours, 0 for ever; none: nobody has recorded it.
fn kept(args: &RetentionArgs, present: &admin::Retention) -> Option<u64> {
    if args.tenant.is_none() && args.selector.is_none() {
        return present.hours;
    }
    let tenant = tenant_of(args, present);
    let whole = tenant.and_then(|tenant| tenant.hours).or(present.hours);
    let own = args.selector.as_ref().and_then(|selector| {
        let all = tenant.iter().flat_map(|tenant| &tenant.selectors);
        let mut own = all.filter(|own| own.selector == *selector);
        own.next().map(|own| own.hours)
    });
    own.or(whole)
}

/// For how long it would be kept.
fn wanted(args: &RetentionArgs, present: &admin::Retention) -> Option<u64> {
    match (args.hours, &args.selector) {
        (Some(hours), _) => Some(hours),
        (None, None) => present.hours,
        (None, Some(_)) => {
            let tenant = tenant_of(args, present);
            tenant.and_then(|tenant| tenant.hours).or(present.hours)
        }
    }
}

fn is_shorter(after: Option<u64>, before: Option<u64>) -> bool {
    let bounded = |hours: Option<u64>| hours.filter(|hours| *hours > 0).unwrap_or(u64::MAX);
    bounded(after) < bounded(before)
}

fn text(present: &admin::Retention) -> String {
    let hours = |hours: Option<u64>, unset: &str| match hours {
        None => unset.to_owned(),
        Some(0) => "for ever".to_owned(),
        Some(hours) => format!("{hours} h"),
    };
    let mut table = Table::new(&["TENANT", "SELECTOR", "KEPT"]);
    let whole = hours(present.hours, "(not recorded yet)");
    table.row(["(all)".to_owned(), "-".to_owned(), whole]);
    for tenant in &present.tenants {
        let whole = hours(tenant.hours, "as all");
        table.row([tenant.tenant.clone(), "-".to_owned(), whole]);
        for own in &tenant.selectors {
            let kept = hours(Some(own.hours), "");
            table.row([tenant.tenant.clone(), own.selector.clone(), kept]);
        }
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: RetentionArgs,
    }

    fn asks_for_yes(line: &str) -> bool {
        let present = admin::Retention {
            hours: Some(100),
            tenants: vec![admin::TenantRetention {
                tenant: "a".to_owned(),
                hours: Some(0),
                selectors: vec![admin::SelectorRetention {
                    selector: "{b=\"c\"}".to_owned(),
                    hours: 10,
                }],
            }],
        };
        let line = std::iter::once("retention").chain(line.split(' '));
        let args = Line::parse_from(line).args;
        is_shorter(wanted(&args, &present), kept(&args, &present))
    }

    #[test]
    fn lengths_of_time_are_whole_hours() {
        for (text, hours) in [
            ("0", Some(0)),
            ("720", Some(720)),
            ("30d", Some(720)),
            ("1d2h", Some(26)),
            ("90m", None),
            ("x", None),
        ] {
            assert_eq!(whole_hours(text).ok(), hours, "{text}");
        }
    }

    #[test]
    fn whatever_removes_metrics_asks() {
        for (line, asks) in [
            ("99", true),
            ("100", false),
            ("0", false),
            ("200 --tenant a", true),
            ("200 --tenant b", false),
            ("--unset --tenant a", true),
            ("10 --tenant a --selector {b=\"c\"}", false),
            ("9 --tenant a --selector {b=\"c\"}", true),
            ("--unset --tenant a --selector {b=\"c\"}", false),
            ("50 --tenant b --selector {b=\"c\"}", true),
        ] {
            assert_eq!(asks_for_yes(line), asks, "{line:?}");
        }
    }
}
