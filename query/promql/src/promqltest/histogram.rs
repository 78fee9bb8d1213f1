//! Native histograms in test files: literals, and classic histograms that are loaded as native ones too.

use super::sequence::{Item, Sequence, number};
use std::{collections::BTreeMap, sync::Arc};
use trefoil_model::{
    Histogram, LABEL_NAME_METRIC, Labels, LabelsBuilder, ResetHint,
    histogram::{Buckets, SCHEMA_CUSTOM},
};

/// A histogram as it is written, and whether its reset hint is.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Literal {
    pub(super) histogram: Arc<Histogram>,
    pub(super) has_hint: bool,
}

/// Parses what is between `{{` and `}}`: `schema:1 sum:3 count:22 buckets:[5 10 7] ...`.
pub(super) fn literal(text: &str) -> Result<Literal, String> {
    let mut histogram = Histogram::default();
    let mut has_hint = false;
    let mut offsets = [0, 0];
    let mut sides: [Vec<f64>; 2] = [Vec::new(), Vec::new()];
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (field, behind) = rest
            .split_once(':')
            .ok_or_else(|| format!("cannot read the histogram {text:?}"))?;
        let end = match behind.starts_with('[') {
            true => behind.find(']').map(|at| at + 1),
            false => behind.find(char::is_whitespace),
        };
        let (value, after) = behind.split_at(end.unwrap_or(behind.len()));
        rest = after.trim_start();
        let float = || number(value).ok_or_else(|| format!("cannot read {field}:{value}"));
        let list = || -> Result<Vec<f64>, String> {
            let inner = value.trim_start_matches('[').trim_end_matches(']');
            let numbers = inner.split_whitespace().map(number);
            let all: Option<Vec<f64>> = numbers.collect();
            all.ok_or_else(|| format!("cannot read {field}:{value}"))
        };
        match field.trim() {
            "schema" => histogram.schema = float()? as i8,
            "sum" => histogram.sum = float()?,
            "count" => histogram.count = float()?,
            "z_bucket" => histogram.zero_count = float()?,
            "z_bucket_w" => histogram.zero_threshold = float()?,
            "offset" => offsets[0] = float()? as i32,
            "n_offset" => offsets[1] = float()? as i32,
            "buckets" => sides[0] = list()?,
            "n_buckets" => sides[1] = list()?,
            "custom_values" => histogram.custom_bounds = list()?.into(),
            "counter_reset_hint" => {
                has_hint = true;
                histogram.reset_hint = match value {
                    "unknown" => ResetHint::Unknown,
                    "reset" => ResetHint::Reset,
                    "not_reset" => ResetHint::NotReset,
                    "gauge" => ResetHint::Gauge,
                    _ => return Err(format!("cannot read the hint {value:?}")),
                };
            }
            _ => return Err(format!("a histogram has no {field:?}")),
        }
    }
    let [positive, negative] = sides;
    let buckets = |offset, counts: Vec<f64>| {
        let spans = [(offset, counts.len() as u32)];
        Buckets::from_spans(&spans, counts).map_err(|error| error.to_string())
    };
    histogram.positive = buckets(offsets[0], positive)?;
    histogram.negative = buckets(offsets[1], negative)?;
    histogram.check().map_err(|error| error.to_string())?;
    Ok(Literal {
        histogram: Arc::new(histogram),
        has_hint,
    })
}

/// The native histograms, as series with values at the same places, of all classic ones among `series`.
pub(super) fn from_classic(series: &[Sequence]) -> Vec<Sequence> {
    let mut families: BTreeMap<Labels, Vec<Classic>> = BTreeMap::new();
    for sequence in series {
        let Some((labels, part)) = part_of(&sequence.labels) else {
            continue;
        };
        let family = families.entry(labels).or_default();
        for (at, item) in sequence.items.iter().enumerate() {
            let Item::Value(value) = item else {
                continue;
            };
            if family.len() <= at {
                family.resize_with(at + 1, Classic::default);
            }
            match part {
                Part::Bucket(bound) => family[at].buckets.push((bound, *value)),
                Part::Count => family[at].count = Some(*value),
                Part::Sum => family[at].sum = Some(*value),
            }
        }
    }
    let native = |(labels, family): (Labels, Vec<Classic>)| Sequence {
        labels,
        items: family.into_iter().map(Classic::native).collect(),
        starts: None,
    };
    families.into_iter().map(native).collect()
}

/// What a series says about a classic histogram.
#[derive(Clone, Copy)]
enum Part {
    Bucket(f64),
    Count,
    Sum,
}

fn part_of(labels: &Labels) -> Option<(Labels, Part)> {
    let name = labels.metric_name()?;
    let (name, part) = if let Some(name) = name.strip_suffix("_bucket") {
        let bound = labels.get("le")?.parse().ok()?;
        (name, Part::Bucket(bound))
    } else if let Some(name) = name.strip_suffix("_count") {
        (name, Part::Count)
    } else {
        (name.strip_suffix("_sum")?, Part::Sum)
    };
    let mut builder = LabelsBuilder::from_labels(labels);
    let labels = builder.set(LABEL_NAME_METRIC, name).remove("le").build();
    Some((labels, part))
}

/// A classic histogram at one time.
#[derive(Default)]
struct Classic {
    buckets: Vec<(f64, f64)>,
    count: Option<f64>,
    sum: Option<f64>,
}

impl Classic {
    /// A gap where there is none, or where counts decrease from bucket to bucket.
    fn native(mut self) -> Item {
        if self.buckets.is_empty() && self.count.is_none() {
            return Item::Gap;
        }
        self.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        // The same bound written in two ways is one bucket, the first one.
        self.buckets.dedup_by(|next, kept| next.0 == kept.0);
        let last = self.buckets.last().copied();
        let count = self.count.or(last.map(|(_, count)| count)).unwrap_or(0.0);
        if last.is_none_or(|(bound, _)| bound != f64::INFINITY) {
            self.buckets.push((f64::INFINITY, count));
        }
        let mut before = 0.0;
        let mut counts = Vec::with_capacity(self.buckets.len());
        for (_, cumulative) in &self.buckets {
            if *cumulative < before {
                return Item::Gap;
            }
            counts.push(cumulative - before);
            before = *cumulative;
        }
        let bounds: Vec<f64> = self.buckets.iter().map(|(bound, _)| *bound).collect();
        let Ok(positive) = Buckets::from_spans(&[(0, counts.len() as u32)], counts) else {
            return Item::Gap;
        };
        let mut histogram = Histogram {
            schema: SCHEMA_CUSTOM,
            count,
            sum: self.sum.unwrap_or(0.0),
            positive,
            custom_bounds: bounds[..bounds.len() - 1].into(),
            ..Histogram::default()
        };
        histogram.compact();
        match histogram.check() {
            Ok(()) => Item::Histogram(Literal {
                histogram: Arc::new(histogram),
                has_hint: false,
            }),
            Err(_) => Item::Gap,
        }
    }
}
