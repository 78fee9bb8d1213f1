//! `trefoil snapshot`: reads the folders of snapshots, without a cluster.

use super::{Output, print, print_json, table::Table};
use crate::{
    cluster::admin::shard_ranges,
    open_files,
    query::source::listed,
    snapshot::reading::{Part, Parts, check_whole},
};
use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::{
    io::{BufWriter, ErrorKind, Write},
    path::PathBuf,
    time::{Duration, Instant},
};
use trefoil_api::{
    TENANT_DEFAULT, format_rfc3339,
    json_lines::{Lines, ROWS_MAX},
};
use trefoil_model::{Millis, TenantId};
use trefoil_query_promql::{RawSeries, parse_selector};

/// How often progress is told.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);
/// Bytes that are collected before they are written.
const WRITE_BYTES: usize = 1 << 20;

/// What to do with snapshots.
#[derive(Subcommand, Debug)]
pub(crate) enum SnapshotCommand {
    /// Write a tenant's samples as JSON lines, as /api/v1/export does; /api/v1/import of any cluster takes them
    Export(ExportArgs),
    /// Read everything and say what there is
    List(ListArgs),
}

/// What `export` takes.
#[derive(Args, Debug)]
pub(crate) struct ExportArgs {
    /// The folders of one snapshot, of as many nodes as are needed to have all shards
    #[arg(required = true, value_name = "DIR")]
    folders: Vec<PathBuf>,
    /// The tenant [default: the only one that there is]
    #[arg(long)]
    tenant: Option<String>,
    /// Only series that this selector fits, for example '{job="api"}'; may be repeated
    #[arg(long = "match", value_name = "SELECTOR")]
    selectors: Vec<String>,
    /// Write what there is, though no folder has some shards
    #[arg(long)]
    partial: bool,
}

/// What `list` takes.
#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    /// The folders of one snapshot
    #[arg(required = true, value_name = "DIR")]
    folders: Vec<PathBuf>,
    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// Runs the command.
///
/// # Errors
/// When a folder cannot be read, or shards are missing from an export.
pub(crate) fn run(command: &SnapshotCommand) -> anyhow::Result<()> {
    // Every block that is read keeps a file open.
    open_files::raise_limit();
    match command {
        SnapshotCommand::Export(args) => export(args),
        SnapshotCommand::List(args) => list(args),
    }
}

fn export(args: &ExportArgs) -> anyhow::Result<()> {
    let mut selectors = Vec::with_capacity(args.selectors.len());
    for text in &args.selectors {
        let selector = parse_selector(text).with_context(|| format!("read --match {text:?}"))?;
        selectors.push(selector);
    }
    let parts = Parts::open(&args.folders)?;
    if !args.partial {
        check_whole(&parts)?;
    }
    let (name, tenant) = tenant(&parts, args.tenant.as_deref())?;
    warn(&parts);
    let mut out = BufWriter::with_capacity(WRITE_BYTES, std::io::stdout().lock());
    let mut counted = Counted::default();
    let mut progress = Progress::new("written");
    let walked = parts.walk(tenant, &selectors, &mut |series| {
        counted.add(&series);
        for piece in Lines::of(vec![series], ROWS_MAX) {
            out.write_all(&piece).context(WRITING)?;
        }
        progress.tell(&counted);
        Ok(())
    });
    match walked.and_then(|()| out.flush().context(WRITING)) {
        // Who reads no further has all that was wanted.
        Err(error) if is_broken_pipe(&error) => {
            drop(out.into_parts());
            return Ok(());
        }
        outcome => outcome?,
    }
    eprintln!(
        "{} series with {} samples of tenant {name}",
        counted.series, counted.samples
    );
    Ok(())
}

const WRITING: &str = "write to standard output";

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// The tenant that is meant.
fn tenant<'p>(parts: &'p Parts, wanted: Option<&str>) -> anyhow::Result<(&'p str, TenantId)> {
    let all = parts.tenants();
    let with_data: Vec<&str> = all
        .iter()
        .filter(|(_, tenant)| parts.has(**tenant))
        .map(|(name, _)| *name)
        .collect();
    let name = match (wanted, with_data.as_slice()) {
        (Some(name), _) => name,
        (None, [only]) => only,
        (None, []) => TENANT_DEFAULT,
        (None, several) => bail!(
            "there are several tenants; name one with --tenant: {}",
            several.join(", ")
        ),
    };
    match all.get_key_value(name) {
        Some((name, tenant)) => Ok((name, *tenant)),
        None => bail!(
            "there is no tenant {name:?}; there are: {}",
            with_data.join(", ")
        ),
    }
}

/// Says what an export may lack.
fn warn(parts: &Parts) {
    let missing = parts.missing();
    if !missing.is_empty() {
        eprintln!("warning: shards {} are missing", listed(&missing));
    }
    let lost = parts.lost();
    if !lost.is_empty() {
        let lost = listed(&lost);
        eprintln!("warning: shards {lost} lost data for good before the snapshot");
    }
    if parts.about().skips_head {
        eprintln!(
            "warning: the head was skipped: what no owner had in blocks yet is not in this snapshot"
        );
    }
}

/// What was read of a tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counted {
    series: u64,
    samples: u64,
    /// Earliest and latest sample.
    times: Option<(Millis, Millis)>,
}

impl Counted {
    fn add(&mut self, series: &RawSeries) {
        self.series += 1;
        self.samples += series.timestamps.len() as u64;
        if let (Some(&first), Some(&last)) = (series.timestamps.first(), series.timestamps.last()) {
            let (from, to) = self.times.unwrap_or((first, last));
            self.times = Some((from.min(first), to.max(last)));
        }
    }
}

/// Tells on standard error how far it is.
struct Progress {
    what: &'static str,
    told: Instant,
}

impl Progress {
    fn new(what: &'static str) -> Self {
        Self {
            what,
            told: Instant::now(),
        }
    }

    fn tell(&mut self, counted: &Counted) {
        if self.told.elapsed() >= PROGRESS_INTERVAL {
            self.told = Instant::now();
            let Counted {
                series, samples, ..
            } = counted;
            eprintln!("{series} series with {samples} samples {} ...", self.what);
        }
    }
}

fn list(args: &ListArgs) -> anyhow::Result<()> {
    let parts = Parts::open(&args.folders)?;
    let mut tenants = Vec::new();
    for (name, tenant) in parts.tenants() {
        if !parts.has(tenant) {
            continue;
        }
        let mut counted = Counted::default();
        let mut progress = Progress::new("read");
        parts.walk(tenant, &[], &mut |series| {
            counted.add(&series);
            progress.tell(&counted);
            Ok(())
        })?;
        tenants.push((name, counted));
    }
    warn(&parts);
    match args.output {
        Output::Json => print_json(&document(&parts, &tenants)),
        Output::Table => print(&render(&parts, &tenants)),
    }
}

fn document(parts: &Parts, tenants: &[(&str, Counted)]) -> Value {
    let about = parts.about();
    let of_part = |part: &Part| {
        json!({
            "folder": part.path.display().to_string(),
            "node": part.about.node_text(),
            "shards": shard_ranges(&part.about.shards()),
            "blocks": part.blocks,
            "bytes": part.bytes,
        })
    };
    let of_tenant = |(name, counted): &(&str, Counted)| {
        json!({
            "tenant": name,
            "series": counted.series,
            "samples": counted.samples,
            "first": counted.times.map(|(first, _)| first),
            "last": counted.times.map(|(_, last)| last),
        })
    };
    json!({
        "name": about.name,
        "taken_at": about.taken_at,
        "cluster": about.cluster,
        "skips_head": about.skips_head,
        "shards": about.shards_all,
        "shards_missing": shard_ranges(&parts.missing()),
        "shards_lost": shard_ranges(&parts.lost()),
        "parts": parts.parts().iter().map(of_part).collect::<Vec<_>>(),
        "tenants": tenants.iter().map(of_tenant).collect::<Vec<_>>(),
    })
}

fn render(parts: &Parts, tenants: &[(&str, Counted)]) -> String {
    let about = parts.about();
    let mut folders = Table::new(&["NODE", "SHARDS", "BLOCKS", "BYTES", "FOLDER"]);
    for part in parts.parts() {
        folders.row([
            part.about.node_text().to_owned(),
            part.about.shards().len().to_string(),
            part.blocks.to_string(),
            part.bytes.to_string(),
            part.path.display().to_string(),
        ]);
    }
    let mut table = Table::new(&["TENANT", "SERIES", "SAMPLES", "FIRST", "LAST"]);
    for (name, counted) in tenants {
        let time = |time: Option<Millis>| time.map_or_else(String::new, format_rfc3339);
        table.row([
            (*name).to_owned(),
            counted.series.to_string(),
            counted.samples.to_string(),
            time(counted.times.map(|(first, _)| first)),
            time(counted.times.map(|(_, last)| last)),
        ]);
    }
    let missing = parts.missing();
    let shards = match missing.len() {
        0 => format!("all {} shards are here", about.shards_all),
        count => format!(
            "{count} of {} shards are MISSING: {}",
            about.shards_all,
            listed(&missing)
        ),
    };
    format!(
        "snapshot {} of cluster {}, {shards}\n\n{}\n{}",
        about.name,
        about.cluster,
        folders.render(),
        table.render()
    )
}
