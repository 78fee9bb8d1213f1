//! One sample of a series as the protocols bring it: a number or a native histogram, with the time its counter began.
//! And what may stand beside samples: exemplars.

use std::sync::Arc;
use trefoil_model::{Histogram, Labels, Millis};

/// Characters of all names and values of an exemplar's labels together, by OpenMetrics. One with more is left out.
pub(crate) const EXEMPLAR_CHARACTERS_MAX: usize = 128;

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

/// A single observation with labels of its own, mostly the id of a trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    /// Its own labels.
    pub labels: Labels,
    /// What was observed.
    pub value: f64,
    /// When, in milliseconds.
    pub time: Millis,
}

impl Exemplar {
    /// An exemplar of these pairs, in any order; `None` when they are longer than they may be, or one comes twice.
    pub(crate) fn of_pairs<'p>(
        pairs: impl IntoIterator<Item = (&'p str, &'p str)>,
        value: f64,
        time: Millis,
    ) -> Option<Self> {
        let mut pairs: Vec<(&str, &str)> =
            pairs.into_iter().filter(|(_, v)| !v.is_empty()).collect();
        pairs.sort_unstable();
        let characters =
            |(name, value): &(&str, &str)| name.chars().count() + value.chars().count();
        let fits = pairs.iter().map(characters).sum::<usize>() <= EXEMPLAR_CHARACTERS_MAX;
        if !fits || !pairs.is_sorted_by(|a, b| a.0 < b.0) || pairs.iter().any(|p| p.0.is_empty()) {
            return None;
        }
        Some(Self {
            labels: Labels::from_pairs(pairs),
            value,
            time,
        })
    }
}
