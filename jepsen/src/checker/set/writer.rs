//! What one writer began, what of it was acknowledged when, and all answers about it.

use crate::{
    checker::Span,
    history::{Action, Found, History, Micros, Numbered, Operation, Outcome},
};
use std::collections::BTreeMap;

/// One element.
pub(super) struct Element {
    /// When it was first sent.
    pub(super) begun: Micros,
    /// When it was first acknowledged, and the line that says so.
    pub(super) acknowledged: Option<(Micros, usize)>,
}

/// An answer to a read.
pub(super) struct Answer<'a> {
    /// Its line.
    pub(super) line: usize,
    /// Who answered.
    pub(super) node: usize,
    /// When it was asked for and given.
    pub(super) span: Span,
    /// The asked elements, inclusive.
    pub(super) asked: (u64, u64),
    /// What was found.
    pub(super) found: &'a Found,
}

/// A writer's part of a history.
#[derive(Default)]
pub(super) struct Writer<'a> {
    /// By number.
    pub(super) elements: BTreeMap<u64, Element>,
    /// By the times at which they were asked for.
    pub(super) answers: Vec<Answer<'a>>,
    /// When its last add was answered or given up.
    pub(super) over: Micros,
}

impl<'a> Writer<'a> {
    /// All writers of a history by their names.
    pub(super) fn all(history: &'a History) -> BTreeMap<&'a str, Self> {
        let mut writers: BTreeMap<&str, Self> = BTreeMap::new();
        for operation in &history.operations {
            match (&operation.action, &operation.outcome) {
                (Action::Add { writer, number, .. }, _) => {
                    writers.entry(writer).or_default().add(*number, operation);
                }
                (Action::Read { writer, .. }, Outcome::Found(found)) => {
                    let answer = Answer::new(operation, found);
                    writers.entry(writer).or_default().answers.extend(answer);
                }
                _ => {}
            }
        }
        for writer in writers.values_mut() {
            let order = |answer: &Answer<'_>| (answer.span.from, answer.line);
            writer.answers.sort_by_key(order);
        }
        writers
    }

    fn add(&mut self, number: u64, operation: &Numbered<Operation>) {
        let done = operation.outcome == Outcome::Done;
        let acknowledged = operation.completed.filter(|_| done);
        let acknowledged = acknowledged.map(|at| (at, operation.line));
        let element = self.elements.entry(number).or_insert(Element {
            begun: operation.invoked,
            acknowledged,
        });
        element.begun = element.begun.min(operation.invoked);
        element.acknowledged = match (element.acknowledged, acknowledged) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        let over = operation.completed.unwrap_or(operation.invoked);
        self.over = self.over.max(over);
    }

    /// Acknowledged numbers by their acknowledgements.
    pub(super) fn by_acknowledgement(&self) -> Vec<(Micros, u64)> {
        let elements = self.elements.iter();
        let acknowledged =
            elements.filter_map(|(number, element)| Some((element.acknowledged?.0, *number)));
        sorted(acknowledged.collect())
    }

    /// All numbers by their begins.
    pub(super) fn by_begin(&self) -> Vec<(Micros, u64)> {
        let elements = self.elements.iter();
        sorted(elements.map(|(number, e)| (e.begun, *number)).collect())
    }
}

impl<'a> Answer<'a> {
    /// None for an answer that never came.
    fn new(operation: &Numbered<Operation>, found: &'a Found) -> Option<Self> {
        let Action::Read { first, last, .. } = &operation.action else {
            return None;
        };
        let (from, to) = (operation.invoked, operation.completed?);
        Some(Self {
            line: operation.line,
            node: operation.node,
            span: Span { from, to },
            asked: (*first, *last),
            found,
        })
    }
}

fn sorted(mut numbers: Vec<(Micros, u64)>) -> Vec<(Micros, u64)> {
    numbers.sort_unstable();
    numbers
}
