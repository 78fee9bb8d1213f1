//! What clients do in a run: they read and write through every node and record what they asked and were told.
//!
//! A client has one request under way at a time and never repeats one, so every operation of a history is one request.
//! Clients judge nothing: that is for the checkers.

mod register;
mod set;

pub use set::LastReads;

use crate::{
    Clock, HttpClient, Ledger,
    history::{Action, Line, Micros, Operation, Outcome, Recorder},
};
use anyhow::{Context, bail};
use std::{
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;

/// Longer than the nodes' own deadlines, so that their answers are seen.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(25);
/// Nobody answers at an address that a node has left; a client that waits there asks nobody else.
const CONNECT_WAIT_MAX: Duration = Duration::from_secs(2);

/// What clients can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Workload {
    /// Adds numbered elements, reads them back, also during faults.
    Set,
    /// Compare-and-set on keys of the metadata plane, through all nodes.
    Register,
}

impl Workload {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Set, Self::Register];

    /// Its name on the command line and in histories.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::Register => "register",
        }
    }

    /// The workloads of a comma-separated list; `all` means all.
    ///
    /// # Errors
    /// With the names that there are, for one that there is not.
    pub fn parse_list(list: &str) -> anyhow::Result<Vec<Self>> {
        if list == "all" {
            return Ok(Self::ALL.to_vec());
        }
        let mut found = Vec::new();
        for name in list.split(',') {
            match Self::ALL.into_iter().find(|w| w.name() == name) {
                Some(workload) if !found.contains(&workload) => found.push(workload),
                Some(_) => {}
                None => bail!("there is no workload {name:?}; there are: set, register, all"),
            }
        }
        Ok(found)
    }
}

/// The clock and the history of a run, shared by whoever records.
#[derive(Clone)]
pub struct Journalist {
    begun: Instant,
    recorder: Arc<Mutex<Recorder>>,
    /// The first error of the recorder: a history with holes proves nothing.
    failed: Arc<Mutex<Option<String>>>,
}

impl Journalist {
    /// The run begins now.
    #[must_use]
    pub fn new(recorder: Recorder) -> Self {
        Self {
            begun: Instant::now(),
            recorder: Arc::new(Mutex::new(recorder)),
            failed: Arc::default(),
        }
    }

    /// Microseconds since the run began.
    #[must_use]
    pub fn now(&self) -> Micros {
        Micros::try_from(self.begun.elapsed().as_micros()).unwrap_or(Micros::MAX)
    }

    /// Appends a line.
    pub fn record(&self, line: &Line) {
        let mut recorder = self.recorder.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = recorder.record(line) {
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.get_or_insert(format!("{error:#}"));
        }
    }

    /// Hands everything to the file.
    ///
    /// # Errors
    /// When any line could not be written.
    pub fn finish(&self) -> anyhow::Result<()> {
        let mut recorder = self.recorder.lock().unwrap_or_else(PoisonError::into_inner);
        recorder.flush()?;
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        match &*failed {
            Some(error) => bail!("{error}"),
            None => Ok(()),
        }
    }
}

/// Where the nodes are at present; addresses change during a run.
#[derive(Clone, Default)]
pub struct Addresses(Arc<RwLock<Vec<String>>>);

impl Addresses {
    /// The base URL of a node.
    #[must_use]
    pub fn url(&self, node: usize) -> Option<String> {
        let urls = self.0.read().unwrap_or_else(PoisonError::into_inner);
        urls.get(node).cloned()
    }

    /// Sets the base URLs of all nodes, in their order.
    pub fn set(&self, urls: Vec<String>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = urls;
    }
}

/// What all clients of a run share.
#[derive(Clone)]
struct Office {
    journalist: Journalist,
    addresses: Addresses,
    stopping: Arc<AtomicBool>,
    /// The next client's number.
    clients: Arc<AtomicU32>,
}

impl Office {
    fn client(&self) -> Client {
        Client {
            office: self.clone(),
            number: self.clients.fetch_add(1, Ordering::Relaxed),
            http: HttpClient::with_connect_timeout(ANSWER_WAIT_MAX, CONNECT_WAIT_MAX),
        }
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }
}

/// One client: asks, waits for the answer, records both.
struct Client {
    office: Office,
    number: u32,
    http: HttpClient,
}

impl Client {
    /// Does something at a node and records it as one operation.
    async fn operate(
        &self,
        node: usize,
        action: Action,
        work: impl Future<Output = Outcome>,
    ) -> Outcome {
        let journalist = &self.office.journalist;
        let invoked = journalist.now();
        let outcome = work.await;
        journalist.record(&Line::Operation(Operation {
            client: self.number,
            node,
            invoked,
            completed: Some(journalist.now()),
            action,
            outcome: outcome.clone(),
        }));
        outcome
    }
}

/// Clients at work.
pub struct Clients {
    office: Office,
    tasks: Vec<JoinHandle<()>>,
    ledgers: Vec<Arc<Ledger>>,
}

impl Clients {
    /// Begins the workloads at nodes `0..nodes`. They go on until [`Clients::stop`].
    #[must_use]
    pub fn begin(
        workloads: &[Workload],
        nodes: usize,
        seed: u64,
        journalist: &Journalist,
        addresses: &Addresses,
    ) -> Self {
        let office = Office {
            journalist: journalist.clone(),
            addresses: addresses.clone(),
            stopping: Arc::default(),
            clients: Arc::default(),
        };
        let mut clients = Self {
            office,
            tasks: Vec::new(),
            ledgers: Vec::new(),
        };
        for workload in workloads {
            match workload {
                Workload::Set => clients.begin_set(nodes, seed),
                Workload::Register => clients.begin_register(nodes, seed),
            }
        }
        clients
    }

    fn begin_set(&mut self, nodes: usize, seed: u64) {
        let ledgers = (0..nodes).map(|node| Arc::new(set::ledger(node)));
        self.ledgers = ledgers.collect();
        for (node, ledger) in self.ledgers.iter().enumerate() {
            let adding = set::add(self.office.client(), node, ledger.clone());
            self.tasks.push(tokio::spawn(adding));
            let seed = seed.wrapping_add(node as u64);
            let reading = set::read(self.office.client(), node, self.ledgers.clone(), seed);
            self.tasks.push(tokio::spawn(reading));
        }
    }

    fn begin_register(&mut self, nodes: usize, seed: u64) {
        let epochs = register::Epochs::begin();
        for node in 0..nodes {
            let seed = seed.wrapping_add(1000 + node as u64);
            let work = register::work(self.office.client(), node, epochs, seed);
            self.tasks.push(tokio::spawn(work));
        }
    }

    /// Lets the requests that are under way end, and begins no more.
    ///
    /// # Errors
    /// When a client has panicked.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.office.stopping.store(true, Ordering::Relaxed);
        for task in self.tasks.drain(..) {
            task.await.context("a client")?;
        }
        Ok(())
    }

    /// Who makes the last reads of the set.
    #[must_use]
    pub fn last_reads(&self) -> LastReads {
        LastReads::new(self.office.client(), self.ledgers.clone())
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// What a failed request proves: nothing about a write.
fn unknown(error: &anyhow::Error) -> Outcome {
    Outcome::Unknown(format!("{error:#}"))
}

/// The wall clock, for timestamps of samples.
fn wall_millis() -> i64 {
    Clock::now_millis()
}
