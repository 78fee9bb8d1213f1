//! Runs seeds: one in this process, or many, each in a process of its own.
//!
//! A process of its own, because some libraries count things for the whole process (tokio's generators, for one), and
//! nothing that ran before may have a say.

use crate::{bugs::Bug, checks, coverage::Coverage, entropy, named, schedule, world::World};
use serde::{Deserialize, Serialize};
use std::{
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// Says to the processes that this program starts which seed they run.
const ORDER: &str = "TREFOIL_SIM_ORDER";
/// What the line with the outcome begins with.
const MARK: &str = "OUTCOME ";

/// What is to be simulated.
#[derive(Clone, Debug, Default)]
pub(crate) struct Order {
    pub(crate) seed: u64,
    pub(crate) bug: Option<Bug>,
    /// The named schedule that is told instead of the seed's own.
    pub(crate) story: Option<&'static str>,
    /// Whether the story is to have every message.
    pub(crate) keeps_all: bool,
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) seed: u64,
    pub(crate) broken: Option<String>,
    /// Whether the founding waits for an operator.
    pub(crate) stuck: bool,
    pub(crate) coverage: Coverage,
    pub(crate) digest: u64,
    pub(crate) story: Vec<String>,
}

impl Order {
    /// What the process that started this one wants, if one did.
    pub(crate) fn from_environment() -> Option<Self> {
        let text = std::env::var(ORDER).ok()?;
        let mut words = text.split(' ');
        let seed = words.next()?.parse().ok()?;
        let keeps_all = words.next()? == "all";
        let bug = words.next().and_then(Bug::named);
        let story = words.next().and_then(named::story);
        Some(Self {
            seed,
            bug,
            story: story.map(|story| story.name),
            keeps_all,
        })
    }

    fn text(&self) -> String {
        let story = if self.keeps_all { "all" } else { "told" };
        let bug = self.bug.map_or("-".to_owned(), |bug| format!("{bug:?}"));
        let name = self.story.unwrap_or_default();
        format!("{} {story} {bug} {name}", self.seed)
    }
}

impl Outcome {
    /// Tells the process that started this one.
    pub(crate) fn print(&self) {
        let text = serde_json::to_string(self).expect("an outcome is plain data");
        crate::show(&format!("\n{MARK}{text}\n"));
    }
}

/// Runs a seed in a fresh thread of this process.
pub(crate) fn simulate(order: &Order) -> Outcome {
    let order = order.clone();
    let panics: &'static Mutex<Vec<String>> = Box::leak(Box::default());
    let thread = std::thread::spawn(move || {
        let simulation = std::thread::current().id();
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if std::thread::current().id() == simulation {
                let mut panics = panics
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                panics.push(panic.to_string());
            }
            before(panic);
        }));
        entropy::follow(order.seed);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime without input and output can be made");
        let (world, result) = runtime.block_on(play(&order));
        let (story, digest, _) = world.story();
        let panics = panics
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let panicked = panics.first().map(|panic| format!("a panic: {panic}"));
        let stuck = result.as_ref().is_err_and(|how| how == checks::STUCK);
        let outcome = Outcome {
            seed: order.seed,
            broken: result.err().filter(|_| !stuck).or(panicked),
            stuck,
            coverage: world.coverage(),
            digest,
            story,
        };
        // What still runs would only be torn down: the process is about to end.
        std::mem::forget(runtime);
        outcome
    });
    thread
        .join()
        .unwrap_or_else(|why| std::panic::resume_unwind(why))
}

async fn play(order: &Order) -> (Arc<World>, Result<(), String>) {
    match order.story.and_then(named::story) {
        Some(story) => story.run(order.seed, order.bug, order.keeps_all).await,
        None => schedule::run(order.seed, order.bug, order.keeps_all).await,
    }
}

/// Runs a seed in a process of its own.
pub(crate) fn in_a_process(order: &Order) -> Outcome {
    let program = std::env::current_exe().expect("this program has a path");
    let output = Command::new(program)
        .args(["one_seed", "--exact", "--nocapture", "--test-threads=1"])
        .env(ORDER, order.text())
        .output()
        .expect("this program can be started again");
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix(MARK));
    let Some(line) = line else {
        let errors = String::from_utf8_lossy(&output.stderr);
        let end: Vec<&str> = errors.lines().rev().take(20).collect();
        return Outcome {
            seed: order.seed,
            broken: Some(format!("the process ended ({}): {end:?}", output.status)),
            stuck: false,
            coverage: Coverage::default(),
            digest: 0,
            story: Vec::new(),
        };
    };
    serde_json::from_str(line).expect("an outcome is read as it was written")
}

/// What came of many seeds.
#[derive(Default)]
pub(crate) struct Run {
    pub(crate) coverage: Coverage,
    /// In order of the seeds.
    pub(crate) failures: Vec<String>,
    /// The lowest seed that failed.
    pub(crate) first: Option<(u64, String)>,
    pub(crate) stuck: u64,
}

/// Runs an order with other seeds on all processors, until so many have failed.
pub(crate) fn run_seeds(seeds: std::ops::Range<u64>, like: &Order, failures_max: usize) -> Run {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, stop) = (AtomicU64::new(seeds.start), AtomicBool::new(false));
    let outcomes: Mutex<Vec<Outcome>> = Mutex::default();
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return;
            }
            let outcome = in_a_process(&Order {
                seed,
                ..like.clone()
            });
            let mut outcomes = outcomes
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            outcomes.push(Outcome {
                story: Vec::new(),
                ..outcome
            });
            let failed = outcomes.iter().filter(|outcome| outcome.broken.is_some());
            if failed.count() >= failures_max {
                stop.store(true, Ordering::Relaxed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let mut outcomes = outcomes
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    outcomes.sort_by_key(|outcome| outcome.seed);
    let mut run = Run::default();
    for outcome in outcomes {
        run.coverage.add(&outcome.coverage);
        run.stuck += u64::from(outcome.stuck);
        if let Some(how) = outcome.broken {
            run.failures
                .push(format!("TREFOIL_SIM_SEED={}: {how}", outcome.seed));
            run.first.get_or_insert((outcome.seed, how));
        }
    }
    run
}
