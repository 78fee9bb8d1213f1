//! `histogram_quantile` and its relatives: over classic histograms across series, and over native ones.

use crate::{
    Annotations, QueryError, Span,
    ast::{Call, Expr, ExprKind},
    evaluate::{context::Scalars, pipeline::warn_about_quantile, without_name},
    format::open_metrics,
    functions::{
        classic::{self, Bucket},
        native::{self, Quantile},
    },
    note::{Note, Notes},
    pace::{LOOKS_OF_HISTOGRAM, LOOKS_OF_ROW, Pace},
    row::{ABSENT, Cell, Row, is_absent, is_histogram},
};
use std::{collections::HashMap, sync::Arc};
use trefoil_model::{Histogram, Labels, LabelsBuilder};

const BUCKET_LABEL: &str = "le";

/// The rows that a function is applied to.
pub(crate) struct Input<'r> {
    pub(crate) rows: &'r [Row],
    /// Where they come from in the query.
    pub(crate) span: Span,
    pub(crate) steps: usize,
    pub(crate) delayed: bool,
}

/// What has the same labels but for those of buckets: the buckets of a classic histogram, and a native one.
struct Group<'r> {
    labels: Labels,
    drop_name: bool,
    /// Rows with their bounds.
    buckets: Vec<(f64, &'r Row)>,
    native: Option<&'r Row>,
}

/// Sorts rows into histograms, in the order of their first rows.
fn group<'r>(
    input: &Input<'r>,
    annotations: &mut Annotations,
    pace: &mut Pace<'_>,
) -> Result<Vec<Group<'r>>, QueryError> {
    let mut indexes: HashMap<Labels, usize> = HashMap::new();
    let mut groups: Vec<Group<'r>> = Vec::new();
    let mut group_of = |groups: &mut Vec<Group<'r>>, labels: Labels, drop_name: bool| {
        let at = *indexes.entry(labels.clone()).or_insert(groups.len());
        if at == groups.len() {
            groups.push(Group {
                labels,
                drop_name,
                buckets: Vec::new(),
                native: None,
            });
        }
        at
    };
    for row in input.rows {
        pace.look(LOOKS_OF_ROW)?;
        if !row.histograms.is_empty() {
            let at = group_of(&mut groups, row.labels.clone(), row.drop_name);
            groups[at].native = Some(row);
            let floats = |value: &f64| !is_absent(*value) && !is_histogram(*value);
            if !row.values.iter().any(floats) {
                continue;
            }
        }
        let text = row.labels.get(BUCKET_LABEL).unwrap_or("");
        let Some(bound) = parse_bound(text) else {
            annotations.warn(
                input.span,
                format!(
                    "bucket label {BUCKET_LABEL:?} is missing or has a malformed value of {text:?}{}",
                    for_metric(&row.labels)
                ),
            );
            continue;
        };
        let labels = LabelsBuilder::from_labels(&row.labels)
            .remove(BUCKET_LABEL)
            .build();
        let at = group_of(&mut groups, labels, row.drop_name);
        groups[at].buckets.push((bound, row));
    }
    Ok(groups)
}

/// Go's `strconv.ParseFloat` for bucket bounds.
fn parse_bound(text: &str) -> Option<f64> {
    if text.is_empty() {
        return None;
    }
    text.parse().ok()
}

fn for_metric(labels: &Labels) -> String {
    match labels.metric_name() {
        Some(name) => format!(" for metric name {name:?}"),
        None => String::new(),
    }
}

impl Group<'_> {
    fn buckets_at(&self, at: usize, into: &mut Vec<Bucket>) {
        into.clear();
        for (bound, row) in &self.buckets {
            if let Cell::Float(count) = row.at(at) {
                into.push(Bucket {
                    bound: *bound,
                    count,
                });
            }
        }
    }

    fn native_at(&self, at: usize) -> Option<Arc<Histogram>> {
        match self.native?.at(at) {
            Cell::Histogram(histogram) => Some(histogram),
            _ => None,
        }
    }

    /// The row of `classic` of the buckets, or `native` of the native histogram, at each time.
    fn map(
        &self,
        input: &Input<'_>,
        notes: &mut Notes,
        mut classic: impl FnMut(usize, &mut Vec<Bucket>) -> f64,
        native: impl Fn(usize, &Histogram, &mut Notes) -> f64,
        pace: &mut Pace<'_>,
    ) -> Result<Row, QueryError> {
        let mut buckets = Vec::with_capacity(self.buckets.len());
        let mut values = vec![ABSENT; input.steps];
        let of_native = self.native.map_or(1, |_| LOOKS_OF_HISTOGRAM);
        for (at, value) in values.iter_mut().enumerate() {
            pace.look(self.buckets.len() + of_native)?;
            self.buckets_at(at, &mut buckets);
            match (self.native_at(at), buckets.is_empty()) {
                (Some(histogram), true) => *value = native(at, &histogram, notes),
                (Some(_), false) => notes.add(Note::MixedHistograms, input.span),
                (None, false) => *value = classic(at, &mut buckets),
                (None, true) => {}
            }
        }
        let labels = match input.delayed {
            true => self.labels.clone(),
            false => without_name(&self.labels),
        };
        let drop_name = input.delayed || self.drop_name;
        Ok(Row::floats(labels, drop_name, values))
    }

    fn tell(&self, notes: &mut Notes, annotations: &mut Annotations) {
        notes.tell(self.labels.metric_name().unwrap_or(""), annotations);
    }
}

/// One quantile that is asked for, and where it stands in the query.
pub(crate) struct Wanted<'a> {
    pub(crate) quantiles: &'a Scalars,
    pub(crate) span: Span,
    /// The label to which the quantile is written, for `histogram_quantiles`.
    pub(crate) label: Option<&'a str>,
}

/// `histogram_quantile` for each of `wanted`.
///
/// # Errors
/// Those of the pace.
pub(crate) fn quantiles(
    wanted: &[Wanted<'_>],
    input: &Input<'_>,
    annotations: &mut Annotations,
    pace: &mut Pace<'_>,
) -> Result<Vec<Row>, QueryError> {
    let mut results = Vec::new();
    for wanted in wanted {
        pace.look(input.steps)?;
        for at in 0..input.steps {
            warn_about_quantile(wanted.quantiles.at(at), wanted.span, annotations);
        }
    }
    let groups = group(input, annotations, pace)?;
    let mut notes = Notes::default();
    for group in &groups {
        for wanted in wanted {
            let mut forced = false;
            let classic = |at: usize, buckets: &mut Vec<Bucket>| {
                let (value, fixed) = classic::quantile(wanted.quantiles.at(at), buckets);
                forced |= fixed;
                value
            };
            let native =
                |at: usize, histogram: &Histogram, notes: &mut Notes| match native::quantile(
                    wanted.quantiles.at(at),
                    histogram,
                ) {
                    Quantile::Value(value) => value,
                    Quantile::Skewed(value) => {
                        notes.add(Note::QuantileIsSkewed, input.span);
                        value
                    }
                    Quantile::Nan => {
                        notes.add(Note::QuantileIsNan, input.span);
                        f64::NAN
                    }
                };
            let mut row = group.map(input, &mut notes, classic, native, pace)?;
            group.tell(&mut notes, annotations);
            if forced {
                annotations.info(
                    input.span,
                    format!(
                        "input to histogram_quantile needed to be fixed for monotonicity (see \
                         https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile){}",
                        for_metric(&group.labels)
                    ),
                );
            }
            if let Some(label) = wanted.label {
                row.labels = LabelsBuilder::from_labels(&row.labels)
                    .set(label, &open_metrics(wanted.quantiles.at(0)))
                    .build();
            }
            results.push(row);
        }
    }
    results.retain(|row| !row.is_empty());
    Ok(results)
}

/// `histogram_fraction` between a lower and an upper bound.
///
/// # Errors
/// Those of the pace.
pub(crate) fn fractions(
    (lower, upper): (&Scalars, &Scalars),
    input: &Input<'_>,
    annotations: &mut Annotations,
    pace: &mut Pace<'_>,
) -> Result<Vec<Row>, QueryError> {
    let mut notes = Notes::default();
    let mut results = Vec::new();
    for group in group(input, annotations, pace)? {
        let classic = |at: usize, buckets: &mut Vec<Bucket>| {
            classic::fraction(lower.at(at), upper.at(at), buckets)
        };
        let native = |at: usize, histogram: &Histogram, notes: &mut Notes| {
            let (fraction, has_nan) = native::fraction(lower.at(at), upper.at(at), histogram);
            if has_nan {
                notes.add(Note::FractionWithoutNan, input.span);
            }
            fraction
        };
        results.push(group.map(input, &mut notes, classic, native, pace)?);
        group.tell(&mut notes, annotations);
    }
    results.retain(|row| !row.is_empty());
    Ok(results)
}

/// The label argument of `histogram_quantiles`.
///
/// # Errors
/// When it is not a text.
pub(crate) fn quantile_label(call: &Call) -> Result<&str, QueryError> {
    match call.arguments.get(1).map(Expr::unwrap_parens) {
        Some(Expr {
            kind: ExprKind::String(label),
            ..
        }) => label.label_name(),
        _ => Err(QueryError::Internal("the label is missing".into())),
    }
}

/// Refuses histograms that have the label already.
///
/// # Errors
/// When one has; those of the pace.
pub(crate) fn check_label(
    label: &str,
    rows: &[Row],
    pace: &mut Pace<'_>,
) -> Result<(), QueryError> {
    for row in rows {
        pace.look(LOOKS_OF_ROW)?;
        if row.labels.get(label).is_some() {
            return Err(QueryError::execution(format!(
                "label {label:?} already exists in input series"
            )));
        }
    }
    Ok(())
}
