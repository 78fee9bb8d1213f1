//! Which faults were in force when.
//!
//! A fault is *in force* from its begin until it is *settled*: undone and every struck node ready again; one
//! whose nodes never became ready lasts to the end of the run.

use crate::history::{Fault, History, Micros, Numbered};

/// A stretch of time, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// When it begins.
    pub from: Micros,
    /// When it ends.
    pub to: Micros,
}

impl Span {
    /// Whether they share a moment.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.from <= other.to && other.from <= self.to
    }
}

/// The faults of a history with the times for which they were in force.
pub struct Timeline<'a> {
    /// By their begin.
    faults: Vec<(Span, &'a Numbered<Fault>)>,
    end: Micros,
}

impl<'a> Timeline<'a> {
    /// Of all faults of a history.
    #[must_use]
    pub fn new(history: &'a History) -> Self {
        let end = history.end();
        let faults = history.faults.iter().map(|fault| {
            let to = fault.recovered.map_or(end, |at| at.max(fault.ended));
            let span = Span {
                from: fault.begun,
                to,
            };
            (span, fault)
        });
        let mut faults: Vec<_> = faults.collect();
        faults.sort_by_key(|(span, fault)| (span.from, fault.line));
        Self { faults, end }
    }

    /// When the run was over.
    #[must_use]
    pub fn end(&self) -> Micros {
        self.end
    }

    /// All faults with the time that each was in force, by their begin.
    #[must_use]
    pub fn faults(&self) -> &[(Span, &'a Numbered<Fault>)] {
        &self.faults
    }

    /// The faults that were in force at some moment of a span.
    pub fn in_force(&self, span: Span) -> impl Iterator<Item = &'a Numbered<Fault>> + '_ {
        let begun = self.faults.partition_point(|(of, _)| of.from <= span.to);
        let begun = self.faults[..begun].iter();
        begun
            .filter(move |(of, _)| of.overlaps(span))
            .map(|(_, fault)| *fault)
    }

    /// The faults that may have caused what was seen in a span: those in force, or else the last one before.
    #[must_use]
    pub fn suspects(&self, span: Span) -> Vec<&'a Numbered<Fault>> {
        let suspects: Vec<_> = self.in_force(span).collect();
        if !suspects.is_empty() {
            return suspects;
        }
        let begun = self.faults.partition_point(|(of, _)| of.from <= span.to);
        let last = self.faults[..begun].iter().max_by_key(|(of, _)| of.to);
        last.map(|(_, fault)| *fault).into_iter().collect()
    }
}
