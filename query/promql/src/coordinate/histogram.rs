//! `histogram_quantile` and its relatives over classic histograms, across series.

use crate::{
    Annotations, QueryError, Span,
    ast::{Call, Expr, ExprKind},
    evaluate::{context::Scalars, pipeline::warn_about_quantile, without_name},
    format::open_metrics,
    functions::classic::{self, Bucket},
    row::{ABSENT, Row, is_absent},
};
use std::collections::HashMap;
use trefoil_model::{Labels, LabelsBuilder};

const BUCKET_LABEL: &str = "le";

/// The buckets of one histogram: rows with their bounds.
struct Buckets<'r> {
    labels: Labels,
    drop_name: bool,
    rows: Vec<(f64, &'r Row)>,
}

/// Sorts rows into histograms, in the order of their first rows.
fn group<'r>(rows: &'r [Row], span: Span, annotations: &mut Annotations) -> Vec<Buckets<'r>> {
    let mut indexes: HashMap<Labels, usize> = HashMap::new();
    let mut groups: Vec<Buckets<'r>> = Vec::new();
    for row in rows {
        let text = row.labels.get(BUCKET_LABEL).unwrap_or("");
        let Some(bound) = parse_bound(text) else {
            annotations.warn(
                span,
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
        let at = *indexes.entry(labels.clone()).or_insert(groups.len());
        if at == groups.len() {
            groups.push(Buckets {
                labels,
                drop_name: row.drop_name,
                rows: Vec::new(),
            });
        }
        groups[at].rows.push((bound, row));
    }
    groups
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

impl Buckets<'_> {
    fn at(&self, at: usize, into: &mut Vec<Bucket>) {
        into.clear();
        for (bound, row) in &self.rows {
            if !is_absent(row.values[at]) {
                into.push(Bucket {
                    bound: *bound,
                    count: row.values[at],
                });
            }
        }
    }

    /// The row of `f` of the buckets at each time.
    fn map(
        &self,
        steps: usize,
        delayed: bool,
        mut f: impl FnMut(usize, &mut Vec<Bucket>) -> f64,
    ) -> Row {
        let mut buckets = Vec::with_capacity(self.rows.len());
        let mut values = vec![ABSENT; steps];
        for (at, value) in values.iter_mut().enumerate() {
            self.at(at, &mut buckets);
            if !buckets.is_empty() {
                *value = f(at, &mut buckets);
            }
        }
        Row {
            labels: if delayed {
                self.labels.clone()
            } else {
                without_name(&self.labels)
            },
            drop_name: delayed || self.drop_name,
            values,
        }
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
pub(crate) fn quantiles(
    wanted: &[Wanted<'_>],
    rows: &[Row],
    rows_span: Span,
    steps: usize,
    delayed: bool,
    annotations: &mut Annotations,
) -> Vec<Row> {
    let mut results = Vec::new();
    for wanted in wanted {
        for at in 0..steps {
            warn_about_quantile(wanted.quantiles.at(at), wanted.span, annotations);
        }
    }
    let groups = group(rows, rows_span, annotations);
    for group in &groups {
        for wanted in wanted {
            let mut forced = false;
            let mut row = group.map(steps, delayed, |at, buckets| {
                let (value, fixed) = classic::quantile(wanted.quantiles.at(at), buckets);
                forced |= fixed;
                value
            });
            if forced {
                annotations.info(
                    rows_span,
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
    results
}

/// `histogram_fraction`.
pub(crate) fn fractions(
    lower: &Scalars,
    upper: &Scalars,
    rows: &[Row],
    rows_span: Span,
    steps: usize,
    delayed: bool,
    annotations: &mut Annotations,
) -> Vec<Row> {
    let groups = group(rows, rows_span, annotations);
    let fraction = |group: &Buckets<'_>| {
        group.map(steps, delayed, |at, buckets| {
            classic::fraction(lower.at(at), upper.at(at), buckets)
        })
    };
    let mut results: Vec<Row> = groups.iter().map(fraction).collect();
    results.retain(|row| !row.is_empty());
    results
}

/// The label argument of `histogram_quantiles`.
///
/// # Errors
/// When it is not a text or the histograms have that label already.
pub(crate) fn quantile_label<'e>(call: &'e Call, rows: &[Row]) -> Result<&'e str, QueryError> {
    let label = match call.arguments.get(1).map(Expr::unwrap_parens) {
        Some(Expr {
            kind: ExprKind::String(label),
            ..
        }) => label,
        _ => return Err(QueryError::Internal("the label is missing".into())),
    };
    if label.is_empty() {
        return Err(QueryError::execution(format!(
            "invalid label name {label:?}"
        )));
    }
    if rows.iter().any(|row| row.labels.get(label).is_some()) {
        return Err(QueryError::execution(format!(
            "label {label:?} already exists in input series"
        )));
    }
    Ok(label)
}
