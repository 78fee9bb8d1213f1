//! `trefoil cluster retention`: shows and changes how long metrics are kept.

use super::{
    Output, Target,
    cluster::{CHANGE_TIMEOUT, fetch, post},
    print, print_json,
    table::Table,
};
use crate::cluster::{check_selector, is_same_selector};
use anyhow::bail;
use clap::Args;
use std::process::ExitCode;
use trefoil_api::{Span, TENANT_DEFAULT, TenantName, admin};

/// What `retention` takes.
#[derive(Args, Debug)]
pub(crate) struct RetentionArgs {
    /// Hours, or a length of time such as 30d; 0 keeps metrics for ever. What is older is removed for good. Without it, show what holds
    #[arg(value_name = "HOURS", value_parser = whole_hours)]
    hours: Option<u64>,
    /// The tenant whose metrics are meant, instead of all tenants that have no time of their own; with nothing to change, the one that is shown
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// The tenant's series that are meant, as {job="debug"}: they are kept for a shorter time than its others
    #[arg(long, value_name = "SELECTOR", requires = "tenant")]
    selector: Option<String>,
    /// Remove the time of the tenant or of the selector
    #[arg(long, conflicts_with = "hours", requires = "tenant")]
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
    args.tenant.as_deref().map(TenantName::new).transpose()?;
    if let (Some(selector), Some(_)) = (&args.selector, args.hours) {
        // Before anybody is asked to confirm what cannot be done.
        check_selector(selector)?;
    }
    let present: admin::Retention = fetch(&args.target, "retention", 10).await?;
    if args.hours.is_none() && !args.unset {
        let shown = shown(args, present);
        match args.output {
            Output::Json => print_json(&serde_json::to_value(&shown)?)?,
            Output::Table => print(&text(&shown))?,
        }
        return Ok(ExitCode::SUCCESS);
    }
    let (before, after) = (kept(args, &present), wanted(args, &present));
    if is_shorter(after, before) && !args.yes {
        bail!(question(args, after.unwrap_or_default()));
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

/// What is removed by a change that nobody has confirmed.
fn question(args: &RetentionArgs, hours: u64) -> String {
    let what = match (&args.tenant, &args.selector) {
        (Some(tenant), Some(selector)) => format!("all metrics {selector} of tenant {tenant}"),
        (Some(tenant), None) => format!("all metrics of tenant {tenant}"),
        (None, _) => "all metrics of all tenants that have no time of their own".to_owned(),
    };
    format!(
        "{what} older than {hours} hours would be removed from all nodes for good; add --yes to do it"
    )
}

/// What holds, of the tenant and the selector that are named, or of all.
fn shown(args: &RetentionArgs, present: admin::Retention) -> admin::Retention {
    let Some(name) = &args.tenant else {
        return present;
    };
    let is_meant = |own: &admin::SelectorRetention| {
        let wanted = args.selector.as_ref();
        wanted.is_none_or(|selector| is_same_selector(&own.selector, selector))
    };
    let own = tenant_of(args, &present).cloned();
    let mut tenant = own.unwrap_or_else(|| admin::TenantRetention {
        tenant: name.clone(),
        ..admin::TenantRetention::default()
    });
    tenant.selectors.retain(is_meant);
    admin::Retention {
        tenants: vec![tenant],
        ..present
    }
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
        let mut own = all.filter(|own| is_same_selector(&own.selector, selector));
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

    fn read(line: &str) -> RetentionArgs {
        let line = std::iter::once("retention").chain(line.split(' '));
        Line::parse_from(line.filter(|word| !word.is_empty())).args
    }

    fn present() -> admin::Retention {
        admin::Retention {
            hours: Some(100),
            tenants: vec![admin::TenantRetention {
                tenant: "a".to_owned(),
                hours: Some(0),
                selectors: vec![admin::SelectorRetention {
                    selector: "{b=\"c\"}".to_owned(),
                    hours: 10,
                }],
            }],
        }
    }

    fn asks_for_yes(line: &str) -> bool {
        let (present, args) = (present(), read(line));
        is_shorter(wanted(&args, &present), kept(&args, &present))
    }

    #[test]
    fn what_is_meant_is_shown_and_named() {
        for (line, tenants, selectors) in [
            ("", 1, 1),
            ("--tenant a", 1, 1),
            ("--tenant a --selector {b='c'}", 1, 1),
            ("--tenant a --selector {b!=\"c\"}", 1, 0),
            ("--tenant b", 1, 0),
        ] {
            let mut all = present();
            if line.is_empty() {
                assert_eq!(shown(&read(line), all.clone()), all);
            }
            let other = admin::TenantRetention {
                tenant: "z".to_owned(),
                ..admin::TenantRetention::default()
            };
            all.tenants.push(other);
            let shown = shown(&read(line), all);
            let (named, rest): (Vec<_>, Vec<_>) = shown
                .tenants
                .iter()
                .partition(|tenant| tenant.tenant != "z");
            assert_eq!(named.len(), tenants, "{line}");
            assert_eq!(rest.len(), usize::from(line.is_empty()), "{line}");
            assert_eq!(named[0].selectors.len(), selectors, "{line}");
        }
        for (line, what) in [
            (
                "24 --tenant a",
                "all metrics of tenant a older than 24 hours",
            ),
            ("24", "of all tenants that have no time of their own older"),
            (
                "24 --tenant a --selector {b=\"c\"}",
                "all metrics {b=\"c\"} of tenant a older",
            ),
        ] {
            let question = question(&read(line), 24);
            assert!(question.contains(what), "{question}");
        }
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
    fn what_is_removed_of_whom_has_to_be_said() {
        let refused = Line::try_parse_from(["retention", "--unset"]);
        let text = refused.err().map(|error| error.to_string());
        assert!(text.is_some_and(|text| text.contains("--tenant")));
    }

    #[tokio::test]
    async fn a_selector_is_read_before_anything_else() {
        // Nobody listens there: it does not come so far.
        let args = read("24 --tenant t --selector {job=\"x\" --url http://127.0.0.1:1");
        let error = run(&args).await.unwrap_err().to_string();
        assert!(error.contains("the selector"), "{error}");
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
