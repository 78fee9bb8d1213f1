//! Sums of many histograms that carry their rounding errors.

use super::{Buckets, Combined, Histogram};
use crate::{ModelError, add_compensated};
use serde::{Deserialize, Serialize};

/// A sum of histograms in the making.
///
/// `lost` lists the same buckets as `total`, in the same layout, and holds what rounding took from each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "(Histogram, Histogram)", into = "(Histogram, Histogram)")]
pub struct HistogramSum {
    total: Histogram,
    lost: Histogram,
}

impl From<HistogramSum> for (Histogram, Histogram) {
    fn from(sum: HistogramSum) -> Self {
        (sum.total, sum.lost)
    }
}

impl TryFrom<(Histogram, Histogram)> for HistogramSum {
    type Error = ModelError;

    fn try_from((total, lost): (Histogram, Histogram)) -> Result<Self, ModelError> {
        let same = total.layout() == lost.layout()
            && total.positive.indexes() == lost.positive.indexes()
            && total.negative.indexes() == lost.negative.indexes();
        if !same {
            return Err(ModelError::Histogram(
                "a sum of histograms and its rounding errors differ in shape",
            ));
        }
        Ok(Self { total, lost })
    }
}

impl HistogramSum {
    /// The sum of one histogram.
    #[must_use]
    pub fn new(first: Histogram) -> Self {
        let mut lost = first.clone();
        lost.each_value(|_| 0.0);
        Self { total: first, lost }
    }

    /// The memory that the sum takes, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.total.bytes() + self.lost.bytes()
    }

    /// Adds a histogram.
    ///
    /// # Errors
    /// [`ModelError::HistogramKinds`] when only one has custom buckets; nothing has changed.
    pub fn add(&mut self, other: &Histogram) -> Result<Combined, ModelError> {
        let (other, bounds_reconciled) = self.total.meet(other)?;
        self.lost.lay_out(&self.total.layout());
        let (total, lost) = (&mut self.total, &mut self.lost);
        add_compensated(
            &mut total.zero_count,
            &mut lost.zero_count,
            other.zero_count,
        );
        add_compensated(&mut total.count, &mut lost.count, other.count);
        add_compensated(&mut total.sum, &mut lost.sum, other.sum);
        add_buckets(&mut total.positive, &mut lost.positive, &other.positive);
        add_buckets(&mut total.negative, &mut lost.negative, &other.negative);
        Ok(Combined {
            bounds_reconciled,
            resets_collide: total.combine_hints(other.reset_hint),
        })
    }

    /// Adds another sum.
    ///
    /// # Errors
    /// As for [`HistogramSum::add`].
    pub fn merge(&mut self, other: &Self) -> Result<Combined, ModelError> {
        let combined = self.add(&other.total)?;
        let mut lost = other.lost.clone();
        lost.lay_out(&self.total.layout());
        // Both have one layout now, so this cannot fail.
        self.lost.add(&lost)?;
        Ok(combined)
    }

    /// The sum's value, without empty buckets.
    #[must_use]
    pub fn finish(self) -> Histogram {
        let Self { mut total, lost } = self;
        total.zero_count += lost.zero_count;
        total.count += lost.count;
        total.sum += lost.sum;
        total
            .positive
            .each_of(&lost.positive, |_, own, lost| *own += lost);
        total
            .negative
            .each_of(&lost.negative, |_, own, lost| *own += lost);
        total.compact();
        total
    }
}

fn add_buckets(total: &mut Buckets, lost: &mut Buckets, other: &Buckets) {
    total.list_also(other);
    lost.list_also(other);
    let lost = lost.counts_mut();
    total.each_of(other, |at, own, count| {
        add_compensated(own, &mut lost[at], count);
    });
}
