//! A steady load: for every node writers with ledgers of their own and a querier that counts all
//! ledgers, each with one request under way at a time.
//!
//! The querier holds every count between what had been acknowledged when it asked and what had been
//! sent when it got its answer, for each series that it looks at: an incomplete answer is seen at
//! once. What counts cannot show (one sample lost, an unacknowledged one in its place) the final check
//! does.

mod capacity;
mod destination;
mod querier;
mod seen;
mod writer;

pub use capacity::measure_capacity;

use crate::{
    Ledger, Service, longest_error_window,
    service::{Habit, ServiceClient},
};
use anyhow::{Context, bail};
use destination::Destination;
use querier::Querier;
use seen::Seen;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;
use writer::Writer;

/// Longer than the deadline of the nodes' own writes, so that their answers are seen.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(25);
/// How long a client of a service waits for a connection before it asks another node.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(1);

/// What a load does.
#[derive(Clone, Debug)]
pub struct LoadPlan {
    /// Writers at each node.
    pub writers_per_node: usize,
    /// Series of each writer, and so samples of each request.
    pub series: usize,
    /// Between two requests of a writer.
    pub write_every: Duration,
    /// Between two questions of a querier.
    pub query_every: Duration,
}

impl Default for LoadPlan {
    /// 64 series over the shards, 5 requests and 2 questions per second and node: enough to see
    /// errors of a fifth of a second, so little that it costs nothing.
    fn default() -> Self {
        Self {
            writers_per_node: 1,
            series: 64,
            write_every: Duration::from_millis(200),
            query_every: Duration::from_millis(500),
        }
    }
}

impl LoadPlan {
    /// Requests of the size that real senders use, as many at once as they send; see
    /// [`LoadPlan::at_rate`] for their pace.
    #[must_use]
    pub fn heavy() -> Self {
        Self {
            writers_per_node: 4,
            series: 2_000,
            write_every: Duration::from_secs(1),
            query_every: Duration::from_millis(500),
        }
    }

    /// The same requests at a pace that gives so many samples per second from all nodes' writers.
    #[must_use]
    pub fn at_rate(self, nodes: usize, samples_per_second: f64) -> Self {
        let samples = nodes * self.writers_per_node * self.series;
        let every = samples as f64 / samples_per_second.max(1.0);
        Self {
            write_every: Duration::from_secs_f64(every),
            ..self
        }
    }
}

/// What is at one node.
struct Station {
    node: usize,
    writes: Vec<Seen>,
    queries: Seen,
}

/// A load that runs until [`Load::stop`].
pub struct Load {
    ledgers: Vec<Arc<Ledger>>,
    stations: Vec<Station>,
    tasks: Vec<JoinHandle<()>>,
    stopping: Arc<AtomicBool>,
    begun: Instant,
}

impl Load {
    /// Starts writers and a querier for each (node number, base URL). `round` makes the names of the
    /// writers unique when a cluster gets several loads.
    #[must_use]
    pub fn start(round: &str, nodes: &[(usize, String)], plan: &LoadPlan) -> Self {
        let numbers: Vec<usize> = nodes.iter().map(|(node, _)| *node).collect();
        Self::start_towards(round, &numbers, plan, |station| {
            Destination::Node(nodes[station].1.clone())
        })
    }

    /// Starts as many clients of a service, each with its writers and a querier. Every second one stays with one
    /// node as long as that takes requests, the others take turns.
    #[must_use]
    pub fn start_at_service(
        round: &str,
        service: &Service,
        clients: usize,
        plan: &LoadPlan,
    ) -> Self {
        let numbers: Vec<usize> = (0..clients).collect();
        Self::start_towards(round, &numbers, plan, |client| {
            let habit = match client % 2 {
                0 => Habit::Faithful,
                _ => Habit::Roaming,
            };
            Destination::Service(ServiceClient::new(service, habit, client))
        })
    }

    /// `destination` is asked with places in `numbers`.
    fn start_towards(
        round: &str,
        numbers: &[usize],
        plan: &LoadPlan,
        destination: impl Fn(usize) -> Destination,
    ) -> Self {
        let mut load = Self {
            ledgers: Vec::new(),
            stations: Vec::new(),
            tasks: Vec::new(),
            stopping: Arc::new(AtomicBool::new(false)),
            begun: Instant::now(),
        };
        for (place, node) in numbers.iter().enumerate() {
            let writes = (0..plan.writers_per_node).map(|number| {
                let name = format!("{round}-{}-{number}", node + 1);
                let ledger = Ledger::new(&name, plan.series);
                load.start_writer(ledger, destination(place), number, plan)
            });
            let station = Station {
                node: *node,
                writes: writes.collect(),
                queries: Seen::default(),
            };
            load.stations.push(station);
        }
        for (place, station) in load.stations.iter().enumerate() {
            let destination = destination(place);
            let querier = Querier {
                client: destination.client(),
                destination,
                writers: format!("{round}-.*"),
                ledgers: load.ledgers.clone(),
                seen: station.queries.clone(),
            };
            let run = querier.run(plan.query_every, Arc::clone(&load.stopping));
            load.tasks.push(tokio::spawn(run));
        }
        load
    }

    /// The writers of a node take turns: the first requests are spread over the time between two.
    fn start_writer(
        &mut self,
        ledger: Ledger,
        destination: Destination,
        number: usize,
        plan: &LoadPlan,
    ) -> Seen {
        let ledger = Arc::new(ledger);
        let seen = Seen::default();
        let writer = Writer {
            client: destination.client(),
            destination,
            ledger: Arc::clone(&ledger),
            seen: seen.clone(),
        };
        let delay = plan.write_every * number as u32 / plan.writers_per_node as u32;
        let run = writer.run(plan.write_every, delay, Arc::clone(&self.stopping));
        self.tasks.push(tokio::spawn(run));
        self.ledgers.push(ledger);
        seen
    }

    /// The ledgers of all writers.
    #[must_use]
    pub fn ledgers(&self) -> Vec<Arc<Ledger>> {
        self.ledgers.clone()
    }

    /// Lets the load go on for so long.
    pub async fn go_on(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    /// Ends the load after the requests that are under way, and prints what it came to.
    ///
    /// # Errors
    /// When a task has panicked.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.stopping.store(true, Ordering::Relaxed);
        for task in self.tasks.drain(..) {
            task.await.context("a writer or querier")?;
        }
        let ledgers = self.ledgers.iter();
        let samples = ledgers.map(|ledger| ledger.counts().acknowledged * ledger.series_count());
        let (samples, took) = (samples.sum::<usize>(), self.begun.elapsed());
        let rate = samples as f64 / took.as_secs_f64();
        eprintln!("{samples} samples acknowledged in {took:.1?}, {rate:.0}/s");
        Ok(())
    }

    /// Fails when, at one of the named nodes, the writes of one writer or the queries that began in
    /// `from..to` failed for longer than `longest`. Prints what the longest was at each node.
    ///
    /// # Errors
    /// Says where, for how long and why.
    pub fn check_windows(
        &self,
        nodes: &[usize],
        (from, to): (Instant, Instant),
        longest: Duration,
    ) -> anyhow::Result<()> {
        for station in &self.stations {
            if !nodes.contains(&station.node) {
                continue;
            }
            let name = format!("node {}", station.node + 1);
            check_station(&name, "writes", &station.writes, (from, to), longest)?;
            let queries = std::slice::from_ref(&station.queries);
            check_station(&name, "queries", queries, (from, to), longest)?;
        }
        Ok(())
    }

    /// Fails when any request was not answered with a complete success; how many there were.
    ///
    /// # Errors
    /// Says how many were not, and why the first ones.
    pub fn check_no_failures(&self) -> anyhow::Result<usize> {
        let (mut attempts, mut failed, mut reasons) = (0, 0, Vec::new());
        for station in &self.stations {
            for seen in station.writes.iter().chain([&station.queries]) {
                let seen = seen.get();
                attempts += seen.attempts.len();
                failed += seen.attempts.iter().filter(|a| !a.success).count();
                reasons.extend(seen.reasons.iter().take(3).cloned());
            }
        }
        if failed > 0 {
            bail!("{failed} of {attempts} requests failed: {reasons:?}");
        }
        Ok(attempts)
    }

    /// Fails when an answer was wrong, a request was refused for good, or nothing was acknowledged.
    ///
    /// # Errors
    /// Says which.
    pub fn check_honesty(&self) -> anyhow::Result<()> {
        for ledger in &self.ledgers {
            if let Some(text) = ledger.refusal() {
                bail!("writer {}: refused for good: {text}", ledger.writer());
            }
            if ledger.counts().acknowledged == 0 {
                bail!("writer {}: nothing was acknowledged", ledger.writer());
            }
        }
        for station in &self.stations {
            let seen = station.queries.get();
            let node = station.node + 1;
            if !seen.attempts.iter().any(|attempt| attempt.success) {
                bail!("node {node}: no query was answered: {:?}", seen.reasons);
            }
            if let Some(first) = seen.wrong.first() {
                bail!("node {node}: {} wrong answers: {first}", seen.wrong.len());
            }
        }
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

fn check_station(
    node: &str,
    what: &str,
    all: &[Seen],
    (from, to): (Instant, Instant),
    allowed: Duration,
) -> anyhow::Result<()> {
    let (mut attempts, mut failed) = (0, 0);
    let (mut window, mut slowest) = (Duration::ZERO, Duration::ZERO);
    let mut reasons = Vec::new();
    for seen in all {
        let seen = seen.get();
        let within = |begun: Instant| from <= begun && begun < to;
        for attempt in seen.attempts.iter().filter(|a| within(a.begun)) {
            attempts += 1;
            failed += usize::from(!attempt.success);
            slowest = slowest.max(attempt.ended - attempt.begun);
        }
        let longest = longest_error_window(&seen.attempts, from, to);
        if longest > window {
            window = longest;
            reasons.clone_from(&seen.reasons);
        }
    }
    eprintln!(
        "{what} at {node}: {failed} of {attempts} failed, for {window:.0?} at most; the slowest took {slowest:.0?}"
    );
    if window > allowed {
        bail!("{what} at {node} failed for {window:?}, longer than {allowed:?}: {reasons:?}");
    }
    Ok(())
}
