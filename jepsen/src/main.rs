//! The binary `trefoil-jepsen`: attacks a cluster of real nodes and judges what it did.

use anyhow::{Context, bail, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};
use trefoil_jepsen::{
    Exclusive, checker,
    history::History,
    nemesis::{Kind, Schedule},
    report,
    run::{Progress, RunPlan, possible, run},
    site::{Site, SiteKind, SitePlan},
    trefoil_binary,
    workload::Workload,
};

/// The size of a node's disk.
const DISK_BYTES: u64 = 1 << 30;

/// Attacks Trefoil's promises and looks for what breaks.
#[derive(Parser)]
#[command(version, about, long_about = None)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Starts nodes, loads and disturbs them, judges the history. Exit code 1: a promise was broken.
    Run(RunArgs),
    /// Judges a history again.
    Check {
        /// The `history.jsonl` of a run.
        history: PathBuf,
        /// How to print the verdict.
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
        /// Draws it into this HTML file, too.
        #[arg(long, value_name = "FILE")]
        report: Option<PathBuf>,
    },
    /// Lists the nemeses, and whether they can be done here.
    List,
}

#[derive(Args)]
struct RunArgs {
    /// What clients do: `all`, or some of `set,register`.
    #[arg(long, default_value = "all")]
    workload: String,
    /// Which faults come: `all`, or a list of names (see `list`).
    #[arg(long, default_value = "all")]
    nemesis: String,
    /// How long clients work: `90s`, `10m`, `1h`.
    #[arg(long, default_value = "10m", value_parser = parse_duration)]
    time: Duration,
    /// Decides which faults come when, and what clients do. Without it: another one each time.
    #[arg(long)]
    seed: Option<u64>,
    /// How many nodes, besides one that comes and goes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(3..=9))]
    nodes: u64,
    /// What hosts are made of. `auto`: namespaces where they can be made.
    #[arg(long, value_enum, default_value_t = Hosts::Auto)]
    hosts: Hosts,
    /// How many processors each node may use (with namespaces).
    #[arg(long)]
    cores: Option<f64>,
    /// Does the faults of a run's `schedule.json` again. Its seed and nodes count, `--nemesis` does not.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seed", "nemesis", "nodes"])]
    replay: Option<PathBuf>,
    /// Where the run's files go.
    #[arg(long, default_value = "jepsen-run")]
    out: PathBuf,
    /// How to print the verdict.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Go on although some of the asked nemeses cannot be done here; they are named.
    #[arg(long)]
    possible_only: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Hosts {
    Auto,
    Namespaces,
    Loopback,
}

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// Tells what happens on the standard error.
struct Told;

impl Progress for Told {
    fn tell(&self, sentence: &str) {
        eprintln!("{sentence}");
    }
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(args) => attack(&args),
        Command::Check {
            history,
            output,
            report,
        } => judge(&history, output, report.as_deref()),
        Command::List => list().map(|()| true),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn attack(args: &RunArgs) -> anyhow::Result<bool> {
    let workloads = Workload::parse_list(&args.workload)?;
    let kinds = Kind::parse_list(&args.nemesis)?;
    let replayed = args.replay.as_deref().map(Schedule::read).transpose()?;
    let nodes = replayed
        .as_ref()
        .map_or(args.nodes as usize, |schedule| schedule.nodes);
    let seed = match &replayed {
        Some(schedule) => schedule.seed,
        None => args.seed.unwrap_or_else(rand::random),
    };
    fs::create_dir_all(&args.out).with_context(|| format!("create {}", args.out.display()))?;
    let folder = args.out.canonicalize()?;
    trefoil_binary()?;
    let _alone = Exclusive::take()?;
    let kind = site_kind(args.hosts)?;
    let site = Site::create(&SitePlan {
        disk_bytes: DISK_BYTES,
        cores_per_host: args.cores,
        zones: ["a", "b", "c"].map(str::to_owned).to_vec(),
        seed,
        ..SitePlan::new(kind, nodes + 1, &folder)
    })?;
    let schedule = match replayed {
        Some(schedule) => schedule,
        None => Schedule::random(
            seed,
            nodes,
            &possible_kinds(&site, &kinds, args.possible_only)?,
        ),
    };
    let plan = RunPlan {
        workloads,
        schedule,
        duration: args.time,
        hosts: kind,
        folder: folder.clone(),
    };
    eprintln!(
        "seed {seed}, {nodes} nodes, {}; files in {}",
        kind.name(),
        args.out.display()
    );
    let done = run_on(&plan, site);
    let history = RunPlan::history(&folder);
    if let Err(error) = &done {
        eprintln!("error: {error:#}");
    }

    let kept = judge(&history, args.output, Some(&folder.join("report.html")))?;
    eprintln!("report: {}", args.out.join("report.html").display());
    eprintln!(
        "again:  trefoil-jepsen run --replay {}",
        args.out.join("schedule.json").display()
    );
    done.map(|()| kept)
}

/// Runs where clients are: every thread of the runtime goes there.
fn run_on(plan: &RunPlan, site: Site) -> anyhow::Result<()> {
    let door = site.door();
    door.enter()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .on_thread_start(move || {
            // A thread that stays outside reaches no node, which the history shows.
            if let Err(error) = door.enter() {
                eprintln!("a client's thread: {error:#}");
            }
        })
        .enable_all()
        .build()?;
    runtime.block_on(async {
        tokio::select! {
            done = run(plan, site, &Told) => done,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                bail!("interrupted")
            }
        }
    })
}

fn site_kind(hosts: Hosts) -> anyhow::Result<SiteKind> {
    Ok(match hosts {
        Hosts::Loopback => SiteKind::Loopback,
        Hosts::Namespaces => {
            Site::possible(SiteKind::Namespaces).map_err(anyhow::Error::msg)?;
            SiteKind::Namespaces
        }
        Hosts::Auto => match Site::possible(SiteKind::Namespaces) {
            Ok(()) => SiteKind::Namespaces,
            Err(reason) => {
                eprintln!("hosts on loopback: {reason}");
                SiteKind::Loopback
            }
        },
    })
}

fn possible_kinds(site: &Site, kinds: &[Kind], only: bool) -> anyhow::Result<Vec<Kind>> {
    let (can, cannot) = possible(site, kinds);
    for (kind, reason) in &cannot {
        eprintln!("not possible here: {}: {reason}", kind.name());
    }
    ensure!(
        cannot.is_empty() || only,
        "some nemeses cannot be done here; leave them out, or say --possible-only"
    );
    ensure!(!can.is_empty(), "there is no nemesis to do");
    Ok(can)
}

fn judge(history: &Path, output: Output, report: Option<&Path>) -> anyhow::Result<bool> {
    let history = History::read(history)?;
    let verdict = checker::check(&history);
    if let Some(file) = report {
        report::write(file, &history, &verdict)?;
    }
    match output {
        Output::Table => println!("{verdict}"),
        Output::Json => println!("{}", verdict.to_json()?),
    }
    Ok(verdict.is_good())
}

fn list() -> anyhow::Result<()> {
    for kind in Kind::ALL {
        println!("{:<16}{}", kind.name(), kind.text());
    }
    Ok(())
}

/// `90s`, `10m`, `1h`.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time: write 90s, 10m or 1h");
    let (number, unit) = text.split_at(text.len().saturating_sub(1));
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "s" => Some(number),
        "m" => number.checked_mul(60),
        "h" => number.checked_mul(3600),
        _ => None,
    };
    seconds
        .filter(|s| *s > 0)
        .map(Duration::from_secs)
        .ok_or_else(wrong)
}
