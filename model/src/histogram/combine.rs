//! Adding and subtracting histograms.

use super::{Buckets, Histogram, ResetHint};
use crate::ModelError;
use std::borrow::Cow;

/// What happened when two histograms were combined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Combined {
    /// Their custom bounds differed, and only those that both have were kept.
    pub bounds_reconciled: bool,
    /// One had been reset and the other had not, so that the result's hint means nothing.
    pub resets_collide: bool,
}

impl Histogram {
    /// Adds `other`.
    ///
    /// # Errors
    /// [`ModelError::HistogramKinds`] when only one has custom buckets; nothing has changed.
    pub fn add(&mut self, other: &Self) -> Result<Combined, ModelError> {
        self.combine(other, 1.0)
    }

    /// Subtracts `other`.
    ///
    /// # Errors
    /// As for [`Histogram::add`].
    pub fn subtract(&mut self, other: &Self) -> Result<Combined, ModelError> {
        self.combine(other, -1.0)
    }

    fn combine(&mut self, other: &Self, sign: f64) -> Result<Combined, ModelError> {
        let (other, bounds_reconciled) = self.meet(other)?;
        self.zero_count += sign * other.zero_count;
        self.count += sign * other.count;
        self.sum += sign * other.sum;
        let add = |own: &mut Buckets, other: &Buckets| {
            own.list_also(other);
            own.each_of(other, |_, own, count| *own += sign * count);
        };
        add(&mut self.positive, &other.positive);
        add(&mut self.negative, &other.negative);
        Ok(Combined {
            bounds_reconciled,
            resets_collide: self.combine_hints(other.reset_hint),
        })
    }

    /// Brings both to one layout. Returns `other` in it, and whether custom bounds were dropped.
    pub(super) fn meet<'h>(
        &mut self,
        other: &'h Self,
    ) -> Result<(Cow<'h, Self>, bool), ModelError> {
        let Some((layout, bounds_reconciled)) = self.common_layout(other)? else {
            return Ok((Cow::Borrowed(other), false));
        };
        self.lay_out(&layout);
        let mut other = other.clone();
        other.lay_out(&layout);
        Ok((Cow::Owned(other), bounds_reconciled))
    }

    /// The hint of a combination: a gauge makes a gauge, what is not known stays so. Returns whether hints collide.
    pub(super) fn combine_hints(&mut self, other: ResetHint) -> bool {
        use ResetHint::{Gauge, Unknown};
        let collide = match (self.reset_hint, other) {
            (own, other) if own == other => return false,
            (Gauge, _) | (_, Gauge) => {
                self.reset_hint = Gauge;
                return false;
            }
            (Unknown, _) | (_, Unknown) => false,
            _ => true,
        };
        self.reset_hint = Unknown;
        collide
    }
}
