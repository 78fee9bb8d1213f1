//! Functions of a range of samples among which are native histograms.
//!
//! Which function takes which kind of samples, and what is said about mixtures, follows Prometheus' documentation.

use super::{
    extended::ExtendedWindow,
    window::{self, Window, extrapolation, starts_anew},
};
use crate::{
    Span,
    ast::Extension,
    function::WindowFunction,
    note::{ADDITION, AGGREGATION, Note, Notes, SUBTRACTION},
    row::{Cell, Histograms, cell, is_histogram},
};
use std::sync::Arc;
use trefoil_model::{
    Histogram, Millis, ModelError, ResetHint,
    histogram::{Combined, HistogramSum},
};

/// By which histograms are scaled before they are added for a mean, so that the sum cannot overflow: a power of two,
/// which costs no precision, and more than there can be samples.
pub(crate) const MEAN_SCALE: f64 = 4_294_967_296.0;

/// A window and the histograms among its samples.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MixedWindow<'a> {
    pub(crate) window: Window<'a>,
    /// Those of the series; the window's first sample is at `first`.
    pub(crate) histograms: &'a Histograms,
    pub(crate) first: usize,
    /// Where the range vector stands in the query.
    pub(crate) span: Span,
}

impl<'a> MixedWindow<'a> {
    fn cell(&self, at: usize) -> Cell {
        let values = self.window.values;
        match self.histograms.at(self.first + at) {
            Some(histogram) if is_histogram(values[at]) => Cell::Histogram(histogram.clone()),
            _ => Cell::Float(values[at]),
        }
    }

    fn histogram(&self, at: usize) -> Option<&'a Arc<Histogram>> {
        self.histograms.at(self.first + at)
    }

    fn all(&self) -> Vec<&'a Histogram> {
        let places = 0..self.window.values.len();
        places
            .filter_map(|at| self.histogram(at))
            .map(|histogram| &**histogram)
            .collect()
    }
}

/// The function's value over a window with at least one histogram.
pub(crate) fn apply(
    function: WindowFunction,
    mixed: &MixedWindow<'_>,
    notes: &mut Notes,
) -> Option<Cell> {
    use WindowFunction as F;
    let values = mixed.window.values;
    let last = values.len() - 1;
    let has_floats = values.iter().any(|value| !is_histogram(*value));
    match function {
        F::CountOverTime | F::PresentOverTime | F::TsOfFirstOverTime | F::TsOfLastOverTime => {
            window::apply(function, &mixed.window).map(Cell::Float)
        }
        F::FirstOverTime => Some(mixed.cell(0)),
        F::LastOverTime => Some(mixed.cell(last)),
        F::Changes => Some(Cell::Float(count_pairs(mixed, changed))),
        F::Resets => {
            let resets = (1..=last).filter(|at| is_reset(mixed, *at));
            Some(Cell::Float(resets.count() as f64))
        }
        F::Irate | F::Idelta => last_two(function == F::Irate, mixed, notes),
        F::Rate | F::Increase | F::Delta | F::SumOverTime | F::AvgOverTime if has_floats => {
            notes.add(Note::MixedTypes, mixed.span);
            None
        }
        F::Rate | F::Increase | F::Delta => {
            extrapolated(function != F::Delta, function == F::Rate, mixed, notes)
        }
        F::SumOverTime => total(mixed, 1.0, notes),
        F::AvgOverTime => total(mixed, values.len() as f64, notes),
        _ if has_floats => {
            notes.add(Note::IgnoredInRange, mixed.span);
            let floats = || (0..=last).filter(|at| !is_histogram(values[*at]));
            let timestamps: Vec<_> = floats().map(|at| mixed.window.timestamps[at]).collect();
            let values: Vec<_> = floats().map(|at| values[at]).collect();
            let window = Window {
                timestamps: &timestamps,
                values: &values,
                ..mixed.window
            };
            window::apply(function, &window).map(Cell::Float)
        }
        _ => None,
    }
}

fn count_pairs(mixed: &MixedWindow<'_>, counts: impl Fn(&Cell, &Cell) -> bool) -> f64 {
    let pairs = 1..mixed.window.values.len();
    pairs
        .filter(|at| counts(&mixed.cell(at - 1), &mixed.cell(*at)))
        .count() as f64
}

/// Whether two samples in sequence differ.
pub(crate) fn changed(before: &Cell, after: &Cell) -> bool {
    match (before, after) {
        (Cell::Float(a), Cell::Float(b)) => a != b && !(a.is_nan() && b.is_nan()),
        (Cell::Histogram(a), Cell::Histogram(b)) => !a.same_content(b),
        _ => true,
    }
}

/// Whether a counter was reset between two samples in sequence; another kind of sample is a reset.
pub(crate) fn reset(before: &Cell, after: &Cell) -> bool {
    match (before, after) {
        (Cell::Float(a), Cell::Float(b)) => b < a,
        (Cell::Histogram(a), Cell::Histogram(b)) => b.is_reset_after(a),
        _ => true,
    }
}

/// Whether there is a reset in front of the sample `at`, which is not the first.
fn is_reset(mixed: &MixedWindow<'_>, at: usize) -> bool {
    reset(&mixed.cell(at - 1), &mixed.cell(at)) || starts_anew(&mixed.window, at)
}

fn last_two(rate: bool, mixed: &MixedWindow<'_>, notes: &mut Notes) -> Option<Cell> {
    let last = mixed.window.values.len() - 1;
    if last == 0 {
        return None;
    }
    let (before, after) = match (mixed.cell(last - 1), mixed.cell(last)) {
        (Cell::Histogram(before), Cell::Histogram(after)) => (before, after),
        (Cell::Float(_), Cell::Float(_)) => {
            return window::apply(
                if rate {
                    WindowFunction::Irate
                } else {
                    WindowFunction::Idelta
                },
                &mixed.window,
            )
            .map(Cell::Float);
        }
        _ => {
            notes.add(Note::MixedTypes, mixed.span);
            return None;
        }
    };
    note_kind(rate, [&before, &after], mixed.span, notes);
    let mut change = Histogram::clone(&after);
    if !rate || !is_reset(mixed, last) {
        combine(change.subtract(&before), SUBTRACTION, mixed.span, notes)?;
    }
    change.reset_hint = ResetHint::Gauge;
    change.compact();
    if rate {
        let timestamps = mixed.window.timestamps;
        change.divide((timestamps[last] - timestamps[last - 1]) as f64 / 1000.0);
    }
    Some(Cell::Histogram(Arc::new(change)))
}

/// Says so when a counter is a gauge, or a gauge no gauge.
fn note_kind<'h>(
    counter: bool,
    histograms: impl IntoIterator<Item = &'h Arc<Histogram>>,
    span: Span,
    notes: &mut Notes,
) {
    for histogram in histograms {
        let gauge = histogram.reset_hint == ResetHint::Gauge;
        if counter && gauge {
            notes.add(Note::NotCounter, span);
        } else if !counter && !gauge {
            notes.add(Note::NotGauge, span);
        }
    }
}

/// Notes what happened when histograms were combined; `None`: they could not be.
fn combine(
    combined: Result<Combined, ModelError>,
    done: &'static str,
    span: Span,
    notes: &mut Notes,
) -> Option<Combined> {
    match combined {
        Ok(combined) => {
            if combined.bounds_reconciled {
                notes.add(Note::BoundsReconciled(done), span);
            }
            Some(combined)
        }
        Err(_) => {
            notes.add(Note::MixedKinds, span);
            None
        }
    }
}

/// The increase over histograms only, extrapolated as that of floats.
fn extrapolated(
    counter: bool,
    per_second: bool,
    mixed: &MixedWindow<'_>,
    notes: &mut Notes,
) -> Option<Cell> {
    let window = &mixed.window;
    let all = mixed.all();
    let last = all.len() - 1;
    let start = window.first_start().filter(|_| counter);
    if last == 0 && start.is_none() {
        return None;
    }
    if counter {
        let gauge = all.iter().any(|h| h.reset_hint == ResetHint::Gauge);
        if gauge {
            notes.add(Note::NotCounter, mixed.span);
        }
        if (1..=last).any(|at| window::start_overlaps(window, at)) {
            notes.add(Note::StartOverlaps, mixed.span);
        }
    }
    // What the first histogram looks like does not matter when the counter began anew behind it, or had begun from
    // nothing in front of it.
    let nothing_like = |histogram: &Histogram| {
        let mut nothing = histogram.clone();
        nothing.multiply(0.0);
        nothing.compact();
        nothing
    };
    let mut first = all[0].clone();
    let reset_behind_first = counter && last > 0 && is_reset(mixed, 1);
    if reset_behind_first && start.is_none() {
        first = nothing_like(all[1]);
    } else if start.is_some() {
        first = nothing_like(all[0]);
    }
    let kinds = if counter {
        &all[usize::from(reset_behind_first)..]
    } else {
        &all[last..]
    };
    if kinds.iter().any(|h| h.is_custom() != first.is_custom()) {
        notes.add(Note::MixedKinds, mixed.span);
        return None;
    }
    let mut change = all[last].clone();
    if counter {
        let coarsest = kinds.iter().map(|h| h.schema).min();
        change.reduce_schema(coarsest.unwrap_or(change.schema));
    }
    combine(change.subtract(&first), SUBTRACTION, mixed.span, notes)?;
    for at in (1..=last).filter(|at| counter && is_reset(mixed, *at)) {
        if at == 1 && start.is_none() {
            // The first one was left out above.
            continue;
        }
        combine(change.add(all[at - 1]), ADDITION, mixed.span, notes)?;
    }
    if !counter {
        let ends = [all[0], all[last]];
        if ends.iter().any(|h| h.reset_hint != ResetHint::Gauge) {
            notes.add(Note::NotGauge, mixed.span);
        }
    }
    change.reset_hint = ResetHint::Gauge;
    change.compact();
    let of_counter = counter.then_some((all[0].count, change.count));
    change.multiply(extrapolation(window, of_counter, start, per_second));
    Some(Cell::Histogram(Arc::new(change)))
}

/// The sum of histograms only, divided by `divisor`.
fn total(mixed: &MixedWindow<'_>, divisor: f64, notes: &mut Notes) -> Option<Cell> {
    let all = mixed.all();
    let scale = if divisor == 1.0 { 1.0 } else { MEAN_SCALE };
    let scaled = |histogram: &Histogram| {
        let mut histogram = histogram.clone();
        histogram.multiply(1.0 / scale);
        histogram
    };
    let mut sum = HistogramSum::new(scaled(all[0]));
    for histogram in &all[1..] {
        combine(sum.add(&scaled(histogram)), AGGREGATION, mixed.span, notes)?;
    }
    let seen = |hint| all.iter().any(|h| h.reset_hint == hint);
    if seen(ResetHint::Reset) && seen(ResetHint::NotReset) {
        notes.add(Note::ResetsCollide(AGGREGATION), mixed.span);
    }
    let mut sum = sum.finish();
    if scale != 1.0 {
        sum.divide(divisor);
        sum.multiply(scale);
    }
    Some(Cell::Histogram(Arc::new(sum)))
}

/// The histogram between two samples; of a counter that was reset between them it grows from nothing.
pub(crate) fn interpolate(
    first: (Millis, &Histogram),
    second: (Millis, &Histogram),
    time: Millis,
    counter: bool,
) -> Result<Histogram, ModelError> {
    let share = (time - first.0) as f64 / (second.0 - first.0) as f64;
    if first.1.is_custom() != second.1.is_custom() {
        return Err(ModelError::HistogramKinds);
    }
    let mut between = second.1.clone();
    if counter && second.1.is_below(first.1) {
        between.multiply(share);
        return Ok(between);
    }
    between.subtract(first.1)?;
    between.multiply(share);
    between.add(first.1)?;
    between.reset_hint = first.1.reset_hint;
    Ok(between)
}

/// The function's value over an anchored or smoothed range with at least one histogram.
pub(crate) fn apply_extended(
    function: WindowFunction,
    window: &ExtendedWindow<'_>,
    (histograms, first): (&Histograms, usize),
    span: Span,
    notes: &mut Notes,
) -> Option<Cell> {
    use WindowFunction::{Changes, Delta, Increase, Rate, Resets};
    let last = window.timestamps.len().checked_sub(1)?;
    if window.timestamps[last] <= window.start || window.timestamps[0] > window.end {
        return None;
    }
    let at = |at: usize| {
        let sample = cell(&window.values[at..=at], &Histograms::default(), 0);
        match histograms.at(first + at) {
            Some(histogram) if is_histogram(window.values[at]) => {
                Cell::Histogram(histogram.clone())
            }
            _ => sample,
        }
    };
    let count = |counts: fn(&Cell, &Cell) -> bool| {
        let pairs = (1..=last).filter(|i| counts(&at(i - 1), &at(*i)));
        Some(Cell::Float(pairs.count() as f64))
    };
    let change = match function {
        Changes => return count(changed),
        Resets => return count(reset),
        Delta | Increase | Rate => {
            let all: Option<Vec<_>> = (0..=last)
                .map(|i| match at(i) {
                    Cell::Histogram(histogram) => Some(histogram),
                    _ => None,
                })
                .collect();
            match all {
                Some(all) => extended_change(function != Delta, window, &all, span, notes),
                None => {
                    notes.add(Note::MixedTypes, span);
                    None
                }
            }
        }
        _ => None,
    };
    let mut change = change?;
    if function == Rate {
        change.divide((window.end - window.start) as f64 / 1000.0);
    }
    Some(Cell::Histogram(Arc::new(change)))
}

fn extended_change(
    counter: bool,
    window: &ExtendedWindow<'_>,
    all: &[Arc<Histogram>],
    span: Span,
    notes: &mut Notes,
) -> Option<Histogram> {
    let timestamps = window.timestamps;
    let last = all.len() - 1;
    match counter {
        true => note_kind(true, all, span, notes),
        false => note_kind(false, [&all[0], &all[last]], span, notes),
    }
    let smoothed = window.extension == Extension::Smoothed;
    let mut between = |at: usize, time: Millis| {
        let first = (timestamps[at], &*all[at]);
        let second = (timestamps[at + 1], &*all[at + 1]);
        let found = interpolate(first, second, time, counter);
        if found.is_err() {
            notes.add(Note::MixedKinds, span);
        }
        found.ok()
    };
    let left = match smoothed && timestamps[0] < window.start && last > 0 {
        true => between(0, window.start)?,
        false => Histogram::clone(&all[0]),
    };
    let cut_right = smoothed && timestamps[last] > window.end && last > 0;
    let right = match cut_right {
        true => between(last - 1, window.end)?,
        false => Histogram::clone(&all[last]),
    };
    let mut change = right.clone();
    combine(change.subtract(&left), SUBTRACTION, span, notes)?;
    if counter {
        let inside =
            (0..=last).filter(|i| timestamps[*i] > window.start && timestamps[*i] < window.end);
        let inside = inside.map(|i| &*all[i]);
        let mut before = &left;
        for histogram in inside.chain([&right]) {
            // Both values of a smoothed range that lies between two samples grow from the same nothing.
            if histogram.is_below(before) {
                combine(change.add(before), ADDITION, span, notes)?;
            }
            before = histogram;
        }
    }
    change.reset_hint = ResetHint::Gauge;
    change.compact();
    Some(change)
}
