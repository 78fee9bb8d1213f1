//! Rows: the values of one series at all times of a grid, as one column.
//!
//! A time without a sample holds the stale marker's bits ([`ABSENT`]). No computation can produce
//! that bit pattern, because it is a signalling NaN and arithmetic only yields quiet ones, and
//! selectors drop stale samples; so it never stands for a value. Native histograms will be a second,
//! optional column beside the floats, absent in rows that have none.

use crate::budget::ITEM_BYTES;
use crate::storage::{STALE_NAN_BITS, is_stale};
use serde::{Deserialize, Serialize};
use trefoil_model::Labels;

/// What a column holds at a time without a sample.
pub const ABSENT: f64 = f64::from_bits(STALE_NAN_BITS);

/// Whether `value` marks a time without a sample.
#[inline]
#[must_use]
pub fn is_absent(value: f64) -> bool {
    is_stale(value)
}

/// One series over the times of a grid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The labels; with `drop_name` the metric name is still among them.
    #[serde(with = "labels_as_bytes")]
    pub labels: Labels,
    /// The name is to be removed at the end of the query (delayed name removal).
    pub drop_name: bool,
    /// One value per time of the grid, [`ABSENT`] where there is no sample.
    pub values: Vec<f64>,
}

impl Row {
    /// How many samples the row has.
    #[must_use]
    pub fn samples(&self) -> usize {
        self.values.iter().filter(|v| !is_absent(**v)).count()
    }

    /// The memory that the row takes, about.
    pub(crate) fn bytes(&self) -> usize {
        row_bytes(&self.labels, self.values.len())
    }

    /// Whether the row has no sample.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.iter().all(|v| is_absent(*v))
    }
}

/// The memory that a row takes, about.
pub(crate) fn row_bytes(labels: &Labels, values: usize) -> usize {
    ITEM_BYTES + labels.canonical().len() + values * size_of::<f64>()
}

/// Carries [`Labels`] as their canonical bytes; malformed ones are refused when read.
pub(crate) mod labels_as_bytes {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
    use trefoil_model::Labels;

    pub(crate) fn serialize<S: Serializer>(labels: &Labels, to: S) -> Result<S::Ok, S::Error> {
        labels.canonical().serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Labels, D::Error> {
        let bytes = Vec::<u8>::deserialize(from)?;
        Labels::from_canonical(&bytes).map_err(D::Error::custom)
    }
}
