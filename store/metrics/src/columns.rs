//! A series' samples in memory: timestamps and values side by side.

use crate::value::prefer;
use trefoil_model::Millis;

/// Timestamps and as many values.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Column {
    pub(crate) timestamps: Vec<Millis>,
    pub(crate) values: Vec<f64>,
}

impl Column {
    pub(crate) fn clear(&mut self) {
        self.timestamps.clear();
        self.values.clear();
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.timestamps.is_empty()
    }

    pub(crate) fn push(&mut self, time: Millis, value: f64) {
        self.timestamps.push(time);
        self.values.push(value);
    }

    pub(crate) fn extend(&mut self, timestamps: &[Millis], values: &[f64]) {
        self.timestamps.extend_from_slice(timestamps);
        self.values.extend_from_slice(values);
    }

    /// Brings samples into order of time, with one value, the preferred one, per timestamp.
    pub(crate) fn normalize(&mut self) {
        if self.timestamps.is_sorted_by(|a, b| a < b) {
            return;
        }
        let mut samples: Vec<(Millis, f64)> = self
            .timestamps
            .iter()
            .copied()
            .zip(self.values.iter().copied())
            .collect();
        samples.sort_by_key(|(time, _)| *time);
        self.clear();
        for (time, value) in samples {
            match self.timestamps.last() {
                Some(last) if *last == time => {
                    let kept = self.values.len() - 1;
                    self.values[kept] = prefer(self.values[kept], value);
                }
                _ => self.push(time, value),
            }
        }
    }
}
