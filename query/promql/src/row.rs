//! Rows: the values of one series at all times of a grid, as one column.
//!
//! A time without a sample holds the stale marker's bits ([`ABSENT`]). No computation can produce
//! that bit pattern, because it is a signalling NaN and arithmetic only yields quiet ones, and
//! selectors drop stale samples; so it never stands for a value. Native histograms are a second,
//! optional column beside the floats, absent in rows that have none; the float then holds [`HISTOGRAM`].

use crate::budget::ITEM_BYTES;
use crate::pace::{LOOKS_OF_HISTOGRAM, LOOKS_OF_ROW};
use crate::storage::{STALE_MARKER_BITS, is_stale};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use std::ops::Range;
use std::sync::Arc;
use trefoil_model::{Histogram, Labels};

/// What a column holds at a time without a sample.
pub const ABSENT: f64 = f64::from_bits(STALE_MARKER_BITS);

/// What a column holds at a time with a native histogram, which is in the column of histograms beside it.
pub const HISTOGRAM: f64 = f64::from_bits(STALE_MARKER_BITS + 2);

/// Whether `value` marks a time without a sample.
#[inline]
#[must_use]
pub fn is_absent(value: f64) -> bool {
    is_stale(value)
}

/// Whether `value` marks a time with a native histogram.
#[inline]
#[must_use]
pub fn is_histogram(value: f64) -> bool {
    value.to_bits() == HISTOGRAM.to_bits()
}

/// The native histograms beside a column of floats: none at all, or one place for each float. A place counts only
/// where the float is [`HISTOGRAM`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histograms(Vec<Option<Arc<Histogram>>>);

impl Histograms {
    /// Whether there is no place for any.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The histogram at this place of the column.
    #[must_use]
    pub fn at(&self, at: usize) -> Option<&Arc<Histogram>> {
        self.0.get(at).and_then(Option::as_ref)
    }

    /// Puts a histogram to its place.
    pub fn put(&mut self, at: usize, histogram: Arc<Histogram>) {
        if self.0.len() <= at {
            self.0.resize(at + 1, None);
        }
        self.0[at] = Some(histogram);
    }

    /// Forgets all and keeps the memory.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Those at some places, the first of which becomes place 0; none of them: no place.
    pub(crate) fn slice(&self, places: Range<usize>) -> Self {
        let end = places.end.min(self.0.len());
        let slice = self.0.get(places.start.min(end)..end).unwrap_or_default();
        match slice.iter().all(Option::is_none) {
            true => Self::default(),
            false => Self(slice.to_vec()),
        }
    }

    /// Puts all to their places behind `start`.
    pub(crate) fn put_all(&mut self, start: usize, others: &Self) {
        for (at, histogram) in others.0.iter().enumerate() {
            if let Some(histogram) = histogram {
                self.put(start + at, Arc::clone(histogram));
            }
        }
    }

    /// Keeps so many places.
    pub(crate) fn truncate(&mut self, length: usize) {
        self.0.truncate(length);
    }

    /// The memory that the histograms take, about.
    pub(crate) fn bytes(&self) -> usize {
        let all = self.0.iter().flatten();
        size_of_val(self.0.as_slice()) + all.map(|h| h.bytes()).sum::<usize>()
    }

    /// Forgets those that do not count.
    pub(crate) fn tidy(&mut self, values: &[f64]) {
        if self.is_empty() {
            return;
        }
        self.0.resize(values.len(), None);
        for (place, value) in self.0.iter_mut().zip(values) {
            if !is_histogram(*value) {
                *place = None;
            }
        }
        if self.0.iter().all(Option::is_none) {
            self.0.clear();
        }
    }
}

/// Travels as the places that are taken with their histograms.
impl Serialize for Histograms {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let taken = self.0.iter().enumerate();
        let taken = taken.filter_map(|(at, place)| Some((at as u32, place.as_deref()?)));
        taken.collect::<Vec<_>>().serialize(to)
    }
}

impl<'de> Deserialize<'de> for Histograms {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let taken = Vec::<(u32, Histogram)>::deserialize(from)?;
        let mut histograms = Self::default();
        for (at, histogram) in taken {
            if at > PLACES_MAX {
                return Err(D::Error::custom("a histogram is at an impossible place"));
            }
            histograms.put(at as usize, Arc::new(histogram));
        }
        Ok(histograms)
    }
}

/// The last place that a histogram from another node may have: far behind the end of any column.
const PLACES_MAX: u32 = 1 << 24;

/// What a series has at one time.
#[derive(Clone, Debug)]
pub(crate) enum Cell {
    Absent,
    Float(f64),
    Histogram(Arc<Histogram>),
}

/// Values at the times of a grid: floats, and histograms where there are any.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Cells {
    pub(crate) values: Vec<f64>,
    pub(crate) histograms: Histograms,
}

/// The cell of two columns at one time.
#[inline]
pub(crate) fn cell(values: &[f64], histograms: &Histograms, at: usize) -> Cell {
    let value = values[at];
    if is_absent(value) {
        return Cell::Absent;
    }
    if is_histogram(value)
        && let Some(histogram) = histograms.at(at)
    {
        return Cell::Histogram(histogram.clone());
    }
    Cell::Float(value)
}

/// Puts a cell into two columns.
pub(crate) fn put_cell(values: &mut [f64], histograms: &mut Histograms, at: usize, cell: Cell) {
    values[at] = match cell {
        Cell::Absent => ABSENT,
        Cell::Float(value) => value,
        Cell::Histogram(histogram) => {
            histograms.put(at, histogram);
            HISTOGRAM
        }
    };
}

impl Cells {
    pub(crate) fn clear(&mut self) {
        self.values.clear();
        self.histograms.clear();
    }

    pub(crate) fn at(&self, at: usize) -> Cell {
        cell(&self.values, &self.histograms, at)
    }

    pub(crate) fn put(&mut self, at: usize, cell: Cell) {
        put_cell(&mut self.values, &mut self.histograms, at, cell);
    }

    pub(crate) fn push(&mut self, cell: Cell) {
        self.values.push(ABSENT);
        self.put(self.values.len() - 1, cell);
    }

    /// Replaces every cell that is not absent by what `f` makes of it.
    pub(crate) fn map(&mut self, mut f: impl FnMut(usize, Cell) -> Cell) {
        for at in 0..self.values.len() {
            if !is_absent(self.values[at]) {
                let cell = f(at, self.at(at));
                put_cell(&mut self.values, &mut self.histograms, at, cell);
            }
        }
        self.histograms.tidy(&self.values);
    }
}

/// A histogram counts as so many floats as take its memory, a float with its time being one.
pub(crate) fn samples_of(values: &[f64], histograms: &Histograms) -> usize {
    let present = values.iter().filter(|v| !is_absent(**v)).count();
    if histograms.is_empty() {
        return present;
    }
    let places = values.iter().enumerate();
    let counted = places.filter(|(_, value)| is_histogram(**value));
    let sizes = counted.filter_map(|(at, _)| Some(histograms.at(at)?.bytes() / SAMPLE_BYTES));
    present + sizes.sum::<usize>()
}

/// The memory of a float sample with its time.
const SAMPLE_BYTES: usize = 16;

/// One series over the times of a grid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The labels; with `drop_name` the metric name is still among them.
    #[serde(with = "labels_as_bytes")]
    pub labels: Labels,
    /// The name is to be removed at the end of the query (delayed name removal).
    pub drop_name: bool,
    /// One value per time of the grid, [`ABSENT`] where there is no sample, [`HISTOGRAM`] where it is a histogram.
    pub values: Vec<f64>,
    /// The histograms.
    pub histograms: Histograms,
}

impl Row {
    /// A row of floats.
    #[must_use]
    pub fn floats(labels: Labels, drop_name: bool, values: Vec<f64>) -> Self {
        Self {
            labels,
            drop_name,
            values,
            histograms: Histograms::default(),
        }
    }

    /// How many samples the row has, as the budget counts them.
    #[must_use]
    pub fn samples(&self) -> usize {
        samples_of(&self.values, &self.histograms)
    }

    /// What working on all values takes, in [looks](crate::pace::Pace::look).
    pub(crate) fn looks(&self) -> usize {
        let of_value = match self.histograms.is_empty() {
            true => 1,
            false => LOOKS_OF_HISTOGRAM,
        };
        self.values.len() * of_value + LOOKS_OF_ROW
    }

    /// The memory that the row takes, about.
    pub(crate) fn bytes(&self) -> usize {
        row_bytes(&self.labels, self.values.len()) + self.histograms.bytes()
    }

    /// Whether the row has no sample.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.iter().all(|v| is_absent(*v))
    }

    /// What the row has at a time.
    pub(crate) fn at(&self, at: usize) -> Cell {
        cell(&self.values, &self.histograms, at)
    }

    /// Sets what the row has at a time.
    pub(crate) fn put(&mut self, at: usize, cell: Cell) {
        put_cell(&mut self.values, &mut self.histograms, at, cell);
    }

    /// Forgets histograms at times that have none any more.
    pub(crate) fn tidy(&mut self) {
        self.histograms.tidy(&self.values);
    }

    /// Forgets samples that are histograms.
    pub(crate) fn keep_floats(&mut self) {
        if self.histograms.is_empty() {
            return;
        }
        for value in self.values.iter_mut().filter(|v| is_histogram(**v)) {
            *value = ABSENT;
        }
        self.histograms.clear();
    }

    /// Takes the values out, to be worked on.
    pub(crate) fn take_cells(&mut self) -> Cells {
        Cells {
            values: std::mem::take(&mut self.values),
            histograms: std::mem::take(&mut self.histograms),
        }
    }

    /// Puts values back.
    pub(crate) fn set_cells(&mut self, cells: Cells) {
        (self.values, self.histograms) = (cells.values, cells.histograms);
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
