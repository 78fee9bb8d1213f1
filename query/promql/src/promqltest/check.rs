//! Compares answers with what a test file expects.

use super::{
    histogram::Literal,
    script::{Expected, Remarks, Text},
    sequence::{Item, Sequence},
};
use crate::{Grid, QueryData, QueryError, QueryResult, Value, format::number};
use std::collections::HashMap;
use trefoil_model::{Histogram, Labels, Millis, histogram::Buckets};

/// Relative difference of two values that count as equal.
const TOLERANCE: f64 = 1e-6;

fn nearly_equal(a: f64, b: f64) -> bool {
    if a == b || (a.is_nan() && b.is_nan()) {
        return true;
    }
    let (sum, difference) = (a.abs() + b.abs(), (a - b).abs());
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < TOLERANCE * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < TOLERANCE
}

fn check_value(got: f64, want: f64, what: &str) -> Result<(), String> {
    if nearly_equal(got, want) {
        return Ok(());
    }
    Err(format!(
        "{what}: got {}, want {}",
        number(got),
        number(want)
    ))
}

fn check_item(got: &Value, want: &Item, what: &str) -> Result<(), String> {
    match (got, want) {
        (Value::Float(got), Item::Value(want)) => check_value(*got, *want, what),
        (Value::Histogram(got), Item::Histogram(want)) => match same_histogram(got, want) {
            true => Ok(()),
            false => Err(format!(
                "{what}: got {}, want {}",
                histogram_text(got),
                histogram_text(&want.histogram)
            )),
        },
        (got, want) => Err(format!(
            "{what}: got {}, want {}",
            value_text(got),
            item_text(want)
        )),
    }
}

/// Whether all but empty buckets agree nearly; the reset hint only if it is written.
fn same_histogram(got: &Histogram, want: &Literal) -> bool {
    let (mut got, mut want_compact) = (got.clone(), Histogram::clone(&want.histogram));
    got.compact();
    want_compact.compact();
    let same_side = |got: &Buckets, want: &Buckets| {
        let mut pairs = got.counts().iter().zip(want.counts());
        got.indexes() == want.indexes() && pairs.all(|(got, want)| nearly_equal(*got, *want))
    };
    let hint = want.has_hint.then_some(want.histogram.reset_hint);
    let want = want_compact;
    got.schema == want.schema
        && got.custom_bounds == want.custom_bounds
        && got.zero_threshold == want.zero_threshold
        && nearly_equal(got.count, want.count)
        && nearly_equal(got.sum, want.sum)
        && nearly_equal(got.zero_count, want.zero_count)
        && same_side(&got.positive, &want.positive)
        && same_side(&got.negative, &want.negative)
        && hint.is_none_or(|hint| hint == got.reset_hint)
}

/// Samples by series, in the order of the answer.
pub(super) type Samples = Vec<(Labels, Vec<(Millis, Value)>)>;

/// The samples of a vector or matrix.
pub(super) fn samples(data: &QueryData) -> Option<Samples> {
    let value = |point: &crate::Point| (point.time, point.value.clone());
    match data {
        QueryData::Vector(vector) => {
            let samples = vector.iter();
            let samples = samples.map(|s| (s.labels.clone(), vec![value(&s.point)]));
            Some(samples.collect())
        }
        QueryData::Matrix(matrix) => {
            let series = matrix.iter();
            let samples = series.map(|s| (s.labels.clone(), s.points.iter().map(value).collect()));
            Some(samples.collect())
        }
        _ => None,
    }
}

/// Checks the data of an instant answer; with `ordered`, its order too.
pub(super) fn instant(
    data: &QueryData,
    expected: &Expected,
    time: Millis,
    ordered: bool,
) -> Result<(), String> {
    if let Some(want) = &expected.string {
        return match data {
            QueryData::String { text, .. } if text == want => Ok(()),
            QueryData::String { text, .. } => Err(format!("want the text {want:?}, got {text:?}")),
            _ => Err(format!("want the text {want:?}, got none")),
        };
    }
    match (data, expected.scalar) {
        (QueryData::Scalar(point), Some(want)) => {
            let got = point.value.as_float().unwrap_or(f64::NAN);
            return check_value(got, want, "scalar");
        }
        (QueryData::Scalar(_), None) => return Err("got a scalar, want none".into()),
        (_, Some(_)) => return Err("want a scalar".into()),
        (_, None) => {}
    }
    let got = samples(data).ok_or("got no vector")?;
    if let Some(grid) = expected.range_vector {
        return series(&got, &expected.series, grid);
    }
    if matches!(data, QueryData::Matrix(_)) {
        return Err("got a matrix, want a vector".into());
    }
    series(&got, &expected.series, Grid::instant(time))?;
    if ordered {
        for (index, (got, want)) in got.iter().zip(&expected.series).enumerate() {
            if got.0 != want.labels {
                return Err(format!("at {index}: got {}, want {}", got.0, want.labels));
            }
        }
    }
    Ok(())
}

fn value_text(value: &Value) -> String {
    match value {
        Value::Float(value) => number(*value),
        Value::Histogram(histogram) => histogram_text(histogram),
    }
}

/// As it stands in a test file.
fn item_text(item: &Item) -> String {
    match item {
        Item::Value(value) => number(*value),
        Item::Gap => "_".to_owned(),
        Item::Histogram(literal) => histogram_text(&literal.histogram),
    }
}

fn samples_text(samples: impl Iterator<Item = (Millis, String)>) -> String {
    let each: Vec<String> = samples
        .map(|(time, text)| format!("{text} @[{time}]"))
        .collect();
    match each.is_empty() {
        true => "nothing".to_owned(),
        false => each.join(", "),
    }
}

/// As a literal of a test file, with the indexes of the buckets.
fn histogram_text(histogram: &Histogram) -> String {
    let numbers = |values: &[f64]| {
        values
            .iter()
            .map(|one| number(*one))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let side = |buckets: &Buckets| {
        let counts = buckets.indexes().iter().zip(buckets.counts());
        let each: Vec<String> = counts
            .map(|(index, count)| format!("{index}:{}", number(*count)))
            .collect();
        each.join(" ")
    };
    let mut text = format!(
        "{{{{schema:{} count:{} sum:{}",
        histogram.schema,
        number(histogram.count),
        number(histogram.sum)
    );
    if histogram.zero_count != 0.0 || histogram.zero_threshold != 0.0 {
        text += &format!(
            " z_bucket:{} z_bucket_w:{}",
            number(histogram.zero_count),
            number(histogram.zero_threshold)
        );
    }
    for (name, buckets) in [
        ("buckets", &histogram.positive),
        ("n_buckets", &histogram.negative),
    ] {
        if !buckets.counts().is_empty() {
            text += &format!(" {name}:[{}]", side(buckets));
        }
    }
    if !histogram.custom_bounds.is_empty() {
        text += &format!(" custom_values:[{}]", numbers(&histogram.custom_bounds));
    }
    text + &format!(" counter_reset_hint:{:?}}}}}", histogram.reset_hint).to_lowercase()
}

/// Checks series and their values at the times of `grid`.
pub(super) fn series(got: &Samples, expected: &[Sequence], grid: Grid) -> Result<(), String> {
    let mut remaining: HashMap<&Labels, &Vec<(Millis, Value)>> = HashMap::new();
    for (labels, samples) in got {
        if remaining.insert(labels, samples).is_some() {
            return Err(format!("got {labels} twice"));
        }
    }
    for sequence in expected {
        let labels = &sequence.labels;
        let want: Vec<(Millis, &Item)> = sequence
            .items
            .iter()
            .enumerate()
            .filter(|(_, item)| **item != Item::Gap)
            .map(|(at, item)| (grid.at(at), item))
            .collect();
        let got = remaining.remove(labels);
        let got = got.map_or(&[][..], Vec::as_slice);
        if got.len() != want.len() {
            return Err(format!(
                "{labels}: got {} samples, want {}: got {}, want {}",
                got.len(),
                want.len(),
                samples_text(got.iter().map(|(time, value)| (*time, value_text(value)))),
                samples_text(want.iter().map(|(time, item)| (*time, item_text(item)))),
            ));
        }
        for ((got_time, got), (time, want)) in got.iter().zip(&want) {
            if got_time != time {
                return Err(format!(
                    "{labels}: got a sample at {got_time}, want one at {time}"
                ));
            }
            check_item(got, want, &format!("{labels} at {time}"))?;
        }
    }
    match remaining.iter().next() {
        Some((labels, samples)) => {
            let samples = samples.iter();
            let got = samples_text(samples.map(|(time, value)| (*time, value_text(value))));
            Err(format!("got {labels} {got}, want none"))
        }
        None => Ok(()),
    }
}

/// Checks warnings and infos. Positions count only where the query is as it was written.
pub(super) fn remarks(
    result: &QueryResult,
    expected: &Expected,
    positions: bool,
) -> Result<(), String> {
    remarks_of("warnings", &result.warnings, &expected.warnings, positions)?;
    remarks_of("infos", &result.infos, &expected.infos, positions)
}

fn remarks_of(
    what: &str,
    got: &[String],
    expected: &Remarks,
    positions: bool,
) -> Result<(), String> {
    if expected.none && !got.is_empty() {
        return Err(format!("got {what} {got:?}, want none"));
    }
    if expected.some && got.is_empty() {
        return Err(format!("got no {what}, want some"));
    }
    if !positions {
        return Ok(());
    }
    for text in &expected.texts {
        if !got.iter().any(|got| text.fits(got)) {
            return Err(format!("got {what} {got:?}, want {text}"));
        }
    }
    Ok(())
}

/// Checks that a query failed as expected.
pub(super) fn failure(error: &QueryError, expected: &[Text]) -> Result<(), String> {
    let text = error.to_string();
    for expected in expected {
        let fits = match expected {
            // The peer's tests give parse errors with or without their position.
            Text::Exactly(want) => text == *want || text.ends_with(want),
            Text::Matching(_) => expected.fits(&text),
        };
        if !fits {
            return Err(format!("failed with {text:?}, want {expected}"));
        }
    }
    Ok(())
}
