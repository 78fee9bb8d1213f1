//! One sample of a series as the protocols bring it: a number or a native histogram, with the time its counter began.

use std::sync::Arc;
use trefoil_model::{Histogram, Millis};

/// A sample on its way in.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// When it was taken, in milliseconds.
    pub time: Millis,
    /// When its counter began, in milliseconds; 0 when the sender does not say.
    pub start: Millis,
    /// What was measured.
    pub value: SampleValue,
}

/// What a sample holds.
#[derive(Clone, Debug, PartialEq)]
pub enum SampleValue {
    /// A number, or the stale marker.
    Float(f64),
    /// A native histogram that passed [`Histogram::check`]. One whose sum is the stale marker ends its series, as that
    /// number does.
    Histogram(Arc<Histogram>),
}

impl Sample {
    /// A number whose counter's beginning is not known.
    #[must_use]
    pub fn float(time: Millis, value: f64) -> Self {
        Self {
            time,
            start: 0,
            value: SampleValue::Float(value),
        }
    }
}
