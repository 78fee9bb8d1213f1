//! What happened in a run, as JSON lines: the only thing that checkers and reports see.
//!
//! A history begins with one [`Line::Run`]. Then follow operations, each written when it is over, faults, each
//! written when it ended, and comparisons of replicas; so lines are in the order of their ends. Times are microseconds
//! since the run began, on one monotonic clock. An operation that had not ended when the run did has no
//! `completed`; nobody knows what became of it.

use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io::{BufRead, BufReader, BufWriter, Write},
    ops::Deref,
    path::Path,
};

/// Microseconds since the run began.
pub type Micros = u64;

/// One line of a history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// What was asked for; the first line.
    Run(Run),
    /// A client's request.
    Operation(Operation),
    /// A disturbance of nodes, links, disks or clocks.
    Fault(Fault),
    /// A comparison of all replicas' content, made while no fault was in force and nothing was written.
    Digests(Digests),
}

/// What a run was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Decides which faults come when, and what clients do.
    pub seed: u64,
    /// Names of the nodes; operations and faults name them by their position.
    pub nodes: Vec<String>,
    /// Workloads that ran: `set`, `register`.
    pub workloads: Vec<String>,
    /// Kinds of faults that were asked for, as [`Fault::kind`] names them.
    pub faults: Vec<String>,
    /// How long clients were to work, microseconds.
    pub duration: Micros,
    /// Which hosts the nodes had: `namespaces`, `loopback`.
    pub hosts: String,
}

/// One request of one client to one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Operation {
    /// The client; it has one operation under way at a time.
    pub client: u32,
    /// The node that was asked, from 0.
    pub node: usize,
    /// When it was sent.
    pub invoked: Micros,
    /// When its answer was there, or was given up.
    pub completed: Option<Micros>,
    /// What was asked.
    pub action: Action,
    /// What became of it.
    pub outcome: Outcome,
}

/// What a client asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Workload `set`: adds element `number` of `writer`: one sample for each of its `series`, all at
    /// one time, which is higher for higher numbers.
    Add {
        /// Who numbers them.
        writer: String,
        /// Its number, from 0.
        number: u64,
        /// Samples that it consists of.
        series: u32,
    },
    /// Workload `set`: reads elements `first..=last` of a writer, in a run's last reads all that it ever
    /// wrote (`first` 0, `last` its greatest number).
    Read {
        /// Whose.
        writer: String,
        /// The lowest number whose time is inside the asked range.
        first: u64,
        /// The highest.
        last: u64,
    },
    /// Workload `register`: reads a key, linearizably.
    Get {
        /// The key.
        key: String,
    },
    /// Workload `register`: puts `new` if the key holds `expected` (none: if it does not exist).
    CompareAndSet {
        /// The key.
        key: String,
        /// What it must hold.
        expected: Option<u64>,
        /// What it holds afterwards.
        new: u64,
    },
}

/// What became of an operation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It took effect: the write was acknowledged, the condition held.
    Done,
    /// The elements that were read.
    Found(Found),
    /// What the key held; none: it did not exist.
    Value(Option<u64>),
    /// A compare-and-set whose condition did not hold: nothing changed.
    Mismatch,
    /// The answer was an error that says that nothing was changed or answered and why (503 before it was tried, for
    /// example). A write may still have been stored: telemetry has no third answer, so checkers take a
    /// failed write as [`Outcome::Unknown`].
    Failed(String),
    /// No answer, or one that leaves it open.
    Unknown(String),
}

/// The answer to a read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Numbers of elements that were there with all their samples, as ascending inclusive ranges.
    pub whole: Vec<(u64, u64)>,
    /// Numbers of elements that were there with some of their samples.
    pub partial: Vec<u64>,
    /// Samples that belong to no element that was ever begun, or to another time or series than they stood at; at most
    /// a few of them, in words.
    pub strange: Vec<String>,
    /// Whether the answer said itself that it is incomplete. It is then no violation if something is missing.
    pub declared_incomplete: bool,
}

/// A disturbance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// Which kind: `partition-one`, `kill-all`, and so on.
    pub kind: String,
    /// Nodes that it strikes, from 0.
    pub nodes: Vec<usize>,
    /// When it was begun.
    pub begun: Micros,
    /// When it was undone: links healed, processes started again, disks whole.
    pub ended: Micros,
    /// When every struck node said that it was ready again; none: it did not within the harness' patience.
    pub recovered: Option<Micros>,
    /// What was done, in words: which links, which bytes.
    pub details: String,
    /// Proof that it really struck: packets dropped, processes ended, bytes changed. A fault with 0 did not happen.
    pub struck: u64,
}

/// A comparison of all replicas at rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digests {
    /// When the last fault was over and the last write answered.
    pub rest_since: Micros,
    /// When all replicas were found equal; none: they were not within the harness' patience.
    pub equal_at: Option<Micros>,
    /// How many pieces of content were compared.
    pub compared: u64,
    /// What differed at the last look, in words.
    pub unequal: Vec<String>,
}

/// Appends lines to a file.
pub struct Recorder {
    file: BufWriter<File>,
}

impl Recorder {
    /// A new history file in place of what was there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self {
            file: BufWriter::new(file),
        })
    }

    /// Appends a line.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn record(&mut self, line: &Line) -> anyhow::Result<()> {
        serde_json::to_writer(&mut self.file, line).context("write a line of the history")?;
        self.file
            .write_all(b"\n")
            .context("write a line of the history")
    }

    /// Hands everything to the file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn flush(&mut self) -> anyhow::Result<()> {
        self.file.flush().context("write the history")
    }
}

/// Something with the number of its line, so that a person finds it.
#[derive(Clone, Debug, PartialEq)]
pub struct Numbered<T> {
    /// From 1.
    pub line: usize,
    /// What stands there.
    pub item: T,
}

impl<T> Deref for Numbered<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.item
    }
}

/// A whole history.
#[derive(Clone, Debug, PartialEq)]
pub struct History {
    /// What was asked for.
    pub run: Run,
    /// All operations, in the order of their lines.
    pub operations: Vec<Numbered<Operation>>,
    /// All faults, in the order of their lines.
    pub faults: Vec<Numbered<Fault>>,
    /// All comparisons, in the order of their lines.
    pub digests: Vec<Numbered<Digests>>,
}

impl History {
    /// Reads a file of JSON lines.
    ///
    /// # Errors
    /// When it cannot be read, a line is none of [`Line`] (with its number), or the first line is no
    /// [`Line::Run`].
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        Self::from_lines(BufReader::new(file))
    }

    /// As [`History::read`], from any text.
    ///
    /// # Errors
    /// As [`History::read`].
    pub fn from_lines(text: impl BufRead) -> anyhow::Result<Self> {
        let mut lines = text.lines().enumerate().map(|(number, text)| {
            let place = || format!("line {} of the history", number + 1);
            let text = text.with_context(place)?;
            serde_json::from_str(&text).with_context(place)
        });
        let Some(Line::Run(run)) = lines.next().transpose()? else {
            anyhow::bail!("a history begins with what was asked for");
        };
        let mut history = Self {
            run,
            operations: Vec::new(),
            faults: Vec::new(),
            digests: Vec::new(),
        };
        for (before, text) in lines.enumerate() {
            // The first line is taken already.
            let line = before + 2;
            match text? {
                Line::Run(_) => {
                    anyhow::bail!("a history has one line that says what was asked for")
                }
                Line::Operation(item) => history.operations.push(Numbered { line, item }),
                Line::Fault(item) => history.faults.push(Numbered { line, item }),
                Line::Digests(item) => history.digests.push(Numbered { line, item }),
            }
        }
        Ok(history)
    }

    /// The latest time that any line names: when the run was over.
    #[must_use]
    pub fn end(&self) -> Micros {
        let operations = self
            .operations
            .iter()
            .map(|operation| operation.completed.unwrap_or(operation.invoked));
        let faults = self
            .faults
            .iter()
            .map(|fault| fault.recovered.unwrap_or(fault.ended).max(fault.ended));
        let digests = self
            .digests
            .iter()
            .map(|digests| digests.equal_at.unwrap_or(digests.rest_since));
        operations.chain(faults).chain(digests).max().unwrap_or(0)
    }

    /// The name of a node, as the run gave it.
    #[must_use]
    pub fn node_name(&self, node: usize) -> &str {
        self.run.nodes.get(node).map_or("no such node", |name| name)
    }
}

impl Operation {
    /// The workload that it belongs to.
    #[must_use]
    pub fn workload(&self) -> &'static str {
        match self.action {
            Action::Add { .. } | Action::Read { .. } => "set",
            Action::Get { .. } | Action::CompareAndSet { .. } => "register",
        }
    }

    /// Whether the client got what it asked for: an acknowledgement or an answer that does not call itself
    /// incomplete. A compare-and-set that found another value is answered, too.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        let answered = match &self.outcome {
            Outcome::Done | Outcome::Value(_) | Outcome::Mismatch => true,
            Outcome::Found(found) => !found.declared_incomplete,
            Outcome::Failed(_) | Outcome::Unknown(_) => false,
        };
        answered && self.completed.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_they_were_written() {
        let run = Run {
            seed: 7,
            nodes: vec!["node-1".to_owned()],
            workloads: vec!["set".to_owned()],
            faults: vec!["kill-one".to_owned()],
            duration: 1_000_000,
            hosts: "loopback".to_owned(),
        };
        let operation = Operation {
            client: 3,
            node: 0,
            invoked: 10,
            completed: Some(30),
            action: Action::Read {
                writer: "w".to_owned(),
                first: 0,
                last: 9,
            },
            outcome: Outcome::Found(Found {
                whole: vec![(0, 4), (6, 9)],
                ..Found::default()
            }),
        };
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("history.jsonl");
        let mut recorder = Recorder::create(&path).expect("a file");
        for line in [Line::Run(run.clone()), Line::Operation(operation.clone())] {
            recorder.record(&line).expect("a line");
        }
        recorder.flush().expect("all of it");
        let history = History::read(&path).expect("a history");
        let numbered = Numbered {
            line: 2,
            item: operation,
        };
        assert_eq!((history.run, history.operations), (run, vec![numbered]));
        let text = "{\"operation\":1}\n";
        assert!(History::from_lines(text.as_bytes()).is_err());
    }
}
