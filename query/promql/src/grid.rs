//! The evaluation times of an expression: `start`, `start + step`, ... up to `end`.

use crate::QueryError;
use serde::{Deserialize, Serialize};
use trefoil_model::Millis;

/// Most points per series that the HTTP API of Prometheus answers.
pub const POINTS_MAX: i64 = 11_000;

/// Evaluation times in milliseconds; both ends inclusive, `step > 0`, never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Grid {
    /// The first time.
    pub start: Millis,
    /// The last time is the greatest `start + n * step` that is not behind `end`.
    pub end: Millis,
    /// Distance of two times.
    pub step: Millis,
}

impl Grid {
    /// The single time of an instant query.
    #[must_use]
    pub fn instant(at: Millis) -> Self {
        Self {
            start: at,
            end: at,
            step: 1,
        }
    }

    /// The times of a range query.
    ///
    /// # Errors
    /// [`QueryError::BadData`] with the texts of Prometheus' HTTP API for a step that is not positive
    /// and an end before the start.
    pub fn range(start: Millis, end: Millis, step: Millis) -> Result<Self, QueryError> {
        if step <= 0 {
            return Err(QueryError::BadData(
                "invalid parameter \"step\": zero or negative query resolution step widths are not \
                 accepted. Try a positive integer"
                    .into(),
            ));
        }
        if end < start {
            return Err(QueryError::BadData(
                "invalid parameter \"end\": end timestamp must not be before start time".into(),
            ));
        }
        Ok(Self { start, end, step })
    }

    /// Refuses a resolution that the HTTP API of Prometheus refuses.
    ///
    /// # Errors
    /// [`QueryError::BadData`] for more than [`POINTS_MAX`] steps.
    pub fn check_resolution(&self) -> Result<(), QueryError> {
        if self.end.saturating_sub(self.start) / self.step > POINTS_MAX {
            return Err(QueryError::BadData(
                "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the \
                 query resolution (?step=XX)"
                    .into(),
            ));
        }
        Ok(())
    }

    /// How many times there are; at least one.
    #[must_use]
    pub fn steps(&self) -> usize {
        (self.end.saturating_sub(self.start) / self.step) as usize + 1
    }

    /// The time with number `index`.
    #[must_use]
    pub fn at(&self, index: usize) -> Millis {
        self.start + index as i64 * self.step
    }

    /// All times, ascending.
    pub fn times(&self) -> impl Iterator<Item = Millis> + use<> {
        let grid = *self;
        (0..grid.steps()).map(move |index| grid.at(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_inclusive() {
        let grid = Grid::range(0, 100, 30).expect("valid");
        assert_eq!(grid.times().collect::<Vec<_>>(), [0, 30, 60, 90]);
        assert_eq!(Grid::instant(7).times().collect::<Vec<_>>(), [7]);
        assert!(Grid::range(0, 1, 0).is_err());
        assert!(Grid::range(1, 0, 1).is_err());
        let fine = Grid::range(0, 11_001, 1).expect("valid");
        assert!(fine.check_resolution().is_err());
    }
}
