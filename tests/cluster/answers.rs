//! Comparing answers of Prometheus' query API, whoever gave them.

use serde_json::Value;

/// A series of an answer: its labels as text, and its samples as text of time and value.
pub(crate) type Element = (String, Vec<(String, String)>);

/// The series of a vector or matrix, sorted by labels; a scalar is a series without labels.
pub(crate) fn elements(answer: &Value) -> Option<Vec<Element>> {
    let list = answer.as_array()?;
    let pair = |pair: &Value| Some((pair[0].to_string(), pair[1].as_str()?.to_owned()));
    if list.first().is_some_and(Value::is_number) {
        return Some(vec![("{}".to_owned(), vec![pair(answer)?])]);
    }
    let mut elements = Vec::new();
    for series in list {
        let pairs = match series["values"].as_array() {
            Some(values) => values.clone(),
            None => vec![series["value"].clone()],
        };
        let samples: Option<Vec<(String, String)>> = pairs.iter().map(pair).collect();
        // serde_json's maps are sorted by key, so equal label sets give equal texts.
        elements.push((series["metric"].to_string(), samples?));
    }
    elements.sort();
    Some(elements)
}

/// Whether two answers have the same series and times, and values that differ by at most `relative` of the larger.
pub(crate) fn same_numbers(one: &Value, other: &Value, relative: f64) -> bool {
    let (Some(one), Some(other)) = (elements(one), elements(other)) else {
        return false;
    };
    let same = |a: &str, b: &str| same_number(a, b, relative);
    let same_samples = |(labels, samples): &Element, (other_labels, others): &Element| {
        labels == other_labels
            && samples.len() == others.len()
            && samples
                .iter()
                .zip(others)
                .all(|((time, value), (other_time, other_value))| {
                    same(time, other_time) && same(value, other_value)
                })
    };
    one.len() == other.len() && one.iter().zip(&other).all(|(a, b)| same_samples(a, b))
}

/// What is below this counts as zero: the rest of a difference of equal sums.
const ZERO: f64 = 1e-9;

fn same_number(one: &str, other: &str, relative: f64) -> bool {
    match (one.parse::<f64>(), other.parse::<f64>()) {
        (Ok(a), Ok(b)) if a.is_finite() && b.is_finite() => {
            (a - b).abs() <= (relative * a.abs().max(b.abs())).max(ZERO)
        }
        _ => one == other,
    }
}
