//! Judges histories: pure functions from a [`History`] to what is wrong with it. Nothing here runs a node, reads a
//! clock or knows how a history came about, so every rule is tested with histories that it must reject.
//!
//! | checker | rejects |
//! |---|---|
//! | [`form`] | histories that no harness can have meant: a mistake of the harness must not pass as a promise kept |
//! | [`set`] | lost, phantom and silently missing elements, and nodes without last reads |
//! | [`register`] | compare-and-set registers that no order of the operations explains |
//! | [`digests`] | replicas that do not agree in time after the last fault |
//! | [`availability`] | error windows where the promises leave no room for errors |
//! | [`coverage`] | runs that did too little to prove anything |
//!
//! [`Verdict`] holds all of them and the table of a run.

pub mod availability;
pub mod coverage;
pub mod digests;
pub mod form;
mod ranges;
pub mod register;
pub mod set;
mod timeline;
mod verdict;

pub use timeline::{Span, Timeline};
pub use verdict::{Row, Verdict, check, check_file};

use crate::history::Micros;
use serde::Serialize;
use std::fmt;

/// Violations of one checker that are kept in words. More are counted: the first ones tell the story.
pub const VIOLATIONS_KEPT_MAX: usize = 20;

/// Something that a history shows and that must not be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// The checker that found it, `set` for example.
    pub checker: &'static str,
    /// A sentence that names lines of the history where there are any.
    pub text: String,
    /// When it was seen, microseconds since the run began; none: it concerns the whole run.
    pub at: Option<Micros>,
}

/// What one checker found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violations {
    checker: &'static str,
    kept: Vec<Violation>,
    count: u64,
}

impl Violations {
    /// None so far.
    #[must_use]
    pub fn none(checker: &'static str) -> Self {
        Self {
            checker,
            kept: Vec::new(),
            count: 0,
        }
    }

    /// Adds one; its words are made only if they are kept.
    pub fn push<T: Into<String>>(&mut self, at: Option<Micros>, text: impl FnOnce() -> T) {
        self.count += 1;
        if self.kept.len() < VIOLATIONS_KEPT_MAX {
            self.kept.push(Violation {
                checker: self.checker,
                text: text().into(),
                at,
            });
        }
    }

    /// How many there were, also of those that are not kept.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The first ones.
    #[must_use]
    pub fn kept(&self) -> &[Violation] {
        &self.kept
    }
}

/// A time of a run for a person: seconds with milliseconds.
pub(crate) struct Seconds(pub(crate) Micros);

impl fmt::Display for Seconds {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:.3} s", self.0 as f64 / 1e6)
    }
}

#[cfg(test)]
mod tests;
