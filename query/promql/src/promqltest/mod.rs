//! Runs test files in the format of Prometheus' `promqltest`.
//!
//! Format and rules: Prometheus, `promql/promqltest/README.md`. Every instant evaluation is run as it is,
//! as the middle of a range query of three steps, and with `@` on all selectors at other times. Evaluations
//! that touch native histograms or start timestamps, which the engine does not have yet, are counted as
//! unsupported. Any place that takes samples and answers queries can be under test: see [`Target`].

mod check;
mod run;
mod script;
mod sequence;

use crate::{QueryError, Source};
use trefoil_model::{Labels, Millis};

pub use run::{Failure, Report, run};

/// What a test file is run against.
pub trait Target {
    /// Forgets all samples.
    ///
    /// # Errors
    /// When it cannot; the run ends.
    fn clear(&mut self) -> Result<(), QueryError>;

    /// Takes the samples of a series.
    ///
    /// # Errors
    /// When it cannot; the run ends.
    fn load(&mut self, labels: &Labels, samples: &[(Millis, f64)]) -> Result<(), QueryError>;

    /// Answers from everything that was loaded.
    fn source(&self) -> &dyn Source;
}

impl Target for crate::MemorySource {
    fn clear(&mut self) -> Result<(), QueryError> {
        Self::clear(self);
        Ok(())
    }

    fn load(&mut self, labels: &Labels, samples: &[(Millis, f64)]) -> Result<(), QueryError> {
        for (time, value) in samples {
            self.insert(labels, *time, *value);
        }
        Ok(())
    }

    fn source(&self) -> &dyn Source {
        self
    }
}
