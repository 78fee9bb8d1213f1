//! Builds histories. Times are milliseconds; lines are numbered in the order of the calls, from 2 on. Every
//! operation has a client of its own unless it is told.

use crate::history::{
    Action, Digests, Fault, Found, History, Micros, Numbered, Operation, Outcome, Run,
};

/// Milliseconds as the history counts.
pub(super) const MS: Micros = 1000;

/// A history of three nodes, under construction.
pub(super) struct Build {
    pub(super) history: History,
    lines: usize,
}

/// When an operation was sent and answered, milliseconds; none: never.
pub(super) struct At(pub(super) Micros, pub(super) Option<Micros>);

impl From<(Micros, Micros)> for At {
    fn from((from, to): (Micros, Micros)) -> Self {
        Self(from, Some(to))
    }
}

impl Build {
    pub(super) fn new(workload: &str) -> Self {
        let run = Run {
            seed: 7,
            nodes: ["node-1", "node-2", "node-3"].map(str::to_owned).to_vec(),
            workloads: vec![workload.to_owned()],
            faults: Vec::new(),
            duration: 1_000 * MS,
            hosts: "loopback".to_owned(),
        };
        Self {
            history: History {
                run,
                operations: Vec::new(),
                faults: Vec::new(),
                digests: Vec::new(),
            },
            lines: 1,
        }
    }

    fn line(&mut self) -> usize {
        self.lines += 1;
        self.lines
    }

    pub(super) fn operation(
        &mut self,
        node: usize,
        at: impl Into<At>,
        action: Action,
        outcome: Outcome,
    ) -> &mut Operation {
        let line = self.line();
        let At(from, to) = at.into();
        let item = Operation {
            client: line as u32,
            node,
            invoked: from * MS,
            completed: to.map(|to| to * MS),
            action,
            outcome,
        };
        self.history.operations.push(Numbered { line, item });
        let last = self.history.operations.last_mut();
        &mut last.expect("just pushed").item
    }

    /// An add of writer `w` at the first node.
    pub(super) fn add(&mut self, number: u64, at: impl Into<At>, outcome: Outcome) -> &mut Self {
        let action = Action::Add {
            writer: "w".to_owned(),
            number,
            series: 4,
        };
        self.operation(0, at, action, outcome);
        self
    }

    /// A read of writer `w` that found these ranges whole.
    pub(super) fn read(
        &mut self,
        node: usize,
        at: impl Into<At>,
        (first, last): (u64, u64),
        whole: &[(u64, u64)],
    ) -> &mut Found {
        let action = Action::Read {
            writer: "w".to_owned(),
            first,
            last,
        };
        let found = Outcome::Found(Found {
            whole: whole.to_vec(),
            ..Found::default()
        });
        match &mut self.operation(node, at, action, found).outcome {
            Outcome::Found(found) => found,
            _ => unreachable!("a read was just made"),
        }
    }

    /// A last read of all three nodes that found these ranges.
    pub(super) fn last_reads(&mut self, at: (Micros, Micros), last: u64, whole: &[(u64, u64)]) {
        for node in 0..3 {
            self.read(node, at, (0, last), whole);
        }
    }

    /// A fault that was settled when it ended.
    pub(super) fn fault(
        &mut self,
        kind: &str,
        nodes: &[usize],
        (begun, ended): (Micros, Micros),
    ) -> &mut Fault {
        let line = self.line();
        let item = Fault {
            kind: kind.to_owned(),
            nodes: nodes.to_vec(),
            begun: begun * MS,
            ended: ended * MS,
            recovered: Some(ended * MS),
            details: String::new(),
            struck: 1,
        };
        self.history.faults.push(Numbered { line, item });
        let last = self.history.faults.last_mut();
        &mut last.expect("just pushed").item
    }

    /// A comparison of nine pieces that found them equal.
    pub(super) fn digests(&mut self, rest_since: Micros, equal_at: Micros) -> &mut Digests {
        let line = self.line();
        let item = Digests {
            rest_since: rest_since * MS,
            equal_at: Some(equal_at * MS),
            compared: 9,
            unequal: Vec::new(),
        };
        self.history.digests.push(Numbered { line, item });
        let last = self.history.digests.last_mut();
        &mut last.expect("just pushed").item
    }
}

/// An answer that leaves it open.
pub(super) fn unknown() -> Outcome {
    Outcome::Unknown("timed out".to_owned())
}

/// A refusal.
pub(super) fn failed() -> Outcome {
    Outcome::Failed("503".to_owned())
}
