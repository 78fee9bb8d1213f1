//! Runs test files in the format of Prometheus' `promqltest`.
//!
//! Format and rules: Prometheus, `promql/promqltest/README.md`. Every instant evaluation is run as it is,
//! as the middle of a range query of three steps, and with `@` on all selectors at other times. Any place that takes samples and answers queries can be under test: see [`Target`].

mod check;
mod histogram;
mod run;
mod script;
mod sequence;

use crate::{QueryError, Sample, Source};
use trefoil_model::Labels;

pub use run::{Failure, Report, run};

/// What a test file is run against.
pub trait Target {
    /// Forgets all samples.
    ///
    /// # Errors
    /// When it cannot; the run ends.
    fn clear(&mut self) -> Result<(), QueryError>;

    /// Takes the samples of a series, ascending by time.
    ///
    /// # Errors
    /// When it cannot; the run ends.
    fn load(&mut self, labels: &Labels, samples: &[Sample]) -> Result<(), QueryError>;

    /// Answers from everything that was loaded.
    fn source(&self) -> &dyn Source;
}

impl Target for crate::MemorySource {
    fn clear(&mut self) -> Result<(), QueryError> {
        Self::clear(self);
        Ok(())
    }

    fn load(&mut self, labels: &Labels, samples: &[Sample]) -> Result<(), QueryError> {
        for sample in samples {
            self.append(labels, sample);
        }
        Ok(())
    }

    fn source(&self) -> &dyn Source {
        self
    }
}
